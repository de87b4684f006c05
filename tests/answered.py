"""Answers of the serving core, made by hand or drawn: what the compiled writers are tested with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from visavis.catalog.wording import placeholders
from visavis.domain import HISTORY
from visavis.kernel import Terms
from visavis.serving import Answer, ServingVersion

NAME = ServingVersion(7, "a" * 64, "b" * 64, "c" * 64, 12, date(2026, 3, 1))
#: Below, at and beyond where one byte, and two, hold the size of what they stand before.
SIZES = (0, 1, 2, 3, 117, 127, 128, 129, 16_383, 16_384, 70_000)
NUMBERS = (0.0, -0.0, 5e-324, -5e-324, 0.1, -1.0, np.inf, -np.inf, np.nan, -np.nan)

Attributes = Mapping[int, Mapping[str, object]]


def a_version(rows: Sequence[Sequence[str]], names: Sequence[str] = ("days",)) -> Any:
    """What answers need of a version; a row is id, product, variant, message, channel, family."""
    ids, products, variants, messages, channels, families = zip(*rows, strict=True)
    needed = {j: placeholders(message) for j, message in enumerate(messages)}
    return SimpleNamespace(
        catalog=SimpleNamespace(
            capability_count=len(rows),
            ids=ids,
            products=products,
            variants=variants,
            messages=messages,
            channels=channels,
            families=families,
        ),
        placeholders={j: each for j, each in needed.items() if each},
        indicator_names=tuple(names),
    )


def an_answer(version: Any, columns: Sequence[Sequence[int]], **given: Any) -> Answer:
    """Each customer's capabilities, and whatever else is given."""
    total = sum(map(len, columns))
    ready = {
        "name": NAME,
        "customer_ids": [f"c{place}" for place in range(len(columns))],
        "errors": {},
        "opportunity_count": np.array([len(each) for each in columns], np.int32),
        "control": np.zeros(len(columns), np.bool_),
        "capability_index": np.array([j for each in columns for j in each], np.int32),
        "propensity": np.linspace(0, 1, total),
        "expected_value": np.linspace(9, 0, total),
        "reasons": None,
        "stats": {},
    }
    return Answer(version=version, **(ready | given))


PART = st.one_of(st.text(max_size=9), st.sampled_from(["{name}", "{age}", "{{", "}}", "é" * 70]))
TEXT = st.one_of(st.just(""), st.lists(PART, max_size=4).map("".join))
NUMBER = st.one_of(st.sampled_from(NUMBERS), st.floats())


@st.composite
def answers(draw: st.DrawFn, *, are_distinct: bool = False) -> tuple[Answer, Attributes]:
    """Any answer, and what is known of its customers; ids and names distinct, as they should be."""
    by_id = (lambda row: row[0]) if are_distinct else None
    rows = draw(st.lists(st.tuples(*[TEXT] * 6), min_size=1, max_size=5, unique_by=by_id))
    name = TEXT.filter(lambda text: text != HISTORY)
    names = draw(st.lists(name, max_size=3, unique=are_distinct))
    indices = st.lists(st.integers(0, len(rows) - 1), max_size=6)
    columns = draw(st.lists(indices, max_size=4))
    n, total = len(columns), sum(map(len, columns))
    given: dict[str, Any] = {
        "customer_ids": draw(st.lists(TEXT, min_size=n, max_size=n)),
        "control": draw(hnp.arrays(np.bool_, n)),
        "propensity": draw(hnp.arrays(np.float64, total, elements=NUMBER)),
        "expected_value": draw(hnp.arrays(np.float64, total, elements=NUMBER)),
    }
    if draw(st.booleans()):
        counts = draw(hnp.arrays(np.int64, total, elements=st.integers(0, 4)))
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        some = int(offsets[-1])
        given["reasons"] = Terms(
            offsets,
            draw(hnp.arrays(np.int64, some, elements=st.integers(0, len(names)))),
            draw(hnp.arrays(np.float64, some, elements=NUMBER)),
        )
    known = st.dictionaries(st.sampled_from(["name", "age"]), st.one_of(st.none(), TEXT))
    attributes = draw(st.dictionaries(st.integers(0, 4), known))
    return an_answer(a_version(rows, names), columns, **given), attributes


def reasons(**given: Any) -> Terms:
    return Terms(np.array([0, 1]), np.array([0]), np.array([0.5]))._replace(**given)
