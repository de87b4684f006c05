"""The pooled model: one logistic regression over the sampled pairs of many products.

It says how much a purchase-day, a recent visit or a declared weight is worth in general, and how
that changes with the product's prior: a busy customer who never touched what everybody buys has
decided against it, one who never touched a rarity has only not met it. Products deviate from the
model as far as their own pairs speak (fit.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from visavis.learning.fit import fit_deviation
from visavis.learning.pairs import Design, sample_product
from visavis.learning.windows import WindowIndex

__all__ = ["PooledModel", "fit_pooled"]

#: Hardly a pull: it only keeps columns that say the same from running away.
PLAIN_RIDGE: Final = 0.1

#: The pull of interactions with the prior toward none; without it, at a hundred indicators, they
#: are mostly noise, which grows with the distance from the mean prior. Log-loss on the last window
#: before the demo's cut: 0.067213 with 1, 0.067198 with 1,000, 0.067188 with 10,000.
INTERACTION_RIDGE: Final = 10_000.0

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PooledModel:
    """Coefficients of the standardised columns, then of the log priors.

    Attributes
    ----------
    intercept : float
    coefficients : ndarray of shape (columns,), float64
        Of the columns of `Design`, standardised, for a product of the mean log prior.
    interactions : ndarray of shape (columns,), float64
        What each coefficient gains per unit that the log prior lies above its mean.
    prior_coefficients : ndarray of shape (half-lives + 1,), float64
        Of the product's log prior purchase-days.
    log_prior_mean : float
        Of the prior purchase-days without decay, over pairs.
    mean, deviation : ndarray of shape (columns,), float64
        A column is standardised as (x − mean) / deviation.
    row_count, product_count : int
        What it was fitted on.
    """

    intercept: float
    coefficients: Float64
    interactions: Float64
    prior_coefficients: Float64
    log_prior_mean: float
    mean: Float64
    deviation: Float64
    row_count: int
    product_count: int

    def standardise(self, x: Float64) -> Float64:
        """The columns in standard deviations from their mean."""
        return np.asarray((x - self.mean) / self.deviation)

    def level(self, prior_days: Float64) -> float:
        """What a product has before any of its customers is looked at."""
        return self.intercept + float(self.prior_coefficients @ np.log(prior_days))

    def slopes(self, prior_days: Float64) -> Float64:
        """A product's coefficients of the standardised columns, before its own deviation."""
        beyond = float(np.log(prior_days[-1])) - self.log_prior_mean
        return np.asarray(self.coefficients + beyond * self.interactions)

    def offset(self, standardised: Float64, prior_days: Float64) -> Float64:
        """The pooled linear predictor of some pairs of one product."""
        return np.asarray(self.level(prior_days) + standardised @ self.slopes(prior_days))


def fit_pooled(design: Design, indexes: Sequence[WindowIndex]) -> PooledModel:
    """Fit the pooled model on as many products as the spec's `pooled_cells` allow.

    Products are taken in a fixed random order. Rows count alike, corrected for how they were drawn
    (`Sample.log_odds_shift`); columns are standardised over the full population.
    """
    rng = np.random.default_rng([design.spec.seed, len(design.products)])
    blocks, priors, labels, weights, shifts = [], [], [], [], []
    row_count = product_count = 0
    rows_enough = max(1, design.spec.pooled_cells // design.column_count)
    for product in rng.permutation(len(design.products)):
        if row_count >= rows_enough:
            break
        for number, index in enumerate(indexes):
            sample = sample_product(design, index, int(product), number)
            log_prior = np.log(sample.prior_days)
            blocks.append(sample.x)
            priors.append(np.broadcast_to(log_prior, (len(sample.x), len(log_prior))))
            labels.append(sample.bought)
            weights.append(sample.weight)
            shifts.append(sample.log_odds_shift)
            row_count += len(sample.x)
        product_count += 1
    x, weight = np.concatenate(blocks), np.concatenate(weights)
    mean = np.average(x, axis=0, weights=weight)
    deviation = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight))
    deviation[deviation == 0.0] = 1.0
    log_priors = np.concatenate(priors)
    log_prior_mean = float(np.average(log_priors[:, -1], weights=weight))
    x -= mean
    x /= deviation
    width, prior_count = x.shape[1], log_priors.shape[1]
    beyond = log_priors[:, -1:] - log_prior_mean
    columns = np.column_stack([np.ones(len(x)), x, x * beyond, log_priors])
    ridge = np.repeat(
        [PLAIN_RIDGE, PLAIN_RIDGE, INTERACTION_RIDGE, PLAIN_RIDGE], [1, width, width, prior_count]
    )
    fitted = fit_deviation(columns, np.concatenate(labels), np.concatenate(shifts), ridge)
    intercept, main, interactions, prior = np.split(fitted, np.cumsum([1, width, width]))
    return PooledModel(
        intercept=float(intercept[0]),
        coefficients=main,
        interactions=interactions,
        prior_coefficients=prior,
        log_prior_mean=log_prior_mean,
        mean=mean,
        deviation=deviation,
        row_count=row_count,
        product_count=product_count,
    )
