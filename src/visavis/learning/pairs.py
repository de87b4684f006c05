"""Sampled pairs of one product, with their features and with weights back to the full population.

Pairs without a sign of interest are millions and nearly alike, so few of them are drawn. Each kind
of pair (with history or without, bought or not) stands for the whole of its kind: its weight is the
size of the kind over the size of the sample. Without the weights the ranking falls apart: a sample
knows how often its own pairs buy, not how often pairs do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from visavis.catalog import Catalog, HistoryTerm
from visavis.domain import FactKind
from visavis.errors import SchemaError
from visavis.features import FEATURES
from visavis.learning.spec import LearnSpec
from visavis.learning.windows import WindowIndex

__all__ = ["Design", "Sample", "sample_product"]

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


class Sample(NamedTuple):
    """Sampled pairs of one product in one window.

    Attributes
    ----------
    x : ndarray of shape (rows, columns), float64
        Features in the order of `Design.columns`.
    bought : ndarray of shape (rows,), float64
        1 where the customer bought in the window, else 0.
    weight : ndarray of shape (rows,), float64
        How many pairs of the full population each row stands for.
    log_odds_shift : ndarray of shape (rows,), float64
        By how much the sample's log-odds lie above the population's: log(weight of what was not
        bought / weight of what was), within history and without. A model fitted without weights to
        z + shift estimates the population's z, and every row speaks for itself alone: with the
        weights, at a million customers a few hundred rows would speak for all others.
    prior_days : ndarray of shape (half-lives + 1,), float64
        Of the product in the window, as of `Design.prior_days`.
    """

    x: Float64
    bought: Float64
    weight: Float64
    log_odds_shift: Float64
    prior_days: Float64


@dataclass(frozen=True, eq=False)
class Design:
    """The columns of the linear form: history features, the declared direction, indicators.

    Attributes
    ----------
    spec : LearnSpec
    products : tuple of str
        Ascending; the unit of learning. Capabilities of one product share what is learned.
    direction : ndarray of shape (products, d), float32
        Declared weights, the mean over the capabilities of a product, by indicator of the base.
    indicator_columns : ndarray of shape (c,), int64
        The columns of the base that every capability may weigh.
    indicator_names : tuple of c str
    """

    spec: LearnSpec
    products: tuple[str, ...]
    direction: npt.NDArray[np.float32]
    indicator_columns: Int64
    indicator_names: tuple[str, ...]

    @classmethod
    def of(cls, spec: LearnSpec, catalog: Catalog, base_names: tuple[str, ...]) -> Design:
        """The design for a catalog of declared weights and the indicators of a base.

        Raises
        ------
        SchemaError
            If the spec or the catalog names an indicator that the base lacks.
        """
        names = base_names if spec.indicators == "all" else spec.indicators
        for name in names:
            if name not in base_names:
                raise SchemaError(f"the base has no indicator {name!r}", field="learn.indicators")
        codes, products = catalog.codes("product")
        declared = catalog.aligned_weights(base_names)
        direction = np.zeros((len(products), len(base_names)), dtype=np.float64)
        np.add.at(direction, codes, declared)
        direction /= np.bincount(codes, minlength=len(products))[:, None]
        columns = np.array([base_names.index(name) for name in names], dtype=np.int64)
        return cls(spec, products, direction.astype(np.float32), columns, tuple(names))

    def terms(self, prior_days: Float64) -> list[HistoryTerm]:
        """The history terms of one product, with weight 1, in the order of the columns.

        Parameters
        ----------
        prior_days : ndarray of shape (half-lives + 1,), float64
            Of the product: the scales of its logarithms, without decay last.
        """
        spec = self.spec
        half_lives = (*spec.half_lives_days, None)
        logs = [
            HistoryTerm(FactKind.BOUGHT, "log_days", half_life, float(scale), 1.0)
            for half_life, scale in zip(half_lives, prior_days, strict=True)
        ]
        plain = [
            *(("days", half_life) for half_life in spec.half_lives_days),
            *(("recency", half_life) for half_life in spec.recency_half_lives_days),
            ("ever", None),
            ("due", None),
            ("regularity", None),
        ]
        others = [
            HistoryTerm(FactKind.BOUGHT, name, half_life, 1.0, 1.0) for name, half_life in plain
        ]
        week = HistoryTerm(FactKind.BOUGHT, "log_since", None, 7.0, 1.0)
        return [*logs, *others, week]

    @property
    def history_count(self) -> int:
        """How many columns are history features."""
        return len(self.terms(np.ones(len(self.spec.half_lives_days) + 1)))

    @property
    def column_count(self) -> int:
        """How many columns there are."""
        return self.history_count + 1 + len(self.indicator_columns)

    def prior_days(self, index: WindowIndex, product: int) -> Float64:
        """Purchase-days that a customer without history is taken to have, by half-life.

        ``prior_share`` × the mean over all customers of their decayed purchase-days; half a day in
        all stands for a product that nobody bought.
        """
        days = index.days(product)
        base = FEATURES["days"].base
        half_lives = (*self.spec.half_lives_days, np.inf)
        totals = np.array([base(days, half_life).sum() for half_life in half_lives])
        share = self.spec.prior_share / index.base.customer_count
        return np.asarray(np.maximum(totals, 0.5) * share)

    def history_features(self, index: WindowIndex, product: int, prior_days: Float64) -> Float64:
        """The history columns of a product's history pairs, of shape (pairs, history_count)."""
        days = index.days(product)
        columns = []
        for term in self.terms(prior_days):
            feature = FEATURES[term.feature]
            half_life = np.inf if term.half_life_days is None else term.half_life_days
            base = feature.base(days, half_life)
            columns.append(feature.shape(base, np.full_like(base, term.scale)))
        return np.stack(columns, axis=1)

    def customer_features(self, index: WindowIndex, product: int, customers: Int64) -> Float64:
        """The columns beyond history, of shape (customers, 1 + c): direction, indicators."""
        x = index.base.indicators[customers].astype(np.float64)
        affinity = x @ self.direction[product].astype(np.float64)
        return np.column_stack([affinity, x[:, self.indicator_columns]])


def sample_product(design: Design, index: WindowIndex, product: int, window_number: int) -> Sample:
    """Draw the pairs of one product in one window; the same ones in every run.

    Parameters
    ----------
    design : Design
    index : WindowIndex
    product : int
        Code into ``design.products``.
    window_number : int
        Part of the seed, so that windows draw independently.
    """
    spec = design.spec
    rng = np.random.default_rng([spec.seed, window_number, product])
    touched, positives = index.customers(product), index.positives(product)
    prior_days = design.prior_days(index, product)
    history = design.history_features(index, product, prior_days)
    bought = np.isin(touched, positives, assume_unique=True)

    rows, weights, stratum_weights = [], [], []
    for stratum in (np.flatnonzero(bought), np.flatnonzero(~bought)):
        drawn, weight = _draw(rng, stratum, spec.history_rows)
        rows.append(drawn)
        weights.append(np.full(len(drawn), weight))
        stratum_weights.append(weight)
    pairs = np.concatenate(rows)

    new_buyers = np.setdiff1d(positives, touched, assume_unique=True)
    buyers, buyer_weight = _draw(rng, new_buyers, spec.history_rows)
    others, other_weight = _draw_others(
        rng, index.base.customer_count, np.union1d(touched, new_buyers), spec.fresh_rows
    )
    customers = np.concatenate([touched[pairs], buyers, others])
    x = np.zeros((len(customers), design.column_count))
    x[: len(pairs), : design.history_count] = history[pairs]
    x[:, design.history_count :] = design.customer_features(index, product, customers)
    fresh_count = len(buyers) + len(others)
    shift = np.log([stratum_weights[1] / stratum_weights[0], other_weight / buyer_weight])
    return Sample(
        x,
        np.concatenate([bought[pairs], np.ones(len(buyers)), np.zeros(len(others))]),
        np.concatenate(
            [
                *weights,
                np.full(len(buyers), buyer_weight),
                np.full(len(others), other_weight),
            ]
        ),
        np.repeat(shift, [len(pairs), fresh_count]),
        prior_days,
    )


def _draw(rng: np.random.Generator, members: Int64, most: int) -> tuple[Int64, float]:
    """At most `most` of `members`, and what each then stands for."""
    if len(members) <= most:
        return members, 1.0
    return np.sort(rng.choice(members, most, replace=False)), len(members) / most


def _draw_others(
    rng: np.random.Generator, customer_count: int, left_out: Int64, most: int
) -> tuple[Int64, float]:
    """About `most` customers outside `left_out` (ascending), and what each then stands for."""
    outside_count = customer_count - len(left_out)
    if outside_count <= most:
        outside = np.setdiff1d(np.arange(customer_count), left_out, assume_unique=True)
        return outside, 1.0
    # The r-th customer outside is r plus however many left-out ones lie before it.
    ranks = np.sort(rng.choice(outside_count, most, replace=False))
    before = left_out - np.arange(len(left_out))
    return ranks + np.searchsorted(before, ranks, side="right"), outside_count / most
