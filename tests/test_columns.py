"""Answers to batches: the compiled writer's bytes are those of the generated classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from answered import NUMBERS, SIZES, Attributes, a_version, an_answer, answers, reasons
from visavis.domain import HISTORY
from visavis.errors import NotFoundError
from visavis.gateway import _columns
from visavis.gateway.answers import Cards, batch_of, framed, version_of
from visavis.gateway.codec import field_of
from visavis.kernel import Terms
from visavis.serving import Answer
from visavis.v1 import match_service_pb2 as v1
from visavis.v1.match_service_pb2 import MatchCustomersResponse
from visavis.v1.opportunity_pb2 import ENCODING_COLUMNS, OpportunityColumns

ROWS = [(f"k{j:03d}", "tea", "", "", "mail", "hot") for j in range(200)]


def little(values: Any, kind: str) -> bytes:
    return np.array(values, dtype=kind).tobytes()


def coded(texts: list[str]) -> tuple[list[str], bytes]:
    """A dictionary in the order of its bytes, and where in it each text stands."""
    held = sorted(set(texts), key=str.encode)
    place = {text: at for at, text in enumerate(held)}
    return held, little([place[text] for text in texts], "<i4")


def expected(answer: Answer) -> MatchCustomersResponse:
    """The same, of the generated classes; without what is wrong with some rows."""
    catalog, names = answer.version.catalog, (*answer.version.indicator_names, HISTORY)
    ids, index = coded([catalog.ids[j] for j in answer.capability_index.tolist()])
    columns = OpportunityColumns(
        opportunity_count=little(answer.opportunity_count, "<i4"),
        is_control=little(answer.control, "u1"),
        capability_ids=ids,
        capability_index=index,
        propensity=little(answer.propensity, "<f8"),
        expected_value=little(answer.expected_value, "<f8"),
    )
    if answer.reasons is not None:
        said, of_reasons = coded([names[at] for at in answer.reasons.name_index.tolist()])
        columns.reason_count = little(np.diff(answer.reasons.offsets), "<i4")
        columns.indicator_names.extend(said)
        columns.indicator_index = of_reasons
        columns.contribution = little(answer.reasons.contribution, "<f8")
    count = len(answer.customer_ids)
    return MatchCustomersResponse(
        version=version_of(answer.name), customer_count=count, columns=columns
    )


def assert_same(answer: Answer) -> None:
    cards = Cards(answer.version)
    for _ in range(2):
        got = batch_of(answer, cards, ENCODING_COLUMNS, "ids")
        assert got == expected(answer).SerializeToString()


@given(answers(are_distinct=True))
def test_the_bytes_are_those_of_the_generated_classes(drawn: tuple[Answer, Attributes]) -> None:
    assert_same(drawn[0])


@pytest.mark.parametrize("size", SIZES)
def test_texts_of_any_length_and_order(size: int) -> None:
    # In the order of their bytes 😀 stands behind "\uffee"; as UTF-16 it would stand before it.
    ids = ["b" * (size + 1), "a" * size, "😀", "\uffee", "é" * (size + 1)]
    rows = [(each, "tea", "", "", "mail", "hot") for each in ids]
    version = a_version(rows, ["z" * (size + 1), "y" * size])
    told = Terms(np.array([0, 3, 3, 3]), np.array([2, 0, 1]), np.array([0.5, 0.25, 0.0]))
    assert_same(an_answer(version, [[4, 1], [0]], reasons=told))
    assert_same(an_answer(version, [[3, 2], [1, 4, 0]]))


@pytest.mark.parametrize("count", [0, 1, 15, 16, 127, 128, 3_000])
@pytest.mark.parametrize("has_reasons", [False, True])
def test_any_number_of_opportunities_and_of_reasons(count: int, has_reasons: bool) -> None:
    rng = np.random.default_rng(count)
    columns = [[], rng.integers(0, 200, count).tolist(), [3], []][: None if count else 0]
    total = sum(map(len, columns))
    counts = rng.integers(0, 8, total)
    some = int(counts.sum())
    told = Terms(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
        rng.integers(0, 3, some),
        rng.choice(NUMBERS, some),
    )
    answer = an_answer(
        a_version(ROWS, ["days", "spend"]),
        columns,
        reasons=told if has_reasons else None,
        control=rng.random(len(columns)) < 0.5,
        propensity=rng.choice(NUMBERS, total),
    )
    assert_same(answer)


def test_the_columns_of_a_small_answer_are_these_bytes() -> None:
    version = a_version([(each, "tea", "", "", "mail", "hot") for each in "abc"], ["z", "a"])
    answer = an_answer(
        version,
        [[2, 0], [], [0]],
        control=np.array([False, True, False]),
        propensity=np.array([0.5, 0.25, 0.75]),
        expected_value=np.array([3.0, 1.0, 2.0]),
        reasons=Terms(np.array([0, 2, 2, 3]), np.array([0, 1, 0]), np.array([2.0, 1.0, 0.5])),
    )
    content = batch_of(answer, Cards(version), ENCODING_COLUMNS, "ids")
    assert MatchCustomersResponse.FromString(content).columns == OpportunityColumns(
        opportunity_count=b"\2\0\0\0\0\0\0\0\1\0\0\0",
        is_control=b"\0\1\0",
        capability_ids=["a", "c"],
        capability_index=b"\1\0\0\0\0\0\0\0\0\0\0\0",
        propensity=little([0.5, 0.25, 0.75], "<f8"),
        expected_value=little([3.0, 1.0, 2.0], "<f8"),
        reason_count=little([2, 0, 1], "<i4"),
        indicator_names=["a", "z"],
        indicator_index=little([1, 0, 1], "<i4"),
        contribution=little([2.0, 1.0, 0.5], "<f8"),
    )


def test_what_is_wrong_with_rows_stands_behind_the_columns() -> None:
    version = a_version(ROWS)
    answer = an_answer(
        version, [[1], [], []], errors={2: NotFoundError("x"), 1: NotFoundError("y")}
    )
    content = batch_of(answer, Cards(version), ENCODING_COLUMNS, "ids.customer_ids")
    response = MatchCustomersResponse.FromString(content)
    assert content == response.SerializeToString()
    assert [each.row_index for each in response.row_errors] == [1, 2]
    assert {each.field for each in response.row_errors} == {"ids.customer_ids"}
    wanted = expected(answer)
    wanted.row_errors.extend(response.row_errors)
    assert response == wanted


def test_arrays_that_nobody_may_write_or_that_skip() -> None:
    version = a_version(ROWS)
    control = np.array([[True, False], [True, True]])[:, 0]
    told = Terms(np.array([0, 1, 1, 2]), np.array([0, 1]), np.array([0.5, 0.25]))
    answer = an_answer(version, [[1, 0], [0]], control=control, reasons=told)
    skipping = np.stack([answer.expected_value] * 2, axis=1)[:, 1]
    for array in (
        *(answer.opportunity_count, answer.capability_index, answer.propensity, control),
        *(skipping, *told),
    ):
        array.flags.writeable = False
    assert_same(replace(answer, expected_value=skipping))
    whole = np.array([True, True])
    whole.flags.writeable = False
    assert_same(replace(answer, control=whole))


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from(SIZES))
def test_a_frame_is_that_of_the_generated_classes(frame_id: int, size: int) -> None:
    match = MatchCustomersResponse(arrow=b"x" * size)
    wanted = v1.StreamMatchesResponse(frame_id=frame_id, match=match)
    assert framed(frame_id, match.SerializeToString()) == wanted.SerializeToString()


def one() -> dict[str, Any]:
    """Arguments of the writer that are right: one opportunity for one reason."""
    return {
        "begun": b"",
        "ended": b"",
        "opportunity_count": np.array([1], np.int32),
        "is_control": np.array([False]),
        "capability_index": np.array([0], np.int32),
        "propensity": np.array([0.5]),
        "expected_value": np.array([0.5]),
        "capability_ids": _columns.Texts(3, ["k"]),
        "reasons": reasons(),
        "indicator_names": _columns.Texts(8, ["x"]),
    }


INT32, FLAGS = np.int32, {"is_control": np.array([False, True])}
COUNTS, KIND, LAYOUT = "counts are not", "mismatch", "contiguous"
OFFSETS, OUTSIDE = "offsets are not", "outside its texts"


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"begun": None}, TypeError, "begun"),
        ({"ended": "text"}, TypeError, "ended"),
        ({"opportunity_count": np.array([2], INT32)}, ValueError, COUNTS),
        ({"opportunity_count": np.array([0], INT32)}, ValueError, COUNTS),
        ({"opportunity_count": np.array([2, -1], INT32), **FLAGS}, ValueError, COUNTS),
        ({"opportunity_count": np.array([1, 0], INT32)}, ValueError, "control flag"),
        ({"opportunity_count": np.array([1])}, ValueError, KIND),
        ({"opportunity_count": np.array([[1]], INT32)}, ValueError, "dimensions"),
        ({"opportunity_count": np.array([1, 9, 0, 9], INT32)[::2]}, ValueError, LAYOUT),
        ({"is_control": np.array([], np.bool_)}, ValueError, "control flag"),
        ({"is_control": np.array([0], np.int8)}, ValueError, KIND),
        ({"capability_index": np.array([1], INT32)}, IndexError, OUTSIDE),
        ({"capability_index": np.array([-1], INT32)}, IndexError, OUTSIDE),
        ({"capability_index": np.array([0, 0], INT32)}, ValueError, "for each opportunity"),
        ({"capability_index": np.array([0.0])}, ValueError, KIND),
        ({"propensity": np.array([])}, ValueError, "for each opportunity"),
        ({"propensity": np.array([0.5], np.float32)}, ValueError, KIND),
        ({"expected_value": np.array([])}, ValueError, "for each opportunity"),
        ({"expected_value": None}, TypeError, "expected_value"),
        ({"capability_ids": None}, TypeError, "capability_ids"),
        ({"capability_ids": _columns.Texts(3, [])}, IndexError, OUTSIDE),
        ({"indicator_names": _columns.Texts(8, [])}, IndexError, OUTSIDE),
        ({"indicator_names": ["x"]}, TypeError, "indicator_names"),
        ({"reasons": (None, None, None)}, TypeError, "three arrays"),
        ({"reasons": reasons(offsets=np.array([0]))}, ValueError, OFFSETS),
        ({"reasons": reasons(offsets=np.array([0, 2]))}, ValueError, OFFSETS),
        ({"reasons": reasons(offsets=np.array([-1, 1]))}, ValueError, OFFSETS),
        ({"reasons": reasons(offsets=np.array([1, 1]))}, ValueError, OFFSETS),
        ({"reasons": reasons(name_index=np.array([1]))}, IndexError, OUTSIDE),
        ({"reasons": reasons(name_index=np.array([-1]))}, IndexError, OUTSIDE),
        ({"reasons": reasons(name_index=np.array([2**40]))}, IndexError, OUTSIDE),
        ({"reasons": reasons(name_index=np.array([0], INT32))}, ValueError, KIND),
        ({"reasons": reasons(contribution=np.array([]))}, ValueError, OFFSETS),
    ],
)
def test_what_does_not_fit_is_refused(wrong: dict[str, Any], error: Any, said: str) -> None:
    assert _columns.written(**one())
    with pytest.raises(error, match=said):
        _columns.written(**(one() | wrong))


def test_offsets_that_go_back_are_refused() -> None:
    two = {
        "opportunity_count": np.array([2], np.int32),
        "capability_index": np.array([0, 0], np.int32),
        "propensity": np.array([0.5, 0.5]),
        "expected_value": np.array([0.5, 0.5]),
    }
    assert _columns.written(**(one() | two | {"reasons": reasons(offsets=np.array([0, 1, 1]))}))
    with pytest.raises(ValueError, match=OFFSETS):
        _columns.written(**(one() | two | {"reasons": reasons(offsets=np.array([0, 2, 1]))}))


@pytest.mark.parametrize("field", [1, 15, 16, 2_047, 2_048])
def test_fields_of_any_number(field: int) -> None:
    begun = b"".join(field_of(field, b"ab", b"c"))
    tag = field << 3 | 2
    wanted = bytearray()
    while tag > 127:
        wanted.append(tag & 127 | 128)
        tag >>= 7
    assert begun == bytes([*wanted, tag, 3]) + b"abc"


@pytest.mark.parametrize(
    ("texts", "error"),
    [(None, TypeError), ([b"x"], AttributeError), (["\ud800"], UnicodeEncodeError)],
)
def test_what_is_no_text_is_refused(texts: Any, error: Any) -> None:
    with pytest.raises(error):
        _columns.Texts(3, texts)
