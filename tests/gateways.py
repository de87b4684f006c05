"""A small world behind a gateway on loopback, its clients, and what a refusal must carry."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
import pyarrow as pa
import pytest
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2_grpc

from visavis.base import Base
from visavis.catalog import Catalog
from visavis.engine import Engine
from visavis.gateway.audit import Audit
from visavis.gateway.server import Gateway, Settings
from visavis.journal import Journal
from visavis.policy import Policy
from visavis.serving import Serving
from visavis.v1 import (
    catalog_service_pb2_grpc,
    errors_pb2,
    job_service_pb2_grpc,
    match_service_pb2,
    match_service_pb2_grpc,
    profile_service_pb2_grpc,
)

AS_OF = date(2026, 3, 1)
COUNT = 40
INDICATORS = ("days", "spend", "visits")
IDS = [f"c{number:02d}" for number in range(COUNT)]
POLICY = Policy(k=3, product_limit=1, ev_min=0.0, control_share=0.25, cool_down_days={"mail": 10})

Code = grpc.StatusCode
NAMES = frozenset(errors_pb2.ErrorReason.keys())


def a_base(seed: int = 0) -> Base:
    rng = np.random.default_rng(seed)
    indicators = pa.table(
        {
            "customer_id": pa.array(IDS),
            **{name: pa.array(rng.normal(size=COUNT).astype(np.float32)) for name in INDICATORS},
        }
    )
    attributes = pa.table(
        {
            "customer_id": pa.array(IDS),
            "age": pa.array(rng.integers(10, 80, COUNT), pa.int64()),
            "first_name": pa.array([None if n % 5 == 0 else f"N{n}" for n in range(COUNT)]),
            "consent_mail": pa.array([n % 7 != 0 for n in range(COUNT)]),
            "consent_shop": pa.array([n % 11 != 0 for n in range(COUNT)]),
            "objected": pa.array([n % 13 == 0 for n in range(COUNT)]),
        }
    )
    facts = pa.table(
        {
            "customer_id": pa.array([IDS[n] for n in range(0, COUNT, 3)]),
            "product": pa.array(["tea"] * len(range(0, COUNT, 3))),
            "kind": pa.array(["bought"] * len(range(0, COUNT, 3))),
            "date": pa.array([AS_OF - timedelta(days=n + 1) for n in range(0, COUNT, 3)]),
        }
    )
    return Base.from_tables(indicators, attributes=attributes, facts=facts, as_of=AS_OF)


def a_catalog(bias: float = 0.0) -> Catalog:
    rng = np.random.default_rng(7)
    rows = []
    for number in range(12):
        product = ("tea", "wine", "bread", "oil")[number % 4]
        rows.append(
            {
                "id": f"k{number:02d}",
                "product": product,
                "channel": ("mail", "shop")[number % 2],
                "family": "food",
                "message": "Dear {first_name}, {{now}}: " + product if number % 2 else "",
                "weights": {name: float(rng.normal()) for name in INDICATORS},
                "bias": bias,
                "value": float(1 + number),
                "cost": 0.25,
                "rule": "age >= 18" if number % 3 == 0 else None,
                "history_weights": [{"kind": "bought", "feature": "ever", "weight": 0.5}],
            }
        )
    return Catalog.from_rows(rows)


class World:
    """What is served, on disk, and the batch of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = a_base()
        self.stored = self.base.write(folder / "base", parts=4)
        self.catalog = a_catalog()
        self.policy = POLICY
        self.journal = Journal.open(folder / "journal", create=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close()

    def batch(self, **options: Any) -> pa.Table:
        base = self.journal.overlay().apply(self.base)
        return Engine(base, self.catalog, self.policy).match().to_table(**options)

    def serving(self) -> Serving:
        return Serving.open(self.stored, self.catalog, self.policy, journal=self.journal, threads=1)


class Client:
    """The stubs of one channel."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.match = match_service_pb2_grpc.MatchServiceStub(channel)
        self.profile = profile_service_pb2_grpc.ProfileServiceStub(channel)
        self.catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        self.job = job_service_pb2_grpc.JobServiceStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)

    async def one(self, customer_id: str, **more: Any) -> Any:
        request = match_service_pb2.MatchCustomerRequest(customer_id=customer_id, **more)
        return await self.match.MatchCustomer(request)

    async def many(self, ids: list[str], **more: Any) -> Any:
        return await self.match.MatchCustomers(batch_request(ids, **more))


def batch_request(ids: list[str], **more: Any) -> Any:
    named = match_service_pb2.CustomerIds(customer_ids=ids)
    return match_service_pb2.MatchCustomersRequest(ids=named, **more)


@asynccontextmanager
async def listening(
    world: World, *, is_open: bool = True, audit: io.StringIO | None = None, **settings: Any
) -> AsyncIterator[tuple[Gateway, Client]]:
    chosen = Settings(
        address="127.0.0.1:0", audit=Audit(audit or io.StringIO()), roots=[str(world.folder)],
        **settings,
    )  # fmt: skip
    gateway = Gateway(chosen, journal=world.journal)
    await gateway.start()
    try:
        with world.serving() as serving:
            if is_open:
                await gateway.open(serving)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
                yield gateway, Client(channel)
    finally:
        await gateway.drain(1.0)


def served(world: World, scene: Callable[[Client], Awaitable[None]], **settings: Any) -> None:
    async def played() -> None:
        async with listening(world, **settings) as (_, client):
            await scene(client)

    asyncio.run(played())


async def refused(call: Awaitable[Any]) -> tuple[Any, dict[str, Any]]:
    """The code of a call that fails, and its details by name."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = caught.value
    trailers = dict(error.trailing_metadata() or ())
    status = Status.FromString(trailers["grpc-status-details-bin"])
    assert status.code == error.code().value[0]
    details = {}
    for packed in status.details:
        name = packed.TypeName().removeprefix("google.rpc.")
        detail = getattr(error_details_pb2, name)()
        assert packed.Unpack(detail)
        details[name] = detail
    assert details["ErrorInfo"].domain == "visavis"
    return error.code(), details


async def refused_as(call: Awaitable[Any], code: Any, reason: str, field: str | None = None) -> Any:
    found, details = await refused(call)
    assert (found, details["ErrorInfo"].reason) == (code, reason)
    assert f"ERROR_REASON_{reason}" in NAMES
    assert ("BadRequest" in details) == (code is Code.INVALID_ARGUMENT)
    if field is not None:
        assert details["BadRequest"].field_violations[0].field == field
    return details


def table_of(response: Any, ids: list[str], *, with_reasons: bool) -> pa.Table:
    """A batch's columns as the table of a result."""
    said = response.columns
    count = np.frombuffer(said.opportunity_count, "<i4")
    assert len(count) == response.customer_count == len(ids)
    owner = np.repeat(np.arange(len(count)), count)
    columns = {
        "customer_id": pa.array(ids, pa.string()).take(pa.array(owner)),
        "rank": pa.array((np.arange(len(owner)) - np.searchsorted(owner, owner) + 1).astype("i4")),
        "capability_id": _named(said.capability_ids, said.capability_index),
        "propensity": pa.array(np.frombuffer(said.propensity, "<f8")),
        "expected_value": pa.array(np.frombuffer(said.expected_value, "<f8")),
        "control": pa.array(np.frombuffer(said.is_control, "?")[owner]),
    }
    if with_reasons:
        contribution = np.frombuffer(said.contribution, "<f8")
        struct = pa.StructArray.from_arrays(
            [_named(said.indicator_names, said.indicator_index), pa.array(contribution)],
            names=["indicator", "contribution"],
        )
        ends = np.cumsum(np.frombuffer(said.reason_count, "<i4"))
        offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
        columns["reasons"] = pa.ListArray.from_arrays(offsets, struct)
    return pa.table(columns)


def _named(texts: Any, index: bytes) -> pa.Array:
    """What stands at some places of a dictionary, which is ascending."""
    assert list(texts) == sorted(set(texts))
    return pa.array(texts, pa.string()).take(pa.array(np.frombuffer(index, "<i4")))


def rows_of(response: Any) -> list[dict[str, Any]]:
    """One customer's answer as rows of a result."""
    return [
        {
            "customer_id": response.customer_id,
            "rank": each.rank,
            "capability_id": each.capability_id,
            "propensity": each.propensity,
            "expected_value": each.expected_value,
            "control": each.is_control,
            "reasons": [
                {"indicator": why.indicator, "contribution": why.contribution}
                for why in each.reasons
            ],
        }
        for each in response.opportunities
    ]
