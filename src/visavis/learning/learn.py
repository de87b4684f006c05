"""Learning: windows of the past → a catalog with weights, bias and history weights.

::

    windows ─► pooled model ─► how strongly products are pulled toward it (validation) ─┐
                    │                                                                   ▼
                    └─► block after block of products: own deviations ─► Catalog, ModelCard

The last window is held out to choose the strength, then used with the others for the final fit.
Blocks are independent: they run on joblib's threads, or on whatever backend the caller selects
(``joblib.parallel_config``), and with a checkpoint folder a stopped run goes on where it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from visavis import __version__
from visavis.base import Base
from visavis.catalog import Catalog
from visavis.digest import canonical_digest
from visavis.domain import CUSTOMER_ID, Link
from visavis.errors import InputError, SchemaError
from visavis.kernel import CONTRACT_VERSION
from visavis.learning.calibration import reliability
from visavis.learning.checkpoint import Checkpoint
from visavis.learning.fit import fit_deviation, log_loss
from visavis.learning.pairs import Design, sample_product
from visavis.learning.pooled import PooledModel, fit_pooled
from visavis.learning.spec import LearnSpec
from visavis.learning.windows import Window, WindowIndex, index_window

__all__ = ["Learned", "learn"]

Float64 = npt.NDArray[np.float64]

#: Products on which the strength of the pull is validated; more change nothing but the time.
VALIDATED_PRODUCTS_MAX: Final = 400

#: A product's own level is hardly pulled: how often it is bought at all is the first thing that
#: its pairs tell. On the last window before the demo's cut the rarest twentieth of purchases came
#: 0.88 times as often as foretold with 100, 0.89 with 10, 0.93 with 3 and 0.94 with 1; log-loss
#: was least with 10 and 0.02 % more with 3.
LEVEL_RIDGE: Final = 3.0

#: Counts changes of the model itself, its constants included: a run that was stopped under another
#: revision does not go on under this one.
MODEL_REVISION: Final = 2

_OUTCOME_COLUMNS: Final = (CUSTOMER_ID, "product")

#: Takes what every block reads; returns what gives it back where a block is fitted.
Hold = Callable[["_Fitting"], Callable[[], "_Fitting"]]

#: Called with (blocks done, blocks in all).
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Learned:
    """What was learned.

    Attributes
    ----------
    catalog : Catalog
        The given one with learned weights, bias and history weights, and link ``count``.
    provenance : dict
        Digests of everything it was learned from, windows, as_of, contract version.
    validation : dict
        Log-loss by ridge and the reliability of the chosen one, on the last window; empty with a
        single window.
    pooled : list of (str, float)
        The pooled model's coefficients per standard deviation, by column, for a product of the
        mean log prior.
    """

    catalog: Catalog
    provenance: dict[str, Any]
    validation: dict[str, Any]
    pooled: list[tuple[str, float]]


def learn(
    windows: Sequence[Window],
    base: Base,
    catalog: Catalog,
    spec: LearnSpec | None = None,
    *,
    checkpoint: Path | None = None,
    threads: int | None = None,
    hold: Hold | None = None,
    progress: Progress | None = None,
) -> Learned:
    """Learn every capability's weights from what customers did after each window's cut.

    Parameters
    ----------
    windows : sequence of Window
        In any order; each window must end by the base's as_of.
    base : Base
        As of the day from which the learned catalog is to be used: gives the priors.
    catalog : Catalog
        Declared: products, values, costs, rules. Its weights say which indicators speak for which
        capability; their direction is kept, their length is learned.
    spec : LearnSpec, optional
    checkpoint : Path, optional
        A folder in which finished blocks are kept.
    threads : int, optional
        Blocks at a time; default: the processors of this process.
    hold : callable, optional
        Where what every block reads is kept, for backends that would send it along with each:
        takes it, returns a callable that gives it back (``visavis.cluster.held_once``).
    progress : callable, optional

    Returns
    -------
    Learned

    Raises
    ------
    InputError
        If there is no window, one reaches beyond the base's as_of, or the checkpoint belongs to
        other inputs.
    """
    from threadpoolctl import threadpool_limits

    spec = spec or LearnSpec()
    ordered = _checked(windows, base, spec)
    design = Design.of(spec, catalog, base.indicator_names)
    indexes = [index_window(window, design.products) for window in ordered]
    now = index_window(Window(base, ordered[0].outcomes.slice(0, 0)), design.products)
    _check_outcomes(indexes)
    provenance = _provenance(ordered, base, catalog, spec)
    store = Checkpoint.open(checkpoint, provenance)
    # Blocks run side by side: inner threads of the linear algebra would only get in the way.
    with threadpool_limits(limits=1):
        validation = _validated(design, indexes)
        ridge = validation.get("ridge", spec.ridge_default)
        pooled = fit_pooled(design, indexes)
        products = range(len(design.products))
        priors = np.stack([design.prior_days(now, product) for product in products])
        fitting = _Fitting(design, tuple(indexes), priors, pooled, ridge)
        coefficients, levels = _fit_blocks(fitting, store, threads, hold, progress)
    names = _column_names(design)
    return Learned(
        catalog=_learned_catalog(catalog, base, design, priors, coefficients, levels),
        provenance={**provenance, "ridge": _json_number(ridge)},
        validation=validation,
        pooled=list(zip(names, pooled.coefficients.tolist(), strict=True)),
    )


def _checked(windows: Sequence[Window], base: Base, spec: LearnSpec) -> list[Window]:
    if not windows:
        raise InputError("must hold at least one window", field="windows")
    for number, window in enumerate(windows):
        if window.base.indicator_names != base.indicator_names:
            raise SchemaError("has other indicators than the base", field="windows", row=number)
        if (base.as_of - window.base.as_of).days < spec.window_days:
            raise InputError(
                f"as of {window.base.as_of} it reaches beyond the base's as_of, {base.as_of}",
                field="windows",
                row=number,
            )
        for name in _OUTCOME_COLUMNS:
            if name not in window.outcomes.column_names:
                raise SchemaError("is missing", field=f"windows.outcomes.{name}", row=number)
        if not len(window.outcomes):
            raise InputError("has no outcome to learn from", field="windows", row=number)
    ordered = sorted(windows, key=lambda window: window.base.as_of)
    for one, other in pairwise(ordered):
        if one.base.as_of == other.base.as_of:
            raise InputError(f"two windows begin at {one.base.as_of}", field="windows")
    return ordered


def _check_outcomes(indexes: Sequence[WindowIndex]) -> None:
    for index in indexes:
        if not len(index.positive_customer):
            raise InputError(
                f"as of {index.base.as_of} no known customer bought a product of the catalog",
                field="windows.outcomes",
            )


def _validated(design: Design, indexes: Sequence[WindowIndex]) -> dict[str, Any]:
    """Choose the ridge on the last window, from a model of the windows before it."""
    if len(indexes) < 2:
        return {}
    earlier, last, number = indexes[:-1], indexes[-1], len(indexes) - 1
    pooled = fit_pooled(design, earlier)
    rng = np.random.default_rng([design.spec.seed, 1])
    products = rng.permutation(len(design.products))[:VALIDATED_PRODUCTS_MAX]
    losses = dict.fromkeys(design.spec.ridges, 0.0)
    tried: dict[float, list[Float64]] = {ridge: [] for ridge in design.spec.ridges}
    labels, weights = [], []
    for product in products.tolist():
        sample = sample_product(design, last, product, number)
        x = pooled.standardise(sample.x)
        offset = pooled.offset(x, sample.prior_days)
        rows = _rows(design, earlier, product, pooled)
        for ridge in design.spec.ridges:
            deviation = _deviation(rows, ridge)
            z = offset + deviation[0] + x @ deviation[1:]
            losses[ridge] += log_loss(z, sample.bought, sample.weight)
            tried[ridge].append(z)
        labels.append(sample.bought)
        weights.append(sample.weight)
    ridge = min(losses, key=lambda candidate: losses[candidate])
    weight = np.concatenate(weights)
    propensity = 0.5 * (1.0 + np.tanh(0.5 * np.concatenate(tried[ridge])))
    return {
        "as_of": last.base.as_of.isoformat(),
        "product_count": len(products),
        "ridge": ridge,
        "log_loss_by_ridge": [
            {"ridge": _json_number(candidate), "log_loss": loss / float(weight.sum())}
            for candidate, loss in losses.items()
        ],
        "reliability": reliability(propensity, np.concatenate(labels), weight),
    }


class _Rows(NamedTuple):
    """The sampled rows of one product in all windows, beside what the pooled model says of them."""

    x: Float64
    bought: Float64
    offset: Float64


def _rows(
    design: Design, indexes: Sequence[WindowIndex], product: int, pooled: PooledModel
) -> _Rows:
    blocks, labels, offsets = [], [], []
    for number, index in enumerate(indexes):
        sample = sample_product(design, index, product, number)
        x = pooled.standardise(sample.x)
        blocks.append(np.column_stack([np.ones(len(x)), x]))
        labels.append(sample.bought)
        offsets.append(pooled.offset(x, sample.prior_days) + sample.log_odds_shift)
    return _Rows(np.concatenate(blocks), np.concatenate(labels), np.concatenate(offsets))


def _deviation(rows: _Rows, ridge: float) -> Float64:
    """A product's own deviation from the pooled model: its level first, then its columns.

    An infinite ridge leaves the columns to the pooled model; the level is always the product's.
    """
    width = rows.x.shape[1]
    free = 1 if np.isinf(ridge) else width
    pulls = np.full(free, ridge)
    pulls[0] = min(ridge, LEVEL_RIDGE)
    deviation = np.zeros(width)
    deviation[:free] = fit_deviation(rows.x[:, :free], rows.bought, rows.offset, pulls)
    return deviation


@dataclass(frozen=True, eq=False)
class _Fitting:
    """What every block of products is fitted from.

    Attributes
    ----------
    design : Design
    indexes : tuple of WindowIndex
    prior_days : ndarray of shape (products, half-lives + 1), float64
        As of the day from which the catalog is to be used.
    pooled : PooledModel
    ridge : float
    """

    design: Design
    indexes: tuple[WindowIndex, ...]
    prior_days: Float64
    pooled: PooledModel
    ridge: float


def _fit_blocks(
    fitting: _Fitting,
    store: Checkpoint,
    threads: int | None,
    hold: Hold | None,
    progress: Progress | None,
) -> tuple[Float64, Float64]:
    """Raw coefficients, of shape (products, columns), and levels, of shape (products,)."""
    from joblib import Parallel, delayed

    size, product_count = fitting.design.spec.block_products, len(fitting.design.products)
    blocks = [
        range(begin, min(begin + size, product_count)) for begin in range(0, product_count, size)
    ]
    missing = [number for number in range(len(blocks)) if not store.holds(number)]
    done = len(blocks) - len(missing)
    if progress is not None:
        progress(done, len(blocks))
    work = Parallel(
        n_jobs=threads or len(os.sched_getaffinity(0)), prefer="threads", return_as="generator"
    )
    held = (lambda: fitting) if hold is None else hold(fitting)
    fitted = work(delayed(_fit_block)(held, blocks[number]) for number in missing)
    results: dict[int, tuple[Float64, Float64]] = {}
    for number, result in zip(missing, fitted, strict=True):
        store.keep(number, *result)
        results[number] = result
        done += 1
        if progress is not None:
            progress(done, len(blocks))
    whole = [results.get(number) or store.read(number) for number in range(len(blocks))]
    return np.concatenate([each[0] for each in whole]), np.concatenate([each[1] for each in whole])


def _fit_block(held: Callable[[], _Fitting], products: range) -> tuple[Float64, Float64]:
    from threadpoolctl import threadpool_limits

    fitting = held()
    pooled = fitting.pooled
    coefficients = np.empty((len(products), fitting.design.column_count))
    levels = np.empty(len(products))
    # On another machine the caller's own limit of inner threads does not hold.
    with threadpool_limits(limits=1):
        for position, product in enumerate(products):
            rows = _rows(fitting.design, fitting.indexes, product, pooled)
            deviation = _deviation(rows, fitting.ridge)
            prior_days = fitting.prior_days[product]
            raw = (pooled.slopes(prior_days) + deviation[1:]) / pooled.deviation
            coefficients[position] = raw
            level = pooled.level(prior_days) + deviation[0]
            levels[position] = level - float(raw @ pooled.mean)
    return coefficients, levels


def _learned_catalog(
    catalog: Catalog,
    base: Base,
    design: Design,
    priors: Float64,
    coefficients: Float64,
    levels: Float64,
) -> Catalog:
    """Write what was learned into the catalog; values, costs, rules and texts stay."""
    codes, _ = catalog.codes("product")
    history_count = design.history_count
    declared = catalog.aligned_weights(base.indicator_names).astype(np.float64)
    weights = declared * coefficients[codes, history_count][:, None]
    weights[:, design.indicator_columns] += coefficients[codes, history_count + 1 :]
    terms = []
    for product in range(len(design.products)):
        plain = design.terms(priors[product])
        learned = coefficients[product, :history_count]
        terms.append(
            tuple(
                _with_weight(term, weight)
                for term, weight in zip(plain, learned.tolist(), strict=True)
                if weight != 0.0
            )
        )
    return catalog.with_model(
        indicator_names=base.indicator_names,
        weights=weights.astype(np.float32),
        bias=levels[codes].astype(np.float32),
        history_weights=[terms[code] for code in codes],
        link=Link.COUNT,
    )


def _with_weight(term: Any, weight: float) -> Any:
    return type(term)(term.kind, term.feature, term.half_life_days, term.scale, weight)


def _column_names(design: Design) -> list[str]:
    terms = design.terms(np.ones(len(design.spec.half_lives_days) + 1))
    history = [
        f"history: {term.feature}"
        + ("" if term.half_life_days is None else f" {term.half_life_days:g}d")
        for term in terms
    ]
    return [*history, "declared weights", *design.indicator_names]


def _provenance(
    windows: Sequence[Window], base: Base, catalog: Catalog, spec: LearnSpec
) -> dict[str, Any]:
    return {
        "as_of": base.as_of.isoformat(),
        "base_digest": base.digest,
        "catalog_digest": catalog.digest(),
        "spec": json.loads(spec.model_dump_json()),
        "spec_digest": spec.digest(),
        "kernel_contract": CONTRACT_VERSION,
        "model_revision": MODEL_REVISION,
        "versions": {"visavis": __version__, "numpy": np.__version__},
        "windows": [
            {
                "as_of": window.base.as_of.isoformat(),
                "window_days": spec.window_days,
                "base_digest": window.base.digest,
                "outcomes_digest": canonical_digest(
                    window.outcomes.sort_by([(name, "ascending") for name in _OUTCOME_COLUMNS])
                ),
                "outcome_count": len(window.outcomes),
            }
            for window in windows
        ],
    }


def _json_number(value: float) -> float | str:
    return "pooled only" if np.isinf(value) else value
