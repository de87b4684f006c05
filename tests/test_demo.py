"""The whole way on real input: the demo against the oracle, its own rules and its own promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import reference
from assertions import assert_same_match
from visavis import demo
from visavis.base import Base
from visavis.catalog import Catalog
from visavis.digest import canonical_digest
from visavis.domain import Link
from visavis.engine import OPPORTUNITY_SCHEMA
from visavis.errors import ExtraError, InputError
from visavis.kernel import History, MatchResult
from visavis.store import file_digest

ALCOHOL = {"BEERS/ALES", "DOMESTIC WINE", "IMPORTED WINE", "LIQUOR", "MISC WINE"}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> demo.DemoRun:
    return demo.run(tmp_path_factory.mktemp("demo") / "out", rounds=1)


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set, cut down to every sixteenth household."""
    folder = tmp_path_factory.mktemp("cut")
    source = demo.locate_dataset()
    for name in ("transactions", "demographics"):
        table = pq.read_table(source / f"{name}.parquet")
        # A bit mask instead of a remainder: pyarrow has no modulo.
        kept = pc.equal(pc.bit_wise_and(table["household_id"], 15), 3)
        pq.write_table(table.filter(kept), folder / f"{name}.parquet")
    pq.write_table(pq.read_table(source / "products.parquet"), folder / "products.parquet")
    return folder


def dense_eligibility(planes: np.ndarray, plane_index: np.ndarray) -> np.ndarray:
    bits = np.unpackbits(planes.view(np.uint8), axis=1, bitorder="little").astype(bool)
    return np.where(plane_index[None, :] < 0, True, bits[:, np.maximum(plane_index, 0)])


@pytest.mark.long
def test_the_match_of_the_demo_has_the_bits_of_the_oracle(done: demo.DemoRun) -> None:
    engine = done.matches.engine
    catalog, policy = engine.catalog, engine.policy
    eligible = dense_eligibility(*engine.eligibility)
    indptr, capability_index, adjustment = engine.history
    parts = []
    for begin in range(0, engine.base.customer_count, 64):
        rows = slice(begin, begin + 64)
        offsets = indptr[begin : begin + 65]
        parts.append(
            reference.match(
                engine.base.indicators[rows],
                engine.weights,
                catalog.bias,
                value=catalog.value,
                cost=catalog.cost,
                link=[Link(code).label for code in catalog.link],
                k=policy.k,
                product=catalog.codes("product")[0],
                channel=catalog.codes("channel")[0],
                family=catalog.codes("family")[0],
                eligible=eligible[rows],
                history=History(offsets, capability_index, adjustment),
                limits=policy.limits,
                ev_min=policy.ev_min,
            )
        )
    fields = ("capability_index", "expected_value", "propensity", "opportunity_count")
    matched = done.matches.customer_index
    whole = {
        name: np.concatenate([getattr(part, name) for part in parts])[matched] for name in fields
    }
    assert_same_match(done.matches.result, MatchResult(**whole, stats={}, nanoseconds={}))


@pytest.mark.long
def test_every_customers_own_five_reach_the_untuned_score(done: demo.DemoRun) -> None:
    declared = done.summary["held_out"]["own_five_declared"]
    assert declared["contact_count"] == 5 * done.summary["matched_customer_count"]
    assert declared["hit_rate"] >= 0.46
    same_five = next(a for a in done.comparison.by_propensity["arms"] if a["name"] == "A0")
    assert declared["hit_rate"] > same_five["hit_rate"]["value"]


@pytest.mark.long
def test_learned_weights_rank_better_than_declared_ones(done: demo.DemoRun) -> None:
    held_out = done.summary["held_out"]
    assert held_out["own_five"]["hit_rate"] >= 0.475
    assert held_out["own_five_by_value"]["spend_share"] >= 0.155


@pytest.mark.long
def test_learned_propensities_mean_what_they_say(done: demo.DemoRun) -> None:
    calibration = done.comparison.calibration
    assert len(calibration["bins"]) == 20
    for each in calibration["bins"]:
        assert each["observed"] >= 500
        assert 0.9 <= each["ratio"] <= 1.1
    assert calibration["log_loss"] < calibration["untuned_log_loss"]


@pytest.mark.long
def test_one_to_one_beats_campaigns_with_as_many_contacts_under_the_policy(
    done: demo.DemoRun,
) -> None:
    held = done.comparison.under_policy
    arms = {arm["name"]: arm for arm in held["arms"]}
    for against in ("A0", "A2", "A2w", "A4", "S"):
        assert arms[against]["contact_count"] == arms["B"]["contact_count"]
    for difference in held["differences"]:
        assert difference["hit_rate"]["low"] > 0.0


@pytest.mark.long
def test_the_digest_names_the_opportunities_that_were_written(done: demo.DemoRun) -> None:
    written = pq.read_table(done.folder / "opportunities.parquet")
    assert canonical_digest(written) == done.summary["digests"]["opportunities"]


@pytest.mark.long
def test_the_catalog_is_every_bought_product_on_two_channels(done: demo.DemoRun) -> None:
    catalog = done.matches.engine.catalog
    products, channels = set(catalog.products), set(catalog.channels)
    assert catalog.capability_count == len(products) * len(channels)
    assert 1_390 <= len(products) <= 1_420
    assert len(set(catalog.cost.tolist())) == len(channels) == 2


@pytest.mark.long
def test_every_pair_is_accounted_for(done: demo.DemoRun) -> None:
    stats = done.matches.stats
    counted = stats["skipped_by_rule"] + stats["skipped_by_bound"] + stats["screened"]
    assert counted == done.summary["pair_count"]


@pytest.mark.long
def test_what_is_written_is_what_was_found(done: demo.DemoRun) -> None:
    written = json.loads((done.folder / "run.json").read_text(encoding="utf-8"))
    assert written == done.summary
    assert "simulated" in written["notice"]
    for name, digest in written["files"].items():
        assert file_digest(done.folder / name) == digest
    table = pq.read_table(done.folder / "opportunities.parquet")
    assert table.schema.equals(OPPORTUNITY_SCHEMA)
    assert b"simulated" in table.schema.metadata[b"visavis.notice"]
    assert table.equals(done.table)
    assert Base.read(done.folder / "base").digest == written["digests"]["base"]
    assert Catalog.read(done.folder / "catalog.parquet").digest() == written["digests"]["catalog"]


@pytest.mark.long
def test_rules_consent_and_limits_hold_for_every_opportunity(done: demo.DemoRun) -> None:
    engine = done.matches.engine
    catalog = engine.catalog
    rule_of = dict(zip(catalog.ids, catalog.rules, strict=True))
    product_of = dict(zip(catalog.ids, catalog.products, strict=True))
    family_of = dict(zip(catalog.ids, catalog.families, strict=True))
    attributes = dict(
        zip(engine.base.customer_ids.to_pylist(), engine.base.attributes.to_pylist(), strict=True)
    )
    held: dict[str, list[str]] = {}
    objected = {name for name, known in attributes.items() if known["objected"]}
    assert objected
    assert not objected & set(done.table["customer_id"].to_pylist())
    for row in done.table.to_pylist():
        customer, capability = attributes[row["customer_id"]], row["capability_id"]
        held.setdefault(row["customer_id"], []).append(capability)
        assert customer[f"consent_{capability.rpartition('|')[2]}"]
        if rule_of[capability] == "age_from >= 25":
            assert customer["age_from"] is not None
            assert customer["age_from"] >= 25
        assert row["expected_value"] >= engine.policy.ev_min
    for capabilities in held.values():
        products = [product_of[capability] for capability in capabilities]
        families = [family_of[capability] for capability in capabilities]
        assert len(set(products)) == len(products) <= 5
        assert max(map(families.count, families)) <= 3


@pytest.mark.long
def test_cool_downs_and_seasons_close_pairs(done: demo.DemoRun) -> None:
    engine = done.matches.engine
    eligible = dense_eligibility(*engine.eligibility)
    email = np.array([channel == "email" for channel in engine.catalog.channels])
    facts = engine.base.facts
    contacted = pc.equal(facts["kind"], "contacted")
    rows = np.unique(facts.filter(contacted)["customer_index"].to_numpy())
    last = [fact["capability_id"] for fact in facts.filter(contacted).to_pylist()]
    by_email = rows[[name.endswith("|email") for name in last]]
    assert len(by_email) > 50
    assert not eligible[by_email][:, email].any()
    closed = [day is not None and day > engine.as_of for day in engine.catalog.valid_from]
    assert any(closed)
    assert not eligible[:, np.array(closed)].any()


@pytest.mark.long
def test_alcohol_is_behind_its_rule(done: demo.DemoRun) -> None:
    catalog = done.matches.engine.catalog
    categories = [
        name.partition("product_category=")[2]
        for name in catalog.indicator_names
        if "product_category=" in name
    ]
    assert set(categories) >= ALCOHOL
    for j, rule in enumerate(catalog.rules):
        weighed = np.flatnonzero(catalog.weights[j])
        names = {catalog.indicator_names[d].partition("product_category=")[2] for d in weighed}
        if names & ALCOHOL:
            assert rule == "age_from >= 25"


@pytest.mark.long
def test_a_control_group_is_marked_and_everybody_else_is_not(done: demo.DemoRun) -> None:
    marks = done.table["control"].to_numpy()
    assert 0.02 < marks.mean() < 0.08


@pytest.mark.long
def test_a_run_repeats_to_the_byte_whatever_the_order_of_the_receipts(
    cut: Path, tmp_path: Path
) -> None:
    first = demo.run(tmp_path / "first", source=cut, threads=1, rounds=1)
    shuffled = tmp_path / "shuffled"
    shuffled.mkdir()
    rng = np.random.default_rng(7)
    for name in demo.INPUTS:
        table = pq.read_table(cut / name)
        pq.write_table(table.take(pa.array(rng.permutation(len(table)))), shuffled / name)
    second = demo.run(tmp_path / "second", source=shuffled, threads=2, rounds=1)
    assert first.summary["opportunity_count"] > 100
    assert first.summary["digests"] == second.summary["digests"]
    for name in ("opportunities.parquet", "catalog.parquet", "model.md", "learned.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


@pytest.mark.long
def test_the_demo_replaces_its_own_output_and_nothing_else(cut: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear")
    for record in (None, "{}", '{"made_by": "visavis demo", "files": {}}'):
        if record is not None:
            (mine / "run.json").write_text(record)
        with pytest.raises(InputError, match="holds what the demo did not make"):
            demo.run(mine, source=cut, rounds=1)
        assert (mine / "letter.txt").read_text() == "dear"
    out = tmp_path / "out"
    out.mkdir()
    demo.run(out, source=cut, rounds=1)
    again = demo.run(out, source=cut, rounds=1)
    assert json.loads((out / "run.json").read_text()) == again.summary
    (out / "base" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="letter"):
        demo.run(out, source=cut, rounds=1)


def test_the_demo_never_replaces_the_folder_it_runs_in(
    cut: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no folder that the demo could replace"):
        demo.run(Path(), source=cut)


def test_a_missing_data_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ExtraError, match=r"visavis\[demo\]"):
        demo.locate_dataset()
