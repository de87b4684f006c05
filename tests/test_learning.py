"""Learning: what it may look at, what it must find again, and that a run repeats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.optimize import minimize

from visavis.base import Base
from visavis.base.door import FACT_SCHEMA
from visavis.catalog import Catalog
from visavis.engine import Engine
from visavis.errors import CorruptionError, InputError, SchemaError
from visavis.learning import LearnSpec, Window, learn, model_card, reliability, window_of
from visavis.learning.calibration import outliers, recalibrated
from visavis.learning.fit import fit_deviation, log_loss
from visavis.learning.pairs import Design, sample_product
from visavis.learning.windows import index_window
from visavis.policy import Policy

AS_OF = date(2020, 6, 1)
PRODUCTS = tuple(f"p{number:02}" for number in range(12))
CUSTOMERS = 600
SPEC = LearnSpec(window_days=14, block_products=5, fresh_rows=100, ridges=(50.0, float("inf")))


class Shop:
    """A made-up shop whose customers buy by a rate of their own, a liking that x0 shows."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.x = rng.normal(size=(CUSTOMERS, 3)).astype(np.float32)
        self.ids = [f"c{i:04}" for i in range(CUSTOMERS)]
        popularity = rng.uniform(0.002, 0.01, len(PRODUCTS))
        liking = rng.gamma(0.4, 1.0, (CUSTOMERS, len(PRODUCTS)))
        rate = popularity * liking * np.exp(0.8 * self.x[:, :1])
        self.bought: list[tuple[str, str, date]] = []
        for back in range(120, 0, -1):
            i, j = np.nonzero(rng.random(rate.shape) < rate)
            day = AS_OF - timedelta(days=back - 1)
            self.bought += [(self.ids[a], PRODUCTS[b], day) for a, b in zip(i, j, strict=True)]

    def facts(self, keep: Callable[[date], bool]) -> pa.Table:
        rows = [row for row in self.bought if keep(row[2])]
        return pa.table(
            {
                "customer_id": pa.array([row[0] for row in rows], pa.string()),
                "product": pa.array([row[1] for row in rows], pa.string()),
                "kind": pa.array(["bought"] * len(rows), pa.string()),
                "date": pa.array([row[2] for row in rows], pa.date32()),
            }
        )

    def base(self, as_of: date) -> Base:
        columns = {f"x{d}": self.x[:, d] for d in range(3)}
        return Base.from_tables(
            pa.table({"customer_id": self.ids, **columns}),
            as_of=as_of,
            facts=self.facts(lambda day: day <= as_of),
        )

    def windows(self, count: int = 2) -> list[Window]:
        cuts = [AS_OF - timedelta(days=SPEC.window_days * (n + 1)) for n in range(count)]
        everything = self.facts(lambda _: True)
        return [window_of(self.base(cut), everything, SPEC.window_days) for cut in cuts]


def declared() -> Catalog:
    return Catalog.from_rows(
        {
            "id": f"{product}|{channel}",
            "product": product,
            "channel": channel,
            "weights": {"x1": 1.0 if int(product[1:]) % 2 else -1.0},
            "value": 2.0,
            "cost": 0.5,
            "rule": None,
        }
        for product in PRODUCTS
        for channel in ("email", "letter")
    )


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()


@pytest.fixture(scope="module")
def learned(shop: Shop) -> Any:
    return learn(shop.windows(), shop.base(AS_OF), declared(), SPEC, threads=1)


def propensities(shop: Shop, catalog: Catalog) -> np.ndarray:
    policy = Policy(consent_not_needed=("email", "letter"))
    engine = Engine(shop.base(AS_OF), catalog, policy)
    return engine.scores(np.arange(CUSTOMERS)).propensity


def test_what_is_learned_is_calibrated_and_finds_what_moves_customers(
    shop: Shop, learned: Any
) -> None:
    coefficients = dict(learned.pooled)
    assert coefficients["x0"] > 0.2
    assert abs(coefficients["x2"]) < 0.2
    future = Shop(seed=0)
    rng = np.random.default_rng(5)
    # The same customers, fourteen more days: rates are those that made the past.
    propensity = propensities(shop, learned.catalog)[:, ::2]
    counts = np.zeros((CUSTOMERS, len(PRODUCTS)))
    for who, what, day in future.bought:
        if day > AS_OF - timedelta(days=56):
            counts[int(who[1:]), int(what[1:])] += 1
    later = rng.poisson(counts / 4) > 0
    assert 0.8 < propensity.sum() / later.sum() < 1.25
    top = propensity > np.quantile(propensity, 0.9)
    assert later[top].mean() > 3 * later[~top].mean()


def test_the_catalog_keeps_everything_but_the_model(learned: Any) -> None:
    before, after = declared().to_table(), learned.catalog.to_table()
    kept = ["id", "name", "product", "channel", "family", "value", "cost", "rule", "message"]
    assert after.select(kept).equals(before.select(kept))
    assert set(after["link"].to_pylist()) == {"count"}
    assert all(len(terms) > 10 for terms in learned.catalog.history_weights)


def test_capabilities_of_one_product_share_what_was_learned(learned: Any) -> None:
    catalog = learned.catalog
    assert np.array_equal(catalog.bias[::2], catalog.bias[1::2])
    assert np.array_equal(catalog.weights[::2], catalog.weights[1::2])


def test_a_run_repeats_to_the_bit_whatever_the_threads_and_blocks(shop: Shop, learned: Any) -> None:
    for threads, block in ((1, 5), (2, 5), (1, 12), (2, 1)):
        spec = SPEC.model_copy(update={"block_products": block})
        again = learn(shop.windows()[::-1], shop.base(AS_OF), declared(), spec, threads=threads)
        assert again.catalog.digest() == learned.catalog.digest()
        assert again.validation == learned.validation


def test_the_future_does_not_leak(shop: Shop, learned: Any) -> None:
    """Whatever happens after as_of changes nothing; facts after a cut reach no feature."""
    rng = np.random.default_rng(3)
    later = pa.table(
        {
            "customer_id": rng.choice(shop.ids, 5_000),
            "product": rng.choice(PRODUCTS, 5_000),
            "kind": ["bought"] * 5_000,
            "date": pa.array([AS_OF + timedelta(days=1 + d % 30) for d in range(5_000)]),
        }
    )
    everything = pa.concat_tables([shop.facts(lambda _: True), later], promote_options="default")
    windows = [
        window_of(replace(window.base, facts=window.base.facts), everything, SPEC.window_days)
        for window in shop.windows()
    ]
    again = learn(windows, shop.base(AS_OF), declared(), SPEC, threads=1)
    assert again.catalog.digest() == learned.catalog.digest()

    products = declared().codes("product")[1]
    cut = shop.windows()[0].base.as_of
    own = index_window(shop.windows()[0], products)
    tampered = Base.from_tables(
        pa.table({"customer_id": shop.ids, **{f"x{d}": shop.x[:, d] for d in range(3)}}),
        as_of=cut,
        facts=everything,
    )
    leaked = index_window(replace(shop.windows()[0], base=tampered), products)
    for name in ("pair_customer", "day_age", "day_count", "positive_customer"):
        assert np.array_equal(getattr(own, name), getattr(leaked, name))


def test_labels_of_other_customers_teach_nothing(shop: Shop, learned: Any) -> None:
    genuine = dict(learned.pooled)
    other = dict(zip(shop.ids, np.random.default_rng(1).permutation(shop.ids), strict=True))
    windows = []
    for window in shop.windows():
        swapped = [other[name] for name in window.outcomes["customer_id"].to_pylist()]
        outcomes = window.outcomes.set_column(0, "customer_id", pa.array(swapped))
        windows.append(replace(window, outcomes=outcomes))
    found = dict(learn(windows, shop.base(AS_OF), declared(), SPEC, threads=1).pooled)
    # Somebody else's purchases: what is left is chance, an order below what there is to find.
    assert abs(found["x0"]) < 0.1 < genuine["x0"]
    assert abs(found["declared weights"]) < 0.2


def test_a_stopped_run_goes_on_where_it_was(shop: Shop, learned: Any, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        assert total == 3
        if done == 2:
            raise StoppedError

    args = (shop.windows(), shop.base(AS_OF), declared(), SPEC)
    with pytest.raises(StoppedError):
        learn(*args, checkpoint=tmp_path, threads=1, progress=stop)
    assert len(list(tmp_path.glob("block_*"))) == 2
    begun: list[int] = []
    again = learn(
        *args, checkpoint=tmp_path, threads=1, progress=lambda done, _: begun.append(done)
    )
    assert begun[0] == 2
    assert again.catalog.digest() == learned.catalog.digest()


def test_a_checkpoint_of_other_inputs_is_refused(shop: Shop, tmp_path: Path) -> None:
    learn(shop.windows(), shop.base(AS_OF), declared(), SPEC, checkpoint=tmp_path, threads=1)
    other = SPEC.model_copy(update={"seed": 1})
    with pytest.raises(InputError, match="other inputs"):
        learn(shop.windows(), shop.base(AS_OF), declared(), other, checkpoint=tmp_path)


def test_a_damaged_checkpoint_is_found(shop: Shop, tmp_path: Path) -> None:
    args = (shop.windows(1), shop.base(AS_OF), declared(), SPEC)
    learn(*args, checkpoint=tmp_path, threads=1)
    block = next(iter(sorted(tmp_path.glob("block_*"))))
    content = bytearray(block.read_bytes())
    content[len(content) // 2] ^= 1
    block.write_bytes(content)
    with pytest.raises(CorruptionError, match="digest"):
        learn(*args, checkpoint=tmp_path, threads=1)


def test_samples_stand_for_the_full_population(shop: Shop) -> None:
    spec = SPEC.model_copy(update={"history_rows": 40, "fresh_rows": 30})
    design = Design.of(spec, declared(), ("x0", "x1", "x2"))
    index = index_window(shop.windows()[0], design.products)
    for product in range(len(PRODUCTS)):
        sample = sample_product(design, index, product, 0)
        assert sample.weight.sum() == pytest.approx(CUSTOMERS)
        assert (sample.weight * sample.bought).sum() == pytest.approx(len(index.positives(product)))
        again = sample_product(design, index, product, 0)
        assert np.array_equal(sample.x, again.x)
        other = sample_product(design, index, product, 1)
        assert not np.array_equal(sample.x, other.x)


def test_training_sees_the_features_that_the_match_will_see(shop: Shop, learned: Any) -> None:
    """z of the learned catalog, computed by the engine, is the model's own linear predictor."""
    base = shop.base(AS_OF)
    design = Design.of(SPEC, declared(), base.indicator_names)
    outcomes = shop.windows()[0].outcomes.slice(0, 0)
    index = index_window(Window(base, outcomes), design.products)
    policy = Policy(consent_not_needed=("email", "letter"))
    z = Engine(base, learned.catalog, policy).scores(np.arange(CUSTOMERS)).linear_predictor
    product = 3
    features = np.zeros((CUSTOMERS, design.column_count))
    prior_days = design.prior_days(index, product)
    touched = index.customers(product)
    features[touched, : design.history_count] = design.history_features(index, product, prior_days)
    features[:, design.history_count :] = design.customer_features(
        index, product, np.arange(CUSTOMERS)
    )
    j = learned.catalog.index_of(f"{PRODUCTS[product]}|email")
    names = {name: d for d, name in enumerate(learned.catalog.indicator_names)}
    weights = learned.catalog.weights[j]
    terms = learned.catalog.history_weights[j]
    history = sum(term.weight * features[:, column] for column, term in enumerate(terms))
    x = np.column_stack([shop.x[:, int(name[1:])] for name in names])
    expected = learned.catalog.bias[j] + history + x @ weights
    assert np.allclose(z[:, j], expected, rtol=1e-5, atol=1e-5)


def test_a_deviation_is_the_minimum_of_the_penalised_loss() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4))
    y = (rng.random(300) < 0.3).astype(float)
    offset = rng.normal(size=300)

    def loss(deviation: np.ndarray) -> float:
        penalty = 0.5 * 7.0 * float(deviation @ deviation)
        return log_loss(offset + x @ deviation, y) + penalty

    found = fit_deviation(x, y, offset, np.full(4, 7.0))
    wanted = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-8}).x
    assert np.allclose(found, wanted, atol=1e-4)


def test_separable_rows_do_not_run_away() -> None:
    x = np.array([[-1.0], [1.0]] * 20)
    y = np.array([0.0, 1.0] * 20)
    found = fit_deviation(x, y, np.zeros(40), np.full(1, 1e-3))
    assert np.isfinite(found).all()


def test_reliability_counts_what_it_says() -> None:
    rng = np.random.default_rng(0)
    propensity = rng.uniform(0.01, 0.4, 200_000)
    bought = (rng.random(200_000) < propensity).astype(float)
    said = reliability(propensity, bought)
    assert len(said["bins"]) == 20
    assert sum(each["pair_count"] for each in said["bins"]) == 200_000
    assert sum(each["observed"] for each in said["bins"]) == bought.sum() == said["observed"]
    assert all(0.9 < each["ratio"] < 1.1 for each in said["bins"])
    assert said["brier"] == pytest.approx(np.mean((propensity - bought) ** 2))
    doubled = reliability(np.minimum(2 * propensity, 1.0), bought)
    assert all(each["ratio"] < 0.6 for each in doubled["bins"])


def test_a_few_positives_make_one_bin() -> None:
    said = reliability(np.array([0.1, 0.2, 0.3]), np.array([0.0, 1.0, 0.0]))
    assert len(said["bins"]) == 1
    assert said["bins"][0]["pair_count"] == 3


def test_recalibration_makes_a_score_comparable() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(-2.0, 1.0, 50_000)
    bought = (rng.random(50_000) < 1 / (1 + np.exp(-z))).astype(float)
    best = reliability(1 / (1 + np.exp(-z)), bought)["log_loss"]
    # A score on another scale loses nothing that Platt's scaling cannot give back.
    assert recalibrated(7 * z + 3, bought, 7 * z + 3, bought) == pytest.approx(best, rel=1e-3)


def test_outliers_are_ranked_by_surprise() -> None:
    found = outliers(np.array([10.0, 100.0, 4.0]), np.array([11.0, 160.0, 0.0]), ("a", "b", "c"))
    assert [each["capability_id"] for each in found] == ["b", "c", "a"]
    assert found[0]["ratio"] == 1.6


def test_the_card_says_what_it_was_learned_from(learned: Any) -> None:
    card = model_card(learned, notice="made up")
    assert "> made up" in card
    for window in learned.provenance["windows"]:
        assert window["as_of"] in card
        assert window["base_digest"][:12] in card
    assert "nothing" in card
    assert "about what" in card


def test_one_window_is_learned_from_without_validation(shop: Shop) -> None:
    single = learn(shop.windows(1), shop.base(AS_OF), declared(), SPEC, threads=1)
    assert single.validation == {}
    assert single.provenance["ridge"] == SPEC.ridge_default
    assert "nothing was held out" in model_card(single)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"windows": []}, "at least one window"),
        ({"base": AS_OF - timedelta(days=20)}, "reaches beyond"),
        ({"spec": {"indicators": ("nope",)}}, "nope"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    shop: Shop, change: dict[str, Any], reason: str
) -> None:
    base = shop.base(change.get("base", AS_OF))
    spec = SPEC.model_copy(update=change.get("spec", {}))
    with pytest.raises((InputError, SchemaError), match=reason):
        learn(change.get("windows", shop.windows()), base, declared(), spec, threads=1)


def test_outcomes_that_teach_nothing_are_refused(shop: Shop) -> None:
    (first, *others) = shop.windows()
    foreign = pa.table({"customer_id": ["nobody"], "product": ["nothing"]})
    nameless = first.outcomes.drop_columns("product")
    for outcomes, reason in (
        (foreign, "no known customer bought"),
        (nameless, "product, row 0: is missing"),
    ):
        with pytest.raises((InputError, SchemaError), match=reason):
            learn([replace(first, outcomes=outcomes), *others], shop.base(AS_OF), declared(), SPEC)
    with pytest.raises(InputError, match="two windows begin at"):
        learn([first, first], shop.base(AS_OF), declared(), SPEC)


def test_a_thin_sample_of_many_does_no_harm() -> None:
    """A few negatives stand for thousands: a product must not be fitted to the few."""
    rng = np.random.default_rng(1)
    customers, columns = 60_000, 40
    x = rng.standard_normal((customers, columns), dtype=np.float32)
    z = 0.8 * x[:, 0] - 4.0
    base = Base(
        customer_ids=pa.array([f"c{i:06}" for i in range(customers)]),
        indicators=x,
        indicator_schema=pa.schema([(f"x{d}", pa.float32()) for d in range(columns)]),
        attributes=pa.table({"objected": np.zeros(customers, dtype=bool)}),
        facts=FACT_SCHEMA.empty_table(),
        as_of=AS_OF - timedelta(days=28),
    )
    names = ("p0", "p1", "p2")
    bought = rng.random((len(names), customers)) < 1.0 / (1.0 + np.exp(-z))
    product, customer = np.nonzero(bought)
    outcomes = pa.table(
        {
            "customer_id": base.customer_ids.take(pa.array(customer)),
            "product": pa.array(names).take(pa.array(product)),
        }
    )
    catalog = Catalog.from_rows(
        {"id": name, "product": name, "channel": "email", "weights": {}} for name in names
    )
    now = replace(base, as_of=AS_OF)
    learned = learn([Window(base, outcomes)], now, catalog, LearnSpec(ridge_default=300.0))
    found = Engine(now, learned.catalog, Policy(consent_not_needed=("email",))).scores(
        np.arange(customers)
    )
    true = 1.0 / (1.0 + np.exp(-z))
    for j in range(len(names)):
        ratio = found.propensity[:, j].mean() / true.mean()
        # 300 rows tell a level to within some 10 %; weighted by 200 each they told 0.3.
        assert 0.8 <= ratio <= 1.25
        assert np.corrcoef(found.linear_predictor[:, j], z)[0, 1] >= 0.9


def test_a_window_needs_facts_to_its_end(shop: Shop) -> None:
    with pytest.raises(InputError, match=r"facts\.date"):
        window_of(shop.base(AS_OF), shop.facts(lambda _: True), 14)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"window_days": 0}, "learn.window_days"),
        ({"seeds": 1}, "learn.seeds"),
        ({"prior_share": -1.0}, "learn.prior_share"),
    ],
)
def test_a_wrong_spec_names_the_key(values: dict[str, Any], field: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        LearnSpec.from_dict(values)
    assert caught.value.field == field
    with pytest.raises(InputError, match="does not exist"):
        LearnSpec.read(tmp_path / "nowhere.toml")
