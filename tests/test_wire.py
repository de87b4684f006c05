"""Answers to single customers: the compiled writer's bytes are those of the generated classes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from answered import NAME, NUMBERS, SIZES, Attributes, a_version, an_answer, answers, reasons
from visavis.catalog.wording import filled_in
from visavis.domain import HISTORY
from visavis.gateway import _wire
from visavis.gateway.answers import Cards, customers_of, version_of
from visavis.gateway.naming import named_opportunity, opportunity_namer
from visavis.kernel import Terms
from visavis.serving import Answer
from visavis.v1.match_service_pb2 import MatchCustomerResponse


def expected(answer: Answer, attributes: Attributes) -> list[bytes]:
    """The same, of the generated classes."""
    version, reasons = answer.version, answer.reasons
    catalog, names = version.catalog, (*version.indicator_names, HISTORY)
    spans = None if reasons is None else list(pairwise(reasons.offsets.tolist()))
    responses, start = [], 0
    for place, count in enumerate(answer.opportunity_count.tolist()):
        response = MatchCustomerResponse(
            version=version_of(answer.name), customer_id=answer.customer_ids[place]
        )
        name = opportunity_namer(answer.customer_ids[place])
        for row in range(start, start + count):
            j = int(answer.capability_index[row])
            known = attributes.get(place, {}) if j in version.placeholders else {}
            said = response.opportunities.add(
                opportunity_id=name(catalog.ids[j]),
                capability_id=catalog.ids[j],
                product=catalog.products[j],
                variant=catalog.variants[j],
                message_text=filled_in(catalog.messages[j], known),
                channel=catalog.channels[j],
                family=catalog.families[j],
                rank=row - start + 1,
                propensity=answer.propensity[row],
                expected_value=answer.expected_value[row],
                is_control=answer.control[place],
            )
            for at in range(*spans[row]) if spans is not None else ():
                said.reasons.add(
                    indicator=names[reasons.name_index[at]], contribution=reasons.contribution[at]
                )
        start += count
        responses.append(response.SerializeToString())
    return responses


def assert_same(answer: Answer, attributes: Attributes | None = None) -> None:
    cards = Cards(answer.version)
    wanted = expected(answer, attributes or {})
    # The second time, nothing is made anew.
    for _ in range(2):
        got = customers_of(answer, cards, attributes or {})
        assert got == wanted
        assert all(type(each) is bytes for each in got)


@given(answers())
def test_the_bytes_are_those_of_the_generated_classes(drawn: tuple[Answer, Attributes]) -> None:
    assert_same(*drawn)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("field", range(6))
def test_texts_of_any_length(field: int, size: int) -> None:
    plain = ["id", "tea", "green", "Tea, {{now}}", "mail", "hot"]
    for letter in "ab":
        row = [*plain[:field], letter * size, *plain[field + 1 :]]
        assert_same(an_answer(a_version([plain, row]), [[1], [], [0, 1]]))


@pytest.mark.parametrize("size", SIZES)
def test_customers_names_and_filled_in_texts_of_any_length(size: int) -> None:
    version = a_version([("id", "tea", "", "Dear {name}", "mail", "hot")], ["é" * size])
    reasons = Terms(np.array([0, 2, 2]), np.array([0, 1]), np.array([0.5, 0.0]))
    answer = an_answer(version, [[0], [0]], reasons=reasons, customer_ids=["c" * size, "ü" * size])
    # To the first, the message has nothing to say.
    assert_same(answer, {1: {"name": "n" * size}})


@pytest.mark.parametrize("count", [0, 1, 127, 128, 129, 3000])
def test_any_number_of_opportunities_and_of_reasons(count: int) -> None:
    rows = [(f"k{j}", "tea", "", "", "mail", "hot") for j in range(40)]
    rng = np.random.default_rng(count)
    columns = [[], rng.integers(0, 40, count).tolist(), [3], []]
    counts = rng.integers(0, 8, count + 1)
    counts[-1] = count
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    some = int(offsets[-1])
    reasons = Terms(offsets, rng.integers(0, 3, some), rng.choice(NUMBERS, some))
    control = np.array([True, True, False, False])
    version = a_version(rows, ["days", "spend"])
    assert_same(an_answer(version, columns, reasons=reasons, control=control))


@pytest.mark.parametrize("propensity", NUMBERS)
@pytest.mark.parametrize("expected_value", NUMBERS)
def test_every_number_but_zero_is_written(propensity: float, expected_value: float) -> None:
    answer = an_answer(
        a_version([("id", "tea", "", "", "mail", "hot")]),
        [[0]],
        propensity=np.array([propensity]),
        expected_value=np.array([expected_value]),
    )
    assert_same(answer)


@given(st.text(), st.text())
def test_its_ids_say_whose_they_are(customer_id: str, capability_id: str) -> None:
    version = a_version([(capability_id, "tea", "", "", "mail", "hot")])
    answer = an_answer(version, [[0]], customer_ids=[customer_id])
    (content,) = customers_of(answer, Cards(version), {})
    (said,) = MatchCustomerResponse.FromString(content).opportunities
    assert said.opportunity_id == opportunity_namer(customer_id)(capability_id)
    told = named_opportunity(said.opportunity_id, field="x", row=0)
    assert told == (customer_id, capability_id)


def test_an_answer_begins_with_its_own_version() -> None:
    version = a_version([("id", "tea", "", "", "mail", "hot")])
    cards = Cards(version)
    for name in (NAME, NAME._replace(journal_offset=0, base_version=0), NAME, NAME._replace()):
        answer = an_answer(version, [[0], []], name=name)
        assert customers_of(answer, cards, {}) == expected(answer, {})


def test_arrays_that_nobody_may_write_or_that_skip() -> None:
    version = a_version([("a", "tea", "", "", "mail", "hot"), ("b", "tea", "", "", "shop", "hot")])
    control = np.array([[True, False], [True, True]])[:, 0]
    answer = an_answer(version, [[1, 0], [0]], control=control)
    propensity = np.stack([answer.propensity] * 2, axis=1)[:, 1]
    for array in (propensity, answer.capability_index, answer.opportunity_count):
        array.flags.writeable = False
    skipping = replace(answer, propensity=propensity)
    assert customers_of(skipping, Cards(version), {}) == expected(answer, {})


def raises(place: int, j: int) -> bytes:
    raise ZeroDivisionError(place, j)


def one() -> dict[str, Any]:
    """Arguments of the writer that are right: one opportunity for one reason."""
    return {
        "version": b"",
        "check": 0,
        "customer_ids": ["c"],
        "opportunity_count": np.array([1], np.int32),
        "control": np.array([False]),
        "capability_index": np.array([0], np.int32),
        "propensity": np.array([0.5]),
        "expected_value": np.array([0.5]),
        "reasons": reasons(),
        "names": [b"\n\1x"],
        "cards": [_wire.Card(b"k", b"\x12\1k", b"", True)],
        "make_card": None,
        "message": lambda *_: b"",
    }


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("customer_ids", []),
        ("opportunity_count", np.array([2], np.int32)),
        ("opportunity_count", np.array([1, 1], np.int32)),
        ("opportunity_count", np.array([2**31 - 1], np.int32)),
        ("control", np.array([], np.bool_)),
        ("capability_index", np.array([1], np.int32)),
        ("capability_index", np.array([-1], np.int32)),
        ("propensity", np.array([])),
        ("expected_value", np.array([])),
        ("reasons", reasons(offsets=np.array([0]))),
        ("reasons", reasons(offsets=np.array([0, 2]))),
        ("reasons", reasons(offsets=np.array([-1, 1]))),
        ("reasons", reasons(offsets=np.array([0, 2**62]))),
        ("reasons", reasons(name_index=np.array([1]))),
        ("reasons", reasons(name_index=np.array([-1]))),
        ("reasons", reasons(name_index=np.array([2**40]))),
        ("reasons", reasons(contribution=np.array([]))),
        ("names", []),
        ("cards", []),
    ],
)
def test_nothing_is_read_beyond_its_end(name: str, wrong: Any) -> None:
    assert len(_wire.written(**one())) == 1
    with pytest.raises(IndexError):
        _wire.written(**(one() | {name: wrong}))


@pytest.mark.parametrize(
    ("name", "wrong", "error"),
    [
        ("version", None, TypeError),
        ("check", 2**32, OverflowError),
        ("customer_ids", [b"c"], TypeError),
        ("customer_ids", ["\ud800"], UnicodeEncodeError),
        ("opportunity_count", np.array([-1], np.int32), ValueError),
        ("opportunity_count", np.array([2**31]), ValueError),
        ("opportunity_count", np.array([1], np.uint32), ValueError),
        ("opportunity_count", np.array([[1]], np.int32), ValueError),
        ("opportunity_count", np.zeros(1, "i4,i4"), ValueError),
        ("control", np.array([0], np.uint8), ValueError),
        ("capability_index", np.array([0.0]), ValueError),
        ("propensity", np.array([0.5], np.float32), ValueError),
        ("reasons", (None, None, None), TypeError),
        ("reasons", reasons(name_index=None), TypeError),
        ("reasons", reasons(name_index=np.array([0], ">i8")), ValueError),
        ("reasons", reasons(contribution=None), TypeError),
        ("names", ["x"], TypeError),
        ("names", [None], TypeError),
        ("cards", [b"k"], TypeError),
        ("cards", [None], TypeError),
        ("message", lambda *_: "text", TypeError),
        ("message", lambda *_: None, TypeError),
        ("message", raises, ZeroDivisionError),
    ],
)
def test_what_is_none_of_its_types_is_refused(name: str, wrong: Any, error: Any) -> None:
    with pytest.raises(error):
        _wire.written(**(one() | {name: wrong}))
