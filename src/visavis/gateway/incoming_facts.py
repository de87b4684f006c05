"""Facts as a request has them → the tables that doors take; see `visavis.gateway.incoming`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from visavis.base import FACT_SCHEMA
from visavis.domain import CUSTOMER_ID, FactKind, day_number, parse_date
from visavis.errors import InputError
from visavis.gateway.arrow import check_unfolded
from visavis.gateway.codec import BYTE, INT32, numbers
from visavis.v1 import profile_pb2 as v1

__all__ = ["fact_columns", "fact_table"]

#: The contract's numbers of kinds; 0 is none.
_KINDS: Final = {
    number: FactKind(name.removeprefix("FACT_KIND_").lower())
    for name, number in v1.FactKind.items()
    if number
}


def fact_table(customer_ids: Sequence[str], facts: Sequence[v1.Fact], *, field: str) -> pa.Table:
    """Facts as doors take them, one row each, in their order.

    Parameters
    ----------
    customer_ids : sequence of n str
    facts : sequence of n Fact
    field : str
        Where the facts stand in the request.

    Raises
    ------
    InputError
        If a fact is about nothing, is of no kind or has no date.
    """
    columns: dict[str, list[Any]] = {name: [] for name in FACT_SCHEMA.names[1:]}
    for row, fact in enumerate(facts):
        about = fact.WhichOneof("subject")
        if about is None:
            raise InputError("product or capability_id must be given", field=field, row=row)
        if fact.kind not in _KINDS:
            reason = f"must be a kind of fact, got {fact.kind}"
            raise InputError(reason, field=f"{field}.kind", row=row)
        columns["product"].append(fact.product if about == "product" else None)
        columns["capability_id"].append(fact.capability_id if about == "capability_id" else None)
        columns["kind"].append(_KINDS[fact.kind].value)
        columns["date"].append(_day(fact.date, f"{field}.date", row))
        columns["count"].append(fact.count if fact.HasField("count") else 1)
    arrays = {
        "product": pa.array(columns["product"], pa.string()),
        "capability_id": pa.array(columns["capability_id"], pa.string()),
        "kind": pa.array(columns["kind"], pa.string()),
        "date": pa.array(columns["date"], pa.int32()).cast(pa.date32()),
        "count": pa.array(columns["count"], pa.int64()),
    }
    return pa.table({CUSTOMER_ID: pa.array(customer_ids, pa.string()), **arrays})


def _day(text: str, field: str, row: int) -> int:
    try:
        return day_number(parse_date(text, field=field))
    except InputError as error:
        raise InputError(error.reason, field=field, row=row) from None


def fact_columns(columns: v1.FactColumns, customer_ids: pa.StringArray, *, field: str) -> pa.Table:
    """Facts of many customers as doors take them.

    Parameters
    ----------
    columns : FactColumns
    customer_ids : pyarrow.StringArray of length n
        What `row_index` points into.
    field : str
        Where `columns` stands in the request.

    Raises
    ------
    SchemaError
        If lengths do not fit one another.
    InputError
        If a position or a kind is none.
    """
    n = len(columns.kind)
    owner = _places(columns.row_index, n, len(customer_ids), f"{field}.row_index", least=0)
    kinds = numbers(columns.kind, BYTE, n, f"{field}.kind")
    known = np.isin(kinds, list(_KINDS))
    if not known.all():
        row = int(np.argmin(known))
        raise InputError(
            f"must be a kind of fact, got {kinds[row]}", field=f"{field}.kind", row=row
        )
    labels = pa.array([_KINDS[number].value if number else "" for number in range(len(_KINDS) + 1)])
    subjects = {}
    for name, ids, index in (
        ("product", columns.products, columns.product_index),
        ("capability_id", columns.capability_ids, columns.capability_index),
    ):
        where = f"{field}.{name.removesuffix('_id')}_index"
        places = _places(index, n, len(ids), where, least=-1)
        texts = pa.array(ids, pa.string())
        check_unfolded(texts, pa.array(places[places >= 0]), where)
        subjects[name] = texts.take(pa.array(places, mask=places < 0))
    days = numbers(columns.day, INT32, n, f"{field}.day")
    if columns.count:
        counts = numbers(columns.count, INT32, n, f"{field}.count").astype(np.int64)
    else:
        counts = np.ones(n, dtype=np.int64)
    return pa.table(
        {
            CUSTOMER_ID: customer_ids.take(pa.array(owner)),
            **subjects,
            "kind": labels.take(pa.array(kinds)),
            "date": pa.array(days).cast(pa.date32()),
            "count": pa.array(counts),
        }
    )


def _places(
    content: bytes, count: int, size: int, field: str, *, least: int
) -> npt.NDArray[np.int32]:
    places = numbers(content, INT32, count, field)
    outside = (places < least) | (places >= size)
    if outside.any():
        row = int(np.argmax(outside))
        reason = f"must lie in {least} … {size - 1}, got {places[row]}"
        raise InputError(reason, field=field, row=row)
    return places
