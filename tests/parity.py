"""Answers of a gateway, to be compared with the batch byte for byte."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import pyarrow as pa

from gateways import Client, batch_request, rows_of, table_of
from visavis.base import Base
from visavis.catalog import Catalog
from visavis.digest import canonical_digest
from visavis.engine import OPPORTUNITY_SCHEMA, Engine
from visavis.policy import Policy
from visavis.v1 import match_service_pb2, opportunity_pb2

PLAIN_SCHEMA = OPPORTUNITY_SCHEMA.remove(OPPORTUNITY_SCHEMA.get_field_index("reasons"))

Rows = list[dict[str, Any]]


def digest_of(rows: Rows, *, with_reasons: bool) -> str:
    """Of every byte of every value."""
    schema = OPPORTUNITY_SCHEMA if with_reasons else PLAIN_SCHEMA
    return canonical_digest(pa.Table.from_pylist(rows, schema))


class Expected:
    """What the batch makes of a base, a catalog, a policy and a day."""

    def __init__(self, base: Base, catalog: Catalog, policy: Policy, **options: Any) -> None:
        self.rows: dict[str, Rows] = {}
        for row in Engine(base, catalog, policy, **options).match().to_table().to_pylist():
            self.rows.setdefault(row["customer_id"], []).append(row)

    def digest(self, customer_ids: Iterable[str], *, with_reasons: bool) -> str:
        """As of an answer about these customers in this order."""
        rows = [row for each in customer_ids for row in self.rows.get(each, ())]
        if not with_reasons:
            rows = [{name: row[name] for name in PLAIN_SCHEMA.names} for row in rows]
        return digest_of(rows, with_reasons=with_reasons)

    def check_one(self, customer_id: str, answer: Any) -> None:
        """A MatchCustomerResponse."""
        assert answer.customer_id == customer_id
        want = self.digest([customer_id], with_reasons=True)
        assert digest_of(rows_of(answer), with_reasons=True) == want

    def check_many(self, ids: Sequence[str], answer: Any, *, with_reasons: bool = False) -> None:
        """A MatchCustomersResponse, whatever its encoding."""
        assert not answer.row_errors
        assert answer.customer_count == len(ids)
        if answer.WhichOneof("opportunities") == "arrow":
            table = pa.ipc.open_stream(answer.arrow).read_all()
        else:
            table = table_of(answer, list(ids), with_reasons=with_reasons)
        assert ("reasons" in table.column_names) == with_reasons
        found = digest_of(table.to_pylist(), with_reasons=with_reasons)
        assert found == self.digest(ids, with_reasons=with_reasons)


async def check_every_way(client: Client, ids: Sequence[str], expected: Expected) -> Any:
    """One by one, as columns, as Arrow and as a stream: the batch, all from one version.

    Returns
    -------
    ServingVersion
        What they were answered from.
    """
    versions = []
    for customer_id in ids:
        one = await client.one(customer_id)
        expected.check_one(customer_id, one)
        versions.append(one.version)
    for encoding in (opportunity_pb2.ENCODING_COLUMNS, opportunity_pb2.ENCODING_ARROW):
        for with_reasons in (False, True):
            many = await client.many(
                list(ids), encoding=encoding, reason_count=3 if with_reasons else 0
            )
            expected.check_many(ids, many, with_reasons=with_reasons)
            versions.append(many.version)
    size = len(ids) // 5 + 1
    frames = {at: list(ids[at : at + size]) for at in range(0, len(ids), size)}

    async def sent() -> AsyncIterator[Any]:
        for at, asked in frames.items():
            encoding = (
                opportunity_pb2.ENCODING_ARROW if at % 2 else opportunity_pb2.ENCODING_COLUMNS
            )
            match = batch_request(asked, reason_count=3, encoding=encoding)
            yield match_service_pb2.StreamMatchesRequest(frame_id=at, match=match)

    answered = set()
    async for frame in client.match.StreamMatches(sent()):
        assert frame.WhichOneof("outcome") == "match"
        expected.check_many(frames[frame.frame_id], frame.match, with_reasons=True)
        versions.append(frame.match.version)
        answered.add(frame.frame_id)
    assert answered == set(frames)
    assert all(version == versions[0] for version in versions)
    return versions[0]
