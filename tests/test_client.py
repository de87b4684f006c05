"""The client over loopback: what the engine says itself, typed, from both faces."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from clients import KINDS, client_of, gateway_of
from gateways import AS_OF, COUNT, IDS, INDICATORS, World, a_catalog
from visavis.catalog import Catalog
from visavis.client import (
    AsyncClient,
    Capability,
    Client,
    Fact,
    Profile,
    RequestContext,
    RequestError,
    Selection,
    Source,
    StateError,
    UnknownIdError,
    VersionChangedError,
    pieces,
)
from visavis.client.encoding import capability_message
from visavis.errors import InputError, LimitError, NotFoundError, SchemaError
from visavis.gateway import audiences, limits


@pytest.fixture(name="world", scope="module")
def a_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest.fixture(name="address", scope="module")
def an_address(world: World) -> Iterator[str]:
    with gateway_of(world) as address:
        yield address


@pytest.fixture(name="client", params=KINDS)
def a_client(request: pytest.FixtureRequest, address: str) -> Iterator[Any]:
    with client_of(request.param, address) as client:
        yield client


@pytest.fixture(name="own", params=KINDS)
def a_client_of_its_own_world(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[World, Any]]:
    """What is recorded and published changes the world: each of these tests has its own."""
    with (
        World(tmp_path) as world,
        gateway_of(world) as address,
        client_of(request.param, address) as client,
    ):
        yield world, client


def rows_of(answer: Any) -> list[dict[str, Any]]:
    return [
        {
            "customer_id": answer.customer_id,
            "rank": each.rank,
            "capability_id": each.capability_id,
            "propensity": each.propensity,
            "expected_value": each.expected_value,
            "control": each.is_control,
            "reasons": [asdict(reason) for reason in each.reasons],
        }
        for each in answer.opportunities
    ]


def profiles_of(world: World) -> tuple[pa.Table, pa.Table]:
    """The base's own profiles as a request has them: customers who have not objected."""
    base = world.base
    table = pa.table(
        {
            "customer_id": pa.array(IDS),
            **{name: pa.array(base.indicators[:, d]) for d, name in enumerate(INDICATORS)},
            **{name: base.attributes[name] for name in base.attributes.column_names},
        }
    )
    rows = base.facts["customer_index"].to_pylist()
    facts = pa.table(
        {
            "customer_id": pa.array([IDS[row] for row in rows]),
            **{name: base.facts[name] for name in base.facts.column_names[1:]},
        }
    )
    return table, facts


def test_one_customer_is_matched_as_the_batch_does(client: Any, world: World) -> None:
    rows = [row for each in IDS for row in rows_of(client.match(each))]
    assert rows == world.batch().to_pylist()
    answer = client.match("c01", reasons=0)
    assert [each.reasons for each in answer.opportunities] == [()] * len(answer.opportunities)
    assert answer.version.as_of == AS_OF
    assert answer.version.catalog_digest == world.catalog.digest()
    texts = {each.message for each in client.match("c01").opportunities}
    assert any(text.startswith("Dear N1, {now}") for text in texts)


@pytest.mark.parametrize("reasons", [0, 3])
def test_many_customers_are_matched_as_the_batch_does(
    client: Any, world: World, reasons: int
) -> None:
    whole = world.batch(reasons=reasons or None)
    batch = client.match_many(IDS, reasons=reasons)
    assert batch.table.equals(whole)
    assert batch.table.schema.equals(whole.schema)
    assert (batch.customer_count, batch.row_errors) == (COUNT, ())
    for ids in (pa.array(IDS), pa.chunked_array([IDS[:7], IDS[7:]])):
        assert client.match_many(ids, reasons=reasons).table.equals(whole)
    empty = client.match_many([])
    assert (empty.customer_count, empty.table.num_rows) == (0, 0)


def test_profiles_are_matched_as_the_customers_whom_they_are_of(client: Any, world: World) -> None:
    table, facts = profiles_of(world)
    whole = world.batch()
    batch = client.match_many(table, facts=facts, reasons=3)
    assert batch.table.equals(whole)
    without = client.match_many(table, reasons=3).table
    assert not without.equals(whole)
    row = table.slice(3, 1).to_pylist()[0]
    held = [
        Fact(kind=each["kind"], date=each["date"], product=each["product"], count=each["count"])
        for each in facts.to_pylist()
        if each["customer_id"] == "c03"
    ]
    assert held
    profile = Profile(
        customer_id="c03",
        indicators={name: row[name] for name in INDICATORS},
        attributes={name: row[name] for name in world.base.attributes.column_names},
        facts=held,
    )
    assert client.match(profile=profile) == client.match("c03")


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_beyond_the_servers_limits_is_cut_and_joined(
    kind: str, address: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CUSTOMERS_MAX", 7)
    monkeypatch.setattr("visavis.gateway.match_service.CUSTOMERS_MAX", 7)
    asked = [*IDS, "nobody", *IDS]
    whole = world.batch()
    table, facts = profiles_of(world)
    with client_of(kind, address) as client:
        batch = client.match_many(asked, reasons=3)
        assert client.serving_info().limits.customer_count_max == 7
        profiles = client.match_many(table, facts=facts, reasons=3)
        with pytest.raises(RequestError) as caught:
            client.match_many(IDS, reasons=999)
    assert batch.table.equals(pa.concat_tables([whole, whole]))
    assert batch.customer_count == 2 * COUNT + 1
    assert [(each.row, each.reason) for each in batch.row_errors] == [(COUNT, "UNKNOWN_CUSTOMER")]
    assert profiles.table.equals(whole)
    assert caught.value.field == "reason_count"


@pytest.mark.parametrize("kind", KINDS)
def test_what_would_be_answered_with_too_much_is_asked_in_halves(
    kind: str, address: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The client's own reckoning is wrong here, by being switched off.
    monkeypatch.setattr("visavis.client.matches.cut_size", lambda *_: 10**6)
    monkeypatch.setattr(limits, "MESSAGE_BYTES_MAX", 12_000)
    with client_of(kind, address) as client:
        info = client.serving_info()
        assert info.limits.message_bytes_max == 12_000
        batch = client.match_many(IDS * 5, reasons=3)
    assert batch.table.equals(pa.concat_tables([world.batch()] * 5))
    assert pieces.cut_size(info, 3, 3, IDS) < len(IDS * 5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_answers_batch_by_batch_and_takes_few_ahead(
    kind: str, address: str, world: World
) -> None:
    taken: list[int] = []

    def batches() -> Iterator[list[str]]:
        for number in range(COUNT // 4):
            taken.append(number)
            yield IDS[4 * number : 4 * number + 4]

    whole = world.batch()
    found = {}
    with client_of(kind, address) as client:
        for frame in client.stream(batches(), reasons=3, open_frames=3):
            found[frame.index] = frame.result().table
            # One more has been asked for at most: where room was found and nothing sent yet.
            assert len(taken) <= len(found) + 3
        assert sorted(found) == list(range(COUNT // 4))
        assert pa.concat_tables([found[index] for index in sorted(found)]).equals(whole)
        table, _ = profiles_of(world)
        frames = client.stream([table, ["nobody"], ["c01"] * 10_001])
        said = {frame.index: frame for frame in frames}
        assert said[0].result().customer_count == COUNT
        assert [each.reason for each in said[1].result().row_errors] == ["UNKNOWN_CUSTOMER"]
        with pytest.raises(RequestError) as caught:
            said[2].result()
        assert (caught.value.reason, caught.value.field) == ("LIMIT_EXCEEDED", "ids.customer_ids")


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_ends_with_what_is_wrong_with_a_batch_behind_the_answers(
    kind: str, address: str
) -> None:
    def broken() -> Iterator[Any]:
        yield ["c01"]
        raise KeyError("of the caller")

    with client_of(kind, address) as client:
        frames = client.stream(broken())
        assert next(frames).result().customer_count == 1
        with pytest.raises(KeyError, match="of the caller"):
            next(frames)
        with pytest.raises(InputError) as caught:
            list(client.stream(["c01"]))
        assert caught.value.field == "customers"
        with pytest.raises(LimitError) as heavy:
            list(client.stream([["x" * 5_000_000]]))
        assert (heavy.value.field, heavy.value.row) == ("batches", 0)
        # Left early, the call is given up, and the client is as good as before.
        for _ in client.stream([["c01"]] * 100, open_frames=2):
            break
        assert client.match("c01").customer_id == "c01"
        with pytest.raises(InputError):
            list(client.stream([], open_frames=0))


def test_explanations_are_typed(client: Any, world: World) -> None:
    best = client.match("c01").opportunities[0]
    found = client.explain("c01", best.capability_id)
    assert (found.rank, found.obstacle) == (1, "NONE")
    assert found.expected_value == best.expected_value
    said = found.bias + sum(each.contribution for each in found.contributions)
    assert found.linear_predictor == pytest.approx(said)
    out = client.explain("c13", "k00")
    assert (out.obstacle, out.linear_predictor, out.rank) == ("OBJECTION", None, None)
    assert not next(gate for gate in out.gates if gate.obstacle == "OBJECTION").is_open
    assert out.remedies or out.verdict


def test_an_audience_comes_by_pages_and_its_version_may_change(
    client: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = list(client.find_audience("k05", 20, page_size=7, with_reach=True))
    members = [each for page in pages for each in page.members]
    assert [len(page.members) for page in pages] == [7, 7, 6]
    assert [page.reach_count is None for page in pages] == [False, True, True]
    whole = next(client.find_audience("k05", 20))
    assert whole.members == tuple(members)
    draft = Capability(capability_id="new", product="tea", channel="shop", weights={"spend": 1.0})
    (drafted,) = client.find_audience(draft, 5, context=RequestContext(ev_min=0.1))
    assert len(drafted.members) == 5
    monkeypatch.setattr(audiences, "is_of", lambda *_: False)
    broken = client.find_audience("k05", 20, page_size=7)
    next(broken)
    with pytest.raises(VersionChangedError) as caught:
        next(broken)
    assert caught.value.reason == "VERSION_CHANGED"


def test_threads_and_coroutines_share_a_client(address: str, world: World) -> None:
    wanted = world.batch().to_pylist()
    with Client(address) as client, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(client.match, IDS))
        batches = list(threads.map(lambda _: client.match_many(IDS, reasons=3).table, range(8)))
    assert [row for each in answers for row in rows_of(each)] == wanted
    assert all(each.to_pylist() == wanted for each in batches)

    async def scene() -> list[Any]:
        async with AsyncClient(address) as client:
            return await asyncio.gather(*map(client.match, IDS))

    assert asyncio.run(scene()) == answers


def test_an_asynchronous_stream_takes_batches_that_come_in_time(address: str, world: World) -> None:
    async def batches() -> AsyncIterator[list[str]]:
        for number in range(COUNT // 4):
            await asyncio.sleep(0)
            yield IDS[4 * number : 4 * number + 4]

    async def scene() -> dict[int, pa.Table]:
        async with AsyncClient(address) as client:
            frames = client.stream(batches(), reasons=3, open_frames=2)
            return {frame.index: frame.result().table async for frame in frames}

    found = asyncio.run(scene())
    assert pa.concat_tables([found[index] for index in sorted(found)]).equals(world.batch())


def test_a_context_narrows(client: Any) -> None:
    plain = client.match("c01")
    one = plain.opportunities[0]
    shut = RequestContext(exclusions=Selection(products=[one.product]))
    products = {each.product for each in client.match("c01", context=shut).opportunities}
    assert one.product not in products
    assert client.match("c01", context=RequestContext()) == plain
    nothing = RequestContext(capability_filter=Selection(channels=[]))
    assert client.match("c01", context=nothing).opportunities == ()
    assert client.match("c01", context=RequestContext(available_channels=())).opportunities == ()
    only = RequestContext(capability_filter=Selection(channels=["shop"]), k=1)
    few = client.match("c01", context=only).opportunities
    assert [each.channel for each in few] == ["shop"]
    child = RequestContext(
        as_of=date(2026, 3, 2),
        attribute_overrides={"age": 9, "first_name": None},
        indicator_overrides={"spend": 3.5},
        ev_min=0.5,
    )
    now = client.match("c01", context=child)
    assert now.opportunities != plain.opportunities
    assert all(int(each.capability_id[1:]) % 3 for each in now.opportunities)
    assert {each.message for each in now.opportunities} == {""}
    with pytest.raises(RequestError) as caught:
        client.match("c01", context=RequestContext(k=4))
    error = caught.value
    assert (error.reason, error.field) == ("LOOSER_POLICY", "context.policy_overrides.k")
    assert str(error) == f"context.policy_overrides.k: {error.message}"


def test_what_is_recorded_counts_at_once(own: tuple[World, Any]) -> None:
    world, client = own
    first = client.match("c01").opportunities[0]
    done = client.record_facts(
        [{"customer_id": "c02", "product": "wine", "kind": "excluded", "date": AS_OF}],
        outcomes=[{"opportunity_id": first.opportunity_id, "kind": "bought", "date": str(AS_OF)}],
        attributes={"c03": {"age": 9}, "c04": {"consent_mail": False, "first_name": None}},
        objections=["c05"],
    )
    assert (done.first_offset, done.last_offset, done.is_repeated) == (1, 5, False)
    assert len(done.request_id) == 36
    table = pa.table(
        {
            "customer_id": ["c06", "c08"],
            "capability_id": ["k00", None],
            "product": [None, "tea"],
            "kind": ["contacted", "refused"],
            "date": pa.array([AS_OF, AS_OF], pa.date32()),
            "count": [2, None],
        }
    )
    changed = pa.table({"customer_id": ["c09", "c10"], "age": pa.array([None, 12], pa.int64())})
    named: dict[str, Any] = {"attributes": changed, "request_id": "tables"}
    assert client.record_facts(table, **named).last_offset == 9
    assert client.record_facts(table, **named).is_repeated
    assert client.match_many(IDS, reasons=3).table.equals(world.batch())
    with pytest.raises(RequestError) as caught:
        client.record_facts(objections=["c01"], request_id="tables")
    assert caught.value.reason == "REQUEST_ID_REUSED"
    gone = client.forget("c06")
    assert gone.emptied_count == 1
    assert client.match("c06").opportunities == ()
    assert client.forget("nobody").version.journal_offset == world.journal.offset


def test_the_catalog_is_listed_and_published(own: tuple[World, Any]) -> None:
    world, client = own
    info = client.serving_info()
    assert info.indicator_names == INDICATORS
    assert info.attributes["age"] == "int64"
    assert info.attributes["consent_mail"] == "bool"
    assert (info.customer_count, info.capability_count, info.policy.k) == (COUNT, 12, 3)
    assert info.policy.cool_down_days == {"mail": 10}
    assert (info.has_journal, info.notice) == (True, None)
    pages = list(client.list_capabilities(is_full=True, page_size=5))
    assert [len(page.capabilities) for page in pages] == [5, 5, 2]
    drafts = [each for page in pages for each in page.capabilities]
    # What is listed is what a draft takes: the round trip is the catalog.
    rows = [audiences._draft(capability_message(each)) for each in drafts]
    assert Catalog.from_rows(rows).digest() == world.catalog.digest()
    (teas,) = client.list_capabilities(capability_filter=Selection(products=["tea"]))
    assert [each.capability_id for each in teas.capabilities] == ["k00", "k04", "k08"]
    other = a_catalog(bias=1.0)
    other.write(world.folder / "other.parquet")
    source = Source("other.parquet", other.digest())
    dry = client.publish(catalog=source, validate_only=True)
    assert dry.version.catalog_digest == other.digest()
    done = client.publish(catalog=source, request_id="it")
    assert done.version.catalog_digest == other.digest()
    assert done.replaced_version.catalog_digest == world.catalog.digest()
    assert client.publish(catalog=source, request_id="it").is_repeated
    assert client.match("c01").version == done.version
    with pytest.raises(StateError) as caught:
        client.publish(catalog=Source("other.parquet", "0" * 64))
    assert caught.value.reason == "DIGEST_MISMATCH"


def test_what_is_unknown_is_named(client: Any) -> None:
    with pytest.raises(UnknownIdError) as caught:
        client.match("nobody")
    error = caught.value
    assert isinstance(error, NotFoundError)
    assert (error.reason, error.resource) == ("UNKNOWN_CUSTOMER", ("customer", "nobody"))
    with pytest.raises(UnknownIdError) as caught:
        client.explain("c01", "k99")
    assert caught.value.resource == ("capability", "k99")


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        (lambda client, _: client.match(), "customer_id"),
        (lambda client, _: client.match(7), "customer_id"),
        (lambda client, _: client.match("\ud800"), "customer_id"),
        (lambda client, _: client.match("c", profile=Profile(customer_id="c", indicators={})),
         "customer_id"),
        (lambda client, _: client.match("c", context=RequestContext(as_of="soon")),
         "context.as_of"),
        (lambda client, _: client.match("c", context=RequestContext(available_channels="mail")),
         "context.available_channels.names"),
        (lambda client, _: client.match("c", context=RequestContext(k="3")),
         "context.policy_overrides.k"),
        (lambda client, _: client.match(
            "c", context=RequestContext(attribute_overrides={"age": 2**64})),
         "context.attribute_overrides.age"),
        (lambda client, _: client.match("c", context=RequestContext(indicator_overrides={"x": []})),
         "context.indicator_overrides.x"),
        (lambda client, _: client.match("c", reasons=2**40), "reason_count"),
        (lambda client, _: client.match("c", timeout_s=0), "timeout_s"),
        (lambda client, _: client.match_many("c01"), "customers"),
        (lambda client, _: client.match_many(["c01", None]), "customers"),
        (lambda client, table: client.match_many(table.drop(["days"])), "profiles.days"),
        (lambda client, table: client.match_many(table.append_column("x", table["days"])),
         "profiles.x"),
        (lambda client, table: client.match_many(table.drop(["customer_id"])),
         "profiles.customer_id"),
        (lambda client, table: client.match_many(pa.concat_tables([table, table])),
         "profiles.customer_id"),
        (lambda client, table: client.match_many(["c"], overrides=table), "overrides"),
        (lambda client, table: client.match_many(["c"], facts=table), "facts"),
        (lambda client, table: client.match_many(table, facts=table), "facts.days"),
        (lambda client, _: client.record_facts([{"customer_id": "c"}]), "facts.kind"),
        (lambda client, _: client.record_facts([{"who": "c"}]), "facts.who"),
        (lambda client, _: client.record_facts(["c"]), "facts"),
        (lambda client, _: client.record_facts(
            [{"customer_id": "c", "kind": "sold", "date": AS_OF, "product": "tea"}]),
         "facts[0].kind"),
        (lambda client, _: client.record_facts(
            [{"customer_id": "c", "kind": "bought", "date": AS_OF}]), "facts[0]"),
        (lambda client, _: client.record_facts(attributes={"c": {"age": {}}}),
         "attributes[0].attributes.age"),
        (lambda client, _: client.record_facts(objections="c01"), "objections"),
        (lambda client, _: list(client.find_audience(Capability(capability_id="k", link="odd"), 1)),
         "draft.link"),
    ],
)  # fmt: skip
def test_what_no_message_can_hold_is_refused_before_it_is_sent(
    address: str, world: World, ask: Any, field: str
) -> None:
    table, _ = profiles_of(world)
    with Client(address) as client, pytest.raises(InputError) as caught:
        ask(client, table)
    assert caught.value.field == field


def test_profiles_that_are_wrong_are_refused_by_cell(address: str, world: World) -> None:
    table, facts = profiles_of(world)
    at = table.column_names.index("days")
    days = table["days"].to_pylist()
    with Client(address) as client:
        for wrong, row in ((float("nan"), 3), (None, 5)):
            column = pa.array([*days[:row], wrong, *days[row + 1 :]], pa.float64())
            with pytest.raises(InputError) as caught:
                client.match_many(table.set_column(at, "days", column))
            assert (caught.value.field, caught.value.row) == ("profiles.days", row)
        text = table.set_column(at, "days", pa.array(["x"] * COUNT))
        with pytest.raises(SchemaError, match="must be numbers"):
            client.match_many(text)
        age = table.set_column(table.column_names.index("age"), "age", pa.array([1.5] * COUNT))
        with pytest.raises(SchemaError, match="must be int64"):
            client.match_many(age)
        for name, value, field in (
            ("customer_id", "x", "facts.customer_id"),
            ("kind", "sold", "facts.kind"),
            ("product", None, "facts"),
            ("date", None, "facts.date"),
        ):
            rows = facts.to_pylist()
            rows[2][name] = value
            with pytest.raises(InputError) as caught:
                client.match_many(table, facts=pa.Table.from_pylist(rows, facts.schema))
            assert (caught.value.field, caught.value.row) == (field, 2)


def test_another_schema_is_learned_when_it_changes(own: tuple[World, Any]) -> None:
    world, client = own
    table, facts = profiles_of(world)
    state = client if isinstance(client, Client) else client.client
    client.serving_info()
    old = state.info
    object.__setattr__(old, "indicator_names", ("days", "spend"))
    assert client.match_many(table, facts=facts, reasons=3).table.equals(world.batch())
    assert state.info.indicator_names == INDICATORS


def test_both_clients_have_the_same_methods_and_say_the_same() -> None:
    def methods(kind: type) -> dict[str, Any]:
        own = {name: each for name, each in vars(kind).items() if inspect.isfunction(each)}
        return {name: each for name, each in own.items() if not name.startswith("_")}

    blocking, waiting = methods(Client), methods(AsyncClient)
    assert set(blocking) == set(waiting)
    for name, method in blocking.items():
        assert method.__doc__
        assert waiting[name].__doc__ == method.__doc__
        if name != "close":
            asked = inspect.signature(method).parameters
            assert next(iter(asked)) == "self"
            assert inspect.signature(waiting[name]).parameters == asked
    assert str(inspect.signature(Client.match)).endswith("-> 'results.CustomerMatches'")


def test_the_client_needs_neither_the_core_nor_ray() -> None:
    script = """
import sys
import visavis
client = visavis.Client("127.0.0.1:1")
heavy = {"ray", "duckdb", "sklearn", "torch", "sqlglot"}
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & heavy, loaded & heavy
assert not [name for name in sys.modules if "kernel" in name and "visavis" in name]
client.close()
"""
    subprocess.run([sys.executable, "-c", script], check=True)
