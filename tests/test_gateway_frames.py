"""Frames of results: where they are cut, their bytes, and how far ahead they are made."""

from __future__ import annotations

import asyncio
import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.engine.matches import OPPORTUNITY_SCHEMA
from visavis.errors import CorruptionError, StorageError
from visavis.gateway import job_streams, results
from visavis.gateway.job_streams import Frames
from visavis.gateway.results import Frame, ResultReader, Spot, message_of
from visavis.rescore import Plan, Result, ResultManifest
from visavis.rescore import part as parts_of_results
from visavis.rescore.part import write_part
from visavis.rescore.results import plain
from visavis.store import Folder
from visavis.v1 import job_service_pb2, version_pb2


def a_part(rows: int, *, has_reasons: bool = True) -> pa.Table:
    """Rows as jobs write them, some of them long, with ids as dictionaries."""
    why = [[{"indicator": "i" * (n % 9), "contribution": n / 2}] * (n % 4) for n in range(rows)]
    columns = [
        pa.array([f"customer-{n // 5:06}" + "é" * (n // 5 % 40) for n in range(rows)], pa.string()),
        pa.array([n % 5 + 1 for n in range(rows)], pa.int32()),
        pa.array([f"k{n % 7}" for n in range(rows)], pa.string()),
        pa.array([n / 7 for n in range(rows)], pa.float64()),
        pa.array([n / 3 for n in range(rows)], pa.float64()),
        pa.array([n % 3 == 0 for n in range(rows)], pa.bool_()),
        pa.array(why, OPPORTUNITY_SCHEMA.field("reasons").type),
    ]
    for at in (0, 2):
        columns[at] = columns[at].dictionary_encode()
    names = OPPORTUNITY_SCHEMA.names
    if not has_reasons:
        del columns[-1], names[-1]
    fields = [
        field.with_type(column.type)
        for field, column in zip(OPPORTUNITY_SCHEMA, columns, strict=False)
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def a_result(folder: Path, *parts: pa.Table) -> Result:
    """A result that nobody computed."""
    none, place = "0" * 64, Folder(folder)
    plan = Plan(
        contract=1,
        base_version=1,
        base_digest=none,
        part_count=len(parts),
        customer_count=1,
        capability_count=1,
        catalog_digest=none,
        policy_digest=none,
        as_of=date(2026, 3, 1),
    )
    place.create("plan.json", plan.to_bytes())
    entries = tuple(write_part(place, at, each, 1, plan.job_id) for at, each in enumerate(parts))
    manifest = ResultManifest.of(plan.job_id, entries, marks_sha256=none)
    place.create("manifest.json", manifest.to_bytes())
    return Result.open(place)


def all_frames(reader: ResultReader) -> list[tuple[pa.RecordBatch, Spot, Frame]]:
    """Every frame, the rows of its part and where it begins."""
    found = []
    for index in range(reader.part_count):
        batch, row = reader.part(index), 0
        for frame in reader.frames(batch, Spot(index, 0)):
            found.append((batch, Spot(index, row), frame))
            row += frame.row_count
    return found


@pytest.mark.parametrize("has_reasons", [False, True])
def test_a_frame_is_what_arrow_itself_would_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_reasons: bool
) -> None:
    monkeypatch.setattr(results, "FRAME_BYTES", 9_000)
    parts = [a_part(rows, has_reasons=has_reasons) for rows in (0, 3_001, 1)]
    found = all_frames(ResultReader(a_result(tmp_path, *parts)))
    assert len(found) > 20
    version = version_pb2.ServingVersion(base_version=3)
    for batch, spot, frame in found:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch.slice(spot.row, frame.row_count))
        message = job_service_pb2.ReadResultsResponse.FromString(message_of(frame, version))
        assert message.arrow == sink.getvalue().to_pybytes()
        assert message.arrow_sha256 == hashlib.sha256(message.arrow).hexdigest()
        assert (message.version, message.resume_token) == (version, frame.token)
        assert (message.part_index, message.row_count) == (spot.part_index, frame.row_count)


class _Listed:
    """Weights of rows, one by one."""

    def __init__(self, weights: list[int]) -> None:
        self._sums = [0, *accumulate(weights)]

    def before(self, row: int) -> int:
        return self._sums[row]


@given(
    st.one_of(
        st.lists(st.integers(1, 100_000), max_size=60),
        # Many alike, which proportion finds at once, and one that misleads it.
        st.builds(
            lambda rows, at, weight: [50] * at + [weight] + [50] * rows,
            *(st.integers(0, 400), st.integers(0, 400), st.integers(1, 2**22)),
        ),
    ),
    st.data(),
)
def test_where_a_frame_ends_is_found_whatever_the_rows_weigh(
    weights: list[int], data: st.DataObject
) -> None:
    listed: Any = _Listed(weights)
    begin = data.draw(st.integers(0, len(weights)))
    limit = listed.before(begin) + data.draw(st.integers(0, max(1, 2 * sum(weights))))
    rows = range(begin, len(weights) + 1)
    expected = begin + bisect_right(rows, limit, key=listed.before) - 1
    assert results._last_within(listed, begin, len(weights), limit) == expected


def test_rows_that_weigh_alike_take_few_looks() -> None:
    looks = []

    class Watched(_Listed):
        def before(self, row: int) -> int:
            looks.append(row)
            return super().before(row)

    listed: Any = Watched([50 + n % 3 for n in range(200_000)])
    end = results._last_within(listed, 1_000, 200_000, 2**20)
    assert listed.before(end) <= 2**20 < listed.before(end + 1)
    assert len(looks) < 12


class _Counted(ResultReader):
    """Says how many frames were asked for, in all threads."""

    def __init__(self, result: Result) -> None:
        super().__init__(result)
        self.made = 0

    def frames(self, batch: pa.RecordBatch, spot: Spot) -> Iterator[Frame]:
        for each in super().frames(batch, spot):
            self.made += 1
            yield each


async def taken(frames: Frames) -> list[Any]:
    """The messages that are left."""
    found: list[bytes] = []
    while (made := await frames.next()) is not None:
        found.append(made)
    return [job_service_pb2.ReadResultsResponse.FromString(each) for each in found]


def test_frames_come_in_order_whatever_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A row each: parts of none, of fewer than are made at once, of as many, and beyond.
    monkeypatch.setattr(results, "FRAME_BYTES", 1)
    sizes = [*range(2 * job_streams._AT_ONCE + 2), 0]
    reader = ResultReader(a_result(tmp_path, *map(a_part, sizes)))

    async def scene(pool: ThreadPoolExecutor) -> None:
        whole = await taken(Frames(pool, reader, Spot(0, 0)))
        expected = [index for index, size in enumerate(sizes) for _ in range(max(size, 1))]
        assert [each.part_index for each in whole] == expected
        assert [each.row_count for each in whole] == [min(sizes[index], 1) for index in expected]
        for at, each in enumerate(whole):
            assert (
                await taken(Frames(pool, reader, reader.spot(each.resume_token)))
                == (whole[at + 1 :])
            )

    with ThreadPoolExecutor(2) as pool:
        asyncio.run(scene(pool))


def test_who_takes_nothing_has_few_frames_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "FRAME_BYTES", 1)
    reader = _Counted(a_result(tmp_path, a_part(100), a_part(100)))
    at_once = job_streams._AT_ONCE
    # Those that lie ready, and those whose turn to lie there comes next.
    ahead = (job_streams._AHEAD + 1) * at_once

    async def settled() -> int:
        made = -1
        while made != reader.made or made < ahead:
            made = reader.made
            await asyncio.sleep(0.05)
        return made

    async def scene(pool: ThreadPoolExecutor) -> None:
        frames = Frames(pool, reader, Spot(0, 0))
        assert await settled() == ahead
        for _ in range(3 * at_once):
            assert await frames.next()
        ahead_of_three = ahead + 3 * at_once
        while reader.made < ahead_of_three:
            await asyncio.sleep(0.01)
        assert await settled() == ahead_of_three
        # Of two that were handed over together, one is left.
        assert await frames.next()
        frames.stop()
        assert frames.is_stopped
        assert not frames._ready
        await asyncio.sleep(0.05)
        assert reader.made <= ahead_of_three + at_once

    with ThreadPoolExecutor(2) as pool:
        asyncio.run(scene(pool))


def test_what_goes_wrong_is_raised_behind_what_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "FRAME_BYTES", 1)
    result = a_result(tmp_path, a_part(5), a_part(5))
    (tmp_path / result.manifest.parts[1].file).unlink()

    async def scene(pool: ThreadPoolExecutor) -> None:
        frames = Frames(pool, ResultReader(result), Spot(0, 0))
        for _ in range(5):
            assert await frames.next()
        with pytest.raises(CorruptionError, match="is missing"):
            await frames.next()

    with ThreadPoolExecutor(2) as pool:
        asyncio.run(scene(pool))


def test_scores_are_stored_as_they_are_and_older_parts_stay_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = a_part(3_000)
    result = a_result(tmp_path / "now", part)
    content = pq.ParquetFile(tmp_path / "now" / result.manifest.parts[0].file).metadata.row_group(0)
    codecs = {
        column.path_in_schema: column.compression
        for column in map(content.column, range(content.num_columns))
    }
    assert codecs.pop("propensity") == codecs.pop("expected_value") == "UNCOMPRESSED"
    assert set(codecs.values()) == {"ZSTD"}
    assert len(codecs) == 6
    monkeypatch.setattr(parts_of_results, "_CODECS", "zstd")
    older = a_result(tmp_path / "older", part)
    assert older.manifest.parts[0].file != result.manifest.parts[0].file
    assert older.manifest.digest == result.manifest.digest
    expected = plain(part)
    for each in (result, older):
        for is_threaded in (False, True):
            assert plain(each.part(0, is_threaded=is_threaded)).equals(expected)
    frames = [
        [frame.sha256 for _, _, frame in all_frames(ResultReader(each))] for each in (result, older)
    ]
    assert frames[0] == frames[1]


def test_no_byte_of_a_part_may_change(tmp_path: Path) -> None:
    result = a_result(tmp_path, a_part(40))
    path, reader = tmp_path / result.manifest.parts[0].file, ResultReader(result)
    content = path.read_bytes()
    for at in range(0, len(content), 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
        with pytest.raises(CorruptionError):
            reader.part(0)
    for size in (0, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises((CorruptionError, StorageError)):
            reader.part(0)
    path.write_bytes(content)
    assert reader.part(0).num_rows == 40
