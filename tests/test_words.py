"""Reasons as sentences, for every kind of indicator that has one of its own."""

from __future__ import annotations

import json
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pytest

from visavis.base import Base
from visavis.catalog import Catalog
from visavis.errors import NotFoundError
from visavis.words import reason_in_words

AS_OF = date(2017, 10, 20)
CATALOG = Catalog.from_rows(
    [
        {"id": "milk-email", "product": "milk", "channel": "email", "weights": {}},
        {"id": "tea-email", "product": "tea", "channel": "email", "weights": {}},
        {"id": "tea-letter", "product": "tea", "channel": "letter", "weights": {}},
    ]
)
MILK, TEA, TEA_LETTER = range(3)


def base_of(
    value: float, name: str, kind: str | None = None, unit: str = "", facts: Any = ()
) -> Base:
    meaning = {
        "name": name,
        "kind": kind,
        "unit": unit,
        "formula": "",
        "lineage": [],
        "undefined": 0.0,
    }
    metadata = None if kind is None else {b"visavis.indicator": json.dumps(meaning).encode()}
    schema = pa.schema(
        [("customer_id", pa.string()), pa.field(name, pa.float32(), metadata=metadata)]
    )
    rows = [{"customer_id": "a", name: value}, {"customer_id": "b", name: 0}]
    types = {"product": pa.string(), "capability_id": pa.string(), "date": pa.date32()}
    fact_schema = pa.schema([("customer_id", pa.string()), ("kind", pa.string()), *types.items()])
    return Base.from_tables(
        pa.Table.from_pylist(rows, schema),
        as_of=AS_OF,
        facts=pa.Table.from_pylist([{"customer_id": "a", **fact} for fact in facts], fact_schema),
    )


@pytest.mark.parametrize(
    ("kind", "name", "unit", "value", "sentence"),
    [
        ("recency", "recency", "days", 0, "last visit 0 days ago"),
        ("recency", "recency", "days", 1, "last visit 1 day ago"),
        ("recency", "recency", "days", 41, "last visit 41 days ago"),
        ("cadence", "cadence", "days", 1, "usually 1 day between visits"),
        ("cadence", "cadence", "days", 6.5, "usually 6 days between visits"),
        (
            "share",
            "share_visits_h90d:department=GROCERY",
            "share",
            0.254,
            "GROCERY is part of 25 % of recent visits",
        ),
        (
            "share",
            "share_spend:brand=a=b: c",
            "share",
            1,
            "a=b: c is part of 100 % of recent spend",
        ),
        ("frequency", "frequency_h30d", "visits", 3, "3.0 visits, half-life 30 days"),
        ("spend", "spend_h30d", "amount units", 12.345, "12.35 spent, half-life 30 days"),
        ("overdue", "overdue", "ratio", -0.5, "last visit -0.5 times the usual gap ago"),
        ("a kind to come", "new_kind", "", 2, "new kind: 2"),
        (None, "score_from_elsewhere", "", 1234.5678, "score_from_elsewhere is 1235"),
        (None, "score_from_elsewhere", "", 0.25, "score_from_elsewhere is 0.25"),
    ],
)
def test_an_indicator_becomes_a_sentence(
    kind: str | None, name: str, unit: str, value: float, sentence: str
) -> None:
    assert reason_in_words(base_of(value, name, kind, unit), CATALOG, 0, TEA, name) == sentence


def fact(kind: str, age: int, **about: str) -> dict[str, Any]:
    return {"kind": kind, "date": AS_OF - timedelta(days=age), **about}


FACTS = (
    fact("bought", 5, product="tea"),
    fact("bought", 5, capability_id="tea-email"),
    fact("bought", 9, product="tea"),
    fact("bought", 1, product="milk"),
    fact("contacted", 2, capability_id="tea-email"),
    fact("contacted", 1, capability_id="tea-letter"),
    fact("refused", -3, product="tea"),
)


def history(row: int, capability: int, **options: Any) -> str:
    return reason_in_words(
        base_of(1, "x", facts=FACTS), CATALOG, row, capability, "history", **options
    )


def test_history_tells_what_happened_and_when_it_last_did() -> None:
    assert history(0, TEA) == ("bought on 2 days, last on 2017-10-15; contacted on 2017-10-18")
    assert history(0, TEA_LETTER) == (
        "bought on 2 days, last on 2017-10-15; contacted on 2017-10-19"
    )
    assert history(0, MILK) == "bought on 2017-10-19"


def test_history_knows_no_later_facts_than_the_match() -> None:
    assert "refused" not in history(0, TEA)
    later = history(0, TEA, as_of=AS_OF + timedelta(days=3))
    assert "; refused on 2017-10-23; " in later
    assert history(0, TEA, as_of=AS_OF - timedelta(days=6)) == "bought on 2017-10-11"


def test_history_of_whom_nothing_is_known_says_so() -> None:
    assert history(1, TEA) == "nothing known"


def test_a_name_that_the_base_does_not_know_is_not_found() -> None:
    with pytest.raises(NotFoundError, match="'y'"):
        reason_in_words(base_of(1, "x"), CATALOG, 0, TEA, "y")
