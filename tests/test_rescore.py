"""A result is the match, whatever the parts, the threads and what happened on the way."""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visavis import kernel
from visavis.base import Base, StoredBase
from visavis.catalog import Catalog
from visavis.digest import canonical_digest
from visavis.errors import CorruptionError, InputError, NotFoundError, SetupError
from visavis.journal import Journal
from visavis.policy import Policy
from visavis.rescore import Job, Plan, Result, rescore
from visavis.rescore.plan import PLAN
from visavis.rescore.results import MANIFEST
from visavis.schedule import ThreadPool
from visavis.store import Place, open_place
from worlds import World, worlds

#: Worlds whose catalog changes; `make test-long` asks for more.
EXAMPLES = int(os.environ.get("VISAVIS_EXAMPLES", "60"))


@pytest.fixture(scope="module")
def world() -> World:
    return worlds_example()


def worlds_example() -> World:
    """One world with all that a world can have, drawn once."""
    found: list[World] = []

    @settings(max_examples=60, database=None, derandomize=True)
    @given(worlds())
    def draw(drawn: World) -> None:
        found.append(drawn)

    draw()
    return max(found, key=lambda each: len(each.customers) * len(each.offers))


def stored(world: World, path: Path, parts: int = 4) -> StoredBase:
    return world.base.write(path, parts=parts)


def expected(world: World, **options: Any) -> pa.Table:
    return world.engine().match().to_table(**options)


def same(result: Result, table: pa.Table) -> None:
    assert result.read().equals(table)
    assert canonical_digest(result.read()) == canonical_digest(table)
    assert result.opportunity_count == table.num_rows


@settings(max_examples=60, deadline=None)
@given(
    world=worlds(),
    parts=st.sampled_from([1, 2, 8]),
    threads=st.integers(1, 2),
    reasons=st.sampled_from([None, 0, 3]),
    distinctive=st.booleans(),
)
def test_a_result_is_the_match(
    world: World,
    parts: int,
    threads: int,
    reasons: int | None,
    distinctive: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("job")
    report = rescore(
        stored(world, folder / "base", parts),
        world.catalog,
        world.policy,
        folder / "out",
        as_of=world.as_of,
        reasons=reasons,
        distinctive=distinctive,
        make_pool=lambda task: ThreadPool(task, threads),
    )
    assert report.computed_count == parts
    options = {"reasons": reasons, "distinctive": distinctive}
    same(report.result, expected(world, **options))
    report.result.verify()
    pairs = len(world.engine().customer_index) * len(world.offers)
    kinds = ("skipped_by_rule", "skipped_by_bound", "screened")
    assert sum(report.stats[kind] for kind in kinds) == pairs
    for customer_id in world.customers[:3]:
        rows = report.result.lookup(customer_id).drop_columns(["customer_id"]).to_pylist()
        table = expected(world, **options)
        of_customer = table.filter(pa.compute.equal(table["customer_id"], customer_id))
        assert rows == of_customer.drop_columns(["customer_id"]).to_pylist()


def changed(world: World, rng: np.random.Generator) -> Catalog:
    """The catalog with some capabilities gone, some new and some different."""
    rows = [dict(each) for each in world.capabilities]
    kept = [each for each in rows if rng.random() > 0.15] or rows[:1]
    for row in kept:
        draw = rng.random()
        if draw < 0.1:
            row["value"] = float(row["value"] * rng.choice([0.0, 0.5, 2.0]) + rng.integers(2))
        elif draw < 0.2:
            row["bias"] = float(np.float32(row["bias"] + rng.normal()))
        elif draw < 0.25:
            row["rule"] = rows[int(rng.integers(len(rows)))].get("rule")
    for number in range(int(rng.integers(0, 3))):
        twin = dict(rows[int(rng.integers(len(rows)))])
        # Before, between and behind the others; its scores tie with its twin's.
        kept.append({**twin, "id": f"{rng.choice(['', 'm', 'zz'])}new{number}"})
    return Catalog.from_rows(kept)


def known_to(catalog: Catalog, policy: Policy) -> Policy:
    """The policy without exclusions, and without names that a changed catalog no longer knows."""
    channels = set(catalog.channels)
    return policy.model_copy(
        update={
            "exclusions": type(policy.exclusions)(),
            "consent_not_needed": tuple(channels & set(policy.consent_not_needed)),
            "cool_down_days": type(policy.cool_down_days)(
                {each: days for each, days in policy.cool_down_days.items() if each in channels}
            ),
        }
    )


@settings(max_examples=EXAMPLES, deadline=None)
@given(world=worlds(), seed=st.integers(0, 2**32), limit=st.sampled_from([None, 1, 2]))
def test_what_changed_since_gives_the_bytes_of_a_full_run(
    world: World, seed: int, limit: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("job")
    base = stored(world, folder / "base", 2)
    catalog = changed(world, np.random.default_rng(seed))
    policy = known_to(catalog, world.policy)
    if limit is not None:
        policy = policy.model_copy(update={"product_limit": limit})
    rescore(base, world.catalog, policy, folder / "old", as_of=world.as_of, reasons=2)
    job = Job.make(base, catalog, policy, folder / "new", as_of=world.as_of, reasons=2)
    report = job.run(since=folder / "old")
    full = rescore(base, catalog, policy, folder / "full", as_of=world.as_of, reasons=2)
    files = {each.name: each.read_bytes() for each in (folder / "new").rglob("*") if each.is_file()}
    assert files == {
        each.name: each.read_bytes() for each in (folder / "full").rglob("*") if each.is_file()
    }
    assert report.result.manifest == full.result.manifest
    if report.note is None:
        assert report.stats["matched_in_full"] <= len(world.customers)
    else:
        assert policy.cool_down_days


def test_an_earlier_result_that_does_not_serve_is_named(world: World, tmp_path: Path) -> None:
    base = stored(world, tmp_path / "base")
    rescore(base, world.catalog, world.policy, tmp_path / "old", as_of=world.as_of)
    other = world.policy.model_copy(update={"k": world.policy.k + 1})
    job = Job.make(base, world.catalog, other, tmp_path / "new", as_of=world.as_of)
    report = job.run(since=tmp_path / "old")
    assert report.note is not None
    assert "policy_digest" in report.note
    same(report.result, replace(world, policy=other).engine().match().to_table(reasons=None))


def test_a_job_that_is_done_is_not_done_again(world: World, tmp_path: Path) -> None:
    base = stored(world, tmp_path / "base")
    first = rescore(base, world.catalog, world.policy, tmp_path / "out", as_of=world.as_of)
    times = {each: each.stat().st_mtime_ns for each in (tmp_path / "out").rglob("*")}
    again = rescore(base, world.catalog, world.policy, tmp_path / "out", as_of=world.as_of)
    assert again.computed_count == 0
    assert again.result == first.result
    assert {each: each.stat().st_mtime_ns for each in (tmp_path / "out").rglob("*")} == times


def test_another_job_in_the_same_place_is_refused_by_what_differs(
    world: World, tmp_path: Path
) -> None:
    base = stored(world, tmp_path / "base")
    rescore(base, world.catalog, world.policy, tmp_path / "out", as_of=world.as_of)
    with pytest.raises(InputError, match=r"holds another job.*reasons is None, not 1") as caught:
        rescore(base, world.catalog, world.policy, tmp_path / "out", as_of=world.as_of, reasons=1)
    assert caught.value.field == "out"


def test_the_parts_that_are_there_are_kept(world: World, tmp_path: Path) -> None:
    base = stored(world, tmp_path / "base", 8)
    full = rescore(base, world.catalog, world.policy, tmp_path / "full", as_of=world.as_of)
    out = tmp_path / "out"
    (out / "parts").mkdir(parents=True)
    (out / PLAN).write_bytes((tmp_path / "full" / PLAN).read_bytes())
    for entry in full.result.manifest.parts[::2]:
        (out / entry.file).write_bytes((tmp_path / "full" / entry.file).read_bytes())
    # One of them is damaged: it is computed again.
    victim = out / full.result.manifest.parts[2].file
    victim.write_bytes(victim.read_bytes()[:-1])
    report = rescore(base, world.catalog, world.policy, out, as_of=world.as_of)
    assert report.computed_count == 8 - 4 + 1
    assert report.result.manifest == full.result.manifest
    report.result.verify()


def test_a_result_without_its_manifest_is_none(world: World, tmp_path: Path) -> None:
    base = stored(world, tmp_path / "base")
    rescore(base, world.catalog, world.policy, tmp_path / "out", as_of=world.as_of)
    (tmp_path / "out" / MANIFEST).unlink()
    with pytest.raises(InputError, match="not finished"):
        Result.open(tmp_path / "out")
    with pytest.raises(InputError, match="holds no result"):
        Result.open(tmp_path / "elsewhere")


def test_a_damaged_part_of_the_base_stops_that_part_alone(world: World, tmp_path: Path) -> None:
    base = stored(world, tmp_path / "base", 8)
    victim = tmp_path / "base" / "v0001" / base.manifest.parts[5].file
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-9] + bytes([whole[-9] ^ 4]) + whole[-8:])
    with pytest.raises(CorruptionError, match=r"1 of the parts.*7 were.*part 5: .*part-00005"):
        rescore(base, world.catalog, world.policy, tmp_path / "out", as_of=world.as_of)
    assert len(list((tmp_path / "out" / "parts").iterdir())) == 7
    victim.write_bytes(whole)
    report = rescore(base, world.catalog, world.policy, tmp_path / "out", as_of=world.as_of)
    assert report.computed_count == 1
    same(report.result, expected(world, reasons=None))


@pytest.mark.parametrize("name", [PLAN, MANIFEST, "capabilities", "parts"])
def test_every_flipped_byte_and_every_cut_of_a_result_is_found(
    world: World, tmp_path: Path, name: str
) -> None:
    base = stored(world, tmp_path / "base", 1)
    rescore(base, world.catalog, world.policy, tmp_path / "out", as_of=world.as_of)
    file = next(
        each
        for each in sorted((tmp_path / "out").rglob("*"))
        if each.is_file() and name in each.relative_to(tmp_path / "out").as_posix()
    )
    whole = file.read_bytes()
    rng = np.random.default_rng(0)

    def read() -> None:
        Result.open(tmp_path / "out").verify()

    read()
    for place in range(len(whole)):
        bent = bytearray(whole)
        bent[place] ^= int(rng.integers(1, 256))
        file.write_bytes(bent)
        with pytest.raises((CorruptionError, InputError)):
            read()
    for length in range(0, len(whole), 1 + len(whole) // 500):
        file.write_bytes(whole[:length])
        with pytest.raises((CorruptionError, InputError)):
            read()
    file.write_bytes(whole)
    read()


def test_a_plan_is_what_its_bytes_say(world: World, tmp_path: Path) -> None:
    base = stored(world, tmp_path / "base")
    job = Job.make(base, world.catalog, world.policy, tmp_path / "out", as_of=world.as_of)
    content = job.plan.to_bytes()
    assert Plan.parse(content, "plan") == job.plan
    said = json.loads(content)
    assert said["as_of"] == world.as_of.isoformat()
    with pytest.raises(CorruptionError):
        Plan.parse(json.dumps(said).encode(), "plan")


def test_the_whole_plan_is_checked_before_anything_is_written(world: World, tmp_path: Path) -> None:
    base = stored(world, tmp_path / "base")
    wrong = Policy(exclusions={"customers": ("nobody knows them",)})
    with pytest.raises(InputError) as caught:
        Job.make(base, world.catalog, wrong, tmp_path / "out")
    assert caught.value.field == "policy.exclusions.customers"
    assert not (tmp_path / "out").exists()
    with pytest.raises(NotFoundError):
        base.profile("nobody knows them")


VARIANTS = [name for name, runs in kernel.variants().items() if runs]


@pytest.mark.parametrize("journal", [False, True])
def test_parts_threads_variants_and_order_change_no_byte_of_what_is_read(
    world: World, tmp_path: Path, journal: bool
) -> None:
    """The files of a job are the same for each number of parts, and their rows for all."""
    overlay = None
    with Journal.open(tmp_path / "journal", create=True) as opened:
        opened.append(objections=[world.customers[0]])
        if journal:
            overlay = opened.overlay()
    wanted = None
    for parts in (1, 2, 8):
        base = stored(world, tmp_path / f"base{parts}", parts)
        files = None
        ways = [("portable", 2, 1), *((variant, 1, 2) for variant in VARIANTS)]
        for number, (variant, threads, workers) in enumerate(ways):
            out = tmp_path / f"{parts}-{number}"
            job = Job.make(
                base,
                world.catalog,
                world.policy,
                out,
                as_of=world.as_of,
                overlay=overlay,
                reasons=2,
                threads=threads,
                variant=variant,
            )
            if number % 2:
                in_any_order(job, parts, seed=number)
            result = job.run(lambda task, workers=workers: ThreadPool(task, workers)).result
            result.verify()
            held = {each.name: each.read_bytes() for each in out.rglob("*") if each.is_file()}
            files = files or held
            assert held == files, (variant, threads, workers)
            digest = canonical_digest(result.read())
            wanted = wanted or digest
            assert digest == wanted, parts
    if not journal:
        assert wanted == canonical_digest(expected(world, reasons=2))


def in_any_order(job: Job, parts: int, *, seed: int) -> None:
    """Publish all parts but one, in an order drawn by lot, as workers elsewhere might."""
    order = random.Random(seed).sample(range(parts), parts)
    for index in order[1:]:
        job.task(index)


def test_nobody_left_to_match_is_a_result_without_rows(world: World, tmp_path: Path) -> None:
    base = stored(world, tmp_path / "base")
    with Journal.open(tmp_path / "journal", create=True) as journal:
        journal.append(objections=list(world.customers))
        overlay = journal.overlay()
    policy = known_to(world.catalog, world.policy)
    for name, since in (("old", None), ("new", tmp_path / "old")):
        catalog = Catalog.from_rows(world.capabilities[: None if since is None else -1])
        job = Job.make(base, catalog, policy, tmp_path / name, overlay=overlay, reasons=1)
        result = job.run(since=since).result
        result.verify()
        assert (result.customer_count, result.opportunity_count) == (0, 0)
        table = result.read()
        assert table.num_rows == 0
        assert "reasons" in table.column_names
        assert result.lookup(world.customers[0]).num_rows == 0


def test_what_is_gone_alone_asks_the_kernel_only_where_it_was_offered(
    world: World, tmp_path: Path
) -> None:
    """Parts that lost nothing count nothing, and the counts add up all the same."""
    policy = known_to(world.catalog, Policy(k=1, ev_min=None)).model_copy(
        update={"consent_not_needed": world.policy.consent_not_needed}
    )
    base = stored(world, tmp_path / "base", 8)
    old = rescore(base, world.catalog, policy, tmp_path / "old", as_of=world.as_of).result
    named = old.read()["capability_id"].to_pylist()
    rare = min(set(named), key=lambda each: (named.count(each), each))
    catalog = Catalog.from_rows([each for each in world.capabilities if each["id"] != rare])
    job = Job.make(base, catalog, policy, tmp_path / "new", as_of=world.as_of)
    report = job.run(since=tmp_path / "old")
    assert report.note is None
    assert 0 < report.stats["matched_in_full"] < len(world.customers)
    full = rescore(base, catalog, policy, tmp_path / "full", as_of=world.as_of)
    assert report.result.manifest == full.result.manifest


def test_a_base_that_changes_under_a_job_stops_it(world: World, tmp_path: Path) -> None:
    """A new version does not touch it; files that are replaced are told by their digest."""
    base = stored(world, tmp_path / "base")
    job = Job.make(base, world.catalog, world.policy, tmp_path / "out", as_of=world.as_of)
    other = replace(world, indicators=world.indicators + 1)
    assert stored(other, tmp_path / "base").version == 2
    same(job.run().result, expected(world, reasons=None))
    again = Job.make(base, world.catalog, world.policy, tmp_path / "again", as_of=world.as_of)
    shutil.rmtree(tmp_path / "base")
    stored(other, tmp_path / "base")
    with pytest.raises(CorruptionError, match="of the parts could not be computed"):
        again.run()
    replaced = StoredBase.open(tmp_path / "base")
    with pytest.raises(InputError, match=r"holds another job.*its base_digest is"):
        rescore(replaced, world.catalog, world.policy, tmp_path / "again", as_of=world.as_of)


def test_a_part_under_the_name_of_another_is_not_taken_for_it(world: World, tmp_path: Path) -> None:
    base = stored(world, tmp_path / "base")
    full = rescore(base, world.catalog, world.policy, tmp_path / "full", as_of=world.as_of).result
    out = tmp_path / "out"
    (out / "parts").mkdir(parents=True)
    (out / PLAN).write_bytes((tmp_path / "full" / PLAN).read_bytes())
    one, other = full.manifest.parts[:2]
    wrong = other.file.replace("part-00001", "part-00000")
    (out / wrong).write_bytes((tmp_path / "full" / other.file).read_bytes())
    report = rescore(base, world.catalog, world.policy, out, as_of=world.as_of)
    assert report.computed_count == 4
    assert report.result.manifest == full.manifest
    assert not (out / wrong).exists()
    assert (out / one.file).exists()


def test_an_excluded_customer_of_a_damaged_part_stops_that_part_alone(
    world: World, tmp_path: Path
) -> None:
    base = stored(world, tmp_path / "base")
    excluded = base.part(2).customer_ids.to_pylist() or base.read().customer_ids.to_pylist()
    policy = Policy(exclusions={"customers": (excluded[0],)}, consent_not_needed=())
    policy = world.policy.model_copy(update={"exclusions": policy.exclusions})
    (victim,) = (tmp_path / "base").rglob("part-00002.*")
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-1])
    with pytest.raises(CorruptionError, match=r"part 2: .*part-00002"):
        rescore(base, world.catalog, policy, tmp_path / "out", as_of=world.as_of)
    victim.write_bytes(whole)
    report = rescore(base, world.catalog, policy, tmp_path / "out", as_of=world.as_of)
    assert report.computed_count == 1
    assert report.result.lookup(excluded[0]).num_rows == 0


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_base_and_result_may_be_objects(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The same files as in folders; a prefix below another one included."""
    pytest.importorskip("obstore", reason="objects need the extra: obstore is not installed")
    monkeypatch.setenv("VISAVIS_CACHE", str(tmp_path / "cache"))
    place = objects(tmp_path, kind)
    folder = rescore(
        stored(world, tmp_path / "base"),
        world.catalog,
        world.policy,
        tmp_path / "out",
        as_of=world.as_of,
    ).result
    base = Base.read(tmp_path / "base").write(place.at("base"), parts=4)  # type: ignore[arg-type]
    assert base.digest == StoredBase.open(tmp_path / "base").digest
    out = place.at("results/out")
    report = rescore(base, world.catalog, world.policy, out, as_of=world.as_of)
    assert report.result.manifest == folder.manifest
    report.result.verify()
    assert out.names() == sorted(
        each.relative_to(tmp_path / "out").as_posix()
        for each in (tmp_path / "out").rglob("*")
        if each.is_file()
    )
    out.remove(MANIFEST)
    out.remove(folder.manifest.parts[1].file)
    with pytest.raises(InputError, match="not finished"):
        Result.open(out)
    again = rescore(base, world.catalog, world.policy, out, as_of=world.as_of)
    assert again.computed_count == 1
    assert again.result.read().equals(folder.read())
    assert Result.open(out).lookup(world.customers[0]).equals(folder.lookup(world.customers[0]))


def objects(folder: Path, kind: str) -> Place:
    from obstore.store import MemoryStore

    from visavis.store.buckets import Bucket

    if kind == "memory":
        return Bucket(MemoryStore(), "memory://", "")
    (folder / "store").mkdir()
    return open_place((folder / "store").as_uri())


def test_verifying_reads_the_objects_and_not_what_is_kept_of_them(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISAVIS_CACHE", str(tmp_path / "cache"))
    place = objects(tmp_path, "file")
    base = world.base.write(place.at("base"), parts=2)
    report = rescore(base, world.catalog, world.policy, place.at("out"), as_of=world.as_of)
    base.verify()
    report.result.verify()
    for verify, name in (
        (base.verify, f"base/v0001/{base.manifest.parts[1].file}"),
        (report.result.verify, f"out/{report.result.manifest.parts[1].file}"),
    ):
        file = tmp_path / "store" / name
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(CorruptionError, match=Path(name).name):
            verify()
        file.write_bytes(whole)
        verify()


def test_a_place_that_holds_a_base_takes_no_result(world: World, tmp_path: Path) -> None:
    base = stored(world, tmp_path / "base")
    before = sorted((tmp_path / "base").rglob("*"))
    with pytest.raises(InputError, match="holds a base") as caught:
        rescore(base, world.catalog, world.policy, tmp_path / "base", as_of=world.as_of)
    assert caught.value.field == "out"
    assert sorted((tmp_path / "base").rglob("*")) == before


def test_parts_that_fail_alike_are_told_once(world: World, tmp_path: Path) -> None:
    base = stored(world, tmp_path / "base", 8)

    class Failing(ThreadPool):
        def __init__(self, _: Any) -> None:
            super().__init__(self.fail, 1)

        def fail(self, _: int) -> Any:
            raise SetupError("this machine lacks a tile unit")

    with pytest.raises(SetupError, match="lacks") as caught:
        rescore(
            base,
            world.catalog,
            world.policy,
            tmp_path / "out",
            as_of=world.as_of,
            make_pool=Failing,
        )
    assert "part 0, 1, 2 and 5 more: this machine lacks a tile unit" in str(caught.value)
    assert str(caught.value).count("lacks") == 1
