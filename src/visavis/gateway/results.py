"""Frames of ReadResults: rows of a part as whole Arrow IPC streams, and what goes on behind each.

::

    part file ─► mapped, sha256 ─► columns ─► rows of a frame ─► Arrow IPC, sha256 ─► message
    (the next one while frames of this one are made)      (each in a thread, a few frames ahead)

Where frames are cut depends on the result and on where one begins alone, so whoever goes on in the
middle gets the frames that would have come. A resume token holds the place itself and nothing is
kept for it; it says of which result it is, and carries a digest over all of that.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import grpc
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from visavis.errors import CorruptionError, InputError, LimitError
from visavis.gateway.codec import field_of
from visavis.gateway.errors import RefusedError
from visavis.gateway.limits import MESSAGE_BYTES_MAX
from visavis.rescore import Result
from visavis.rescore.results import plain
from visavis.store import Place, bytes_digest
from visavis.v1 import job_service_pb2 as v1
from visavis.v1 import version_pb2

__all__ = ["Frame", "ResultReader", "Spot", "message_of", "opened"]

#: What the columns of a frame may weigh: much more keeps the event loop from others while it is
#: written, much less is spent on headers.
FRAME_BYTES: Final = 2**20

#: What a frame weighs beside its columns: schema, metadata and padding of Arrow, and the rest of
#: the message.
_SLACK: Final = 16 * 2**10

#: Format, job, result, part, row; then a digest over them.
_TOKEN: Final = struct.Struct(">B16s16sIQ")
_TOKEN_FORMAT: Final = 1
_SEAL: Final = 8

#: Of a row: rank, propensity, expected value, and a bit for each column that could have nulls.
_ROW_BYTES: Final = 4 + 8 + 8 + 2

#: Of an element of a list: two numbers and an offset.
_REASON_BYTES: Final = 8 + 4 + 1

#: Ends a stream: no more messages.
_ARROW_END: Final = b"\xff\xff\xff\xff\0\0\0\0"

Offsets = npt.NDArray[np.int32]


class Spot(NamedTuple):
    """A place in a result: the row that comes next.

    Attributes
    ----------
    part_index, row : int
    """

    part_index: int
    row: int


class Frame(NamedTuple):
    """Some rows of one part; see ReadResultsResponse.

    Attributes
    ----------
    arrow : tuple of buffers
        One whole Arrow IPC stream, end to end.
    sha256 : str
        Of `arrow`, in hex.
    token : str
        Goes on behind it.
    part_index, row_count : int
    is_part_end : bool
    part_digest, result_digest : str
        Empty but where the part, the last part ends.
    """

    arrow: tuple[pa.Buffer | bytes, ...]
    sha256: str
    token: str
    part_index: int
    row_count: int
    is_part_end: bool
    part_digest: str
    result_digest: str


def opened(place: Place) -> Result:
    """The result of a job that has succeeded.

    Raises
    ------
    CorruptionError
        If it is not there as it was published.
    """
    try:
        return Result.open(place)
    except InputError as error:
        raise CorruptionError(str(error)) from error


def message_of(frame: Frame, version: version_pb2.ServingVersion) -> bytes:
    """A frame as the bytes of its ReadResultsResponse.

    The columns are put before the rest, as protobuf allows.
    """
    rest = v1.ReadResultsResponse(
        version=version,
        arrow_sha256=frame.sha256,
        resume_token=frame.token,
        part_index=frame.part_index,
        row_count=frame.row_count,
        is_part_end=frame.is_part_end,
        part_digest=frame.part_digest,
        result_digest=frame.result_digest,
    )
    columns = field_of(v1.ReadResultsResponse.ARROW_FIELD_NUMBER, *frame.arrow)
    return b"".join((*columns, rest.SerializeToString()))


class ResultReader:
    """Frames of one result; any number of threads may ask.

    Parameters
    ----------
    result : Result
    """

    def __init__(self, result: Result) -> None:
        self.result = result
        self._names = (
            bytes.fromhex(result.manifest.job_id)[:16],
            bytes.fromhex(bytes_digest(result.manifest.to_bytes()))[:16],
        )

    @property
    def part_count(self) -> int:
        """How many parts there are."""
        return len(self.result.manifest.parts)

    def spot(self, token: str) -> Spot:
        """Where a token goes on; the beginning without one.

        Raises
        ------
        RefusedError
            If no server gave it for this result.
        """
        if not token:
            return Spot(0, 0)
        try:
            held = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
            said, seal = held[:-_SEAL], held[-_SEAL:]
            number, job, manifest, part_index, row = _TOKEN.unpack(said)
        except (ValueError, binascii.Error, struct.error):
            raise _no_token() from None
        if number != _TOKEN_FORMAT or (job, manifest) != self._names or _sealed(said) != seal:
            raise _no_token()
        parts = self.result.manifest.parts
        is_end = (part_index, row) == (len(parts), 0)
        # Behind the last row there is a frame only where the part has none.
        if not is_end and (
            part_index >= len(parts) or row >= max(1, parts[part_index].opportunity_count)
        ):
            raise _no_token()
        return Spot(part_index, row)

    def token(self, spot: Spot) -> str:
        """What goes on at a place."""
        said = _TOKEN.pack(_TOKEN_FORMAT, *self._names, *spot)
        return base64.urlsafe_b64encode(said + _sealed(said)).decode()

    def part(self, index: int) -> pa.RecordBatch:
        """The rows of a part, every byte of its file checked.

        Raises
        ------
        CorruptionError
        """
        table = plain(self.result.part(index, is_threaded=False)).combine_chunks()
        batches = table.to_batches()
        if not batches:
            return pa.RecordBatch.from_pylist([], schema=table.schema)
        assert len(batches) == 1  # noqa: S101 (its chunks were combined)
        return batches[0]

    def frames(self, batch: pa.RecordBatch, spot: Spot) -> Iterator[Frame]:
        """The frames of a part, from a row on; each is made when it is asked for.

        Raises
        ------
        LimitError
            If no message can hold a row.
        """
        entry = self.result.manifest.parts[spot.part_index]
        is_last = spot.part_index + 1 == self.part_count
        schema = batch.schema.serialize()
        weights, begin = _Weights(batch), spot.row
        while True:
            end = _cut(weights, begin, batch.num_rows)
            # Of its exact size, where a writer's sink grows and is copied.
            arrow = (schema, batch.slice(begin, end - begin).serialize(), _ARROW_END)
            is_end = end == batch.num_rows
            after = Spot(spot.part_index + 1, 0) if is_end else Spot(spot.part_index, end)
            yield Frame(
                arrow,
                _digest(arrow),
                self.token(after),
                spot.part_index,
                end - begin,
                is_end,
                entry.digest if is_end else "",
                self.result.manifest.digest if is_end and is_last else "",
            )
            if is_end:
                return
            begin = end


class _Weights:
    """What rows of a part weigh in a frame, in bytes: looked up, not laid out for all rows."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._row_bytes = _ROW_BYTES
        self._texts: list[Offsets] = []
        self._lists: list[tuple[Offsets, Offsets]] = []
        for column in batch.columns:
            if pa.types.is_string(column.type):
                self._texts.append(_offsets(column))
            elif pa.types.is_list(column.type):
                names = column.values.field("indicator")
                self._lists.append((_offsets(column), _offsets(names)))
        self._row_bytes += 4 * (len(self._texts) + len(self._lists))

    def before(self, row: int) -> int:
        """What the rows before one weigh."""
        weight = row * self._row_bytes + sum(int(ends[row]) for ends in self._texts)
        for ends, names in self._lists:
            count = int(ends[row])
            weight += count * _REASON_BYTES + int(names[count])
        return weight


def _offsets(column: pa.Array) -> Offsets:
    """Where the cells of a column of texts or lists begin, and where the last one ends."""
    if not len(column):
        return np.zeros(1, dtype=np.int32)
    bounds = np.frombuffer(column.buffers()[1], dtype=np.int32)
    return bounds[column.offset : column.offset + len(column) + 1]


def _cut(weights: _Weights, begin: int, count: int) -> int:
    """Where a frame that begins at a row ends: at least a row further, if there is one."""
    weight_before = weights.before(begin)
    end = _last_within(weights, begin, count, weight_before + FRAME_BYTES)
    end = min(max(end, begin + 1), count)
    weight = weights.before(end) - weight_before
    if weight > MESSAGE_BYTES_MAX - _SLACK:
        reason = f"holds an opportunity of {weight} bytes, which no message can carry"
        raise LimitError(reason, field="job_id")
    return end


def _last_within(weights: _Weights, low: int, high: int, limit: int) -> int:
    """The last row of `low` … `high` before which there are no more than `limit` bytes.

    Rows that weigh about the same are found by proportion in a few looks; every other look halves
    what is left, whatever they weigh.
    """
    weight_low, weight_high = weights.before(low), weights.before(high)
    if weight_high <= limit:
        return high
    is_even = False
    while high - low > 1:
        step = (high - low) * (limit - weight_low) // (weight_high - weight_low)
        row = (low + high) // 2 if is_even else min(max(low + step, low + 1), high - 1)
        weight = weights.before(row)
        if weight <= limit:
            low, weight_low = row, weight
        else:
            high, weight_high = row, weight
        is_even = not is_even
    return low


def _digest(pieces: tuple[pa.Buffer | bytes, ...]) -> str:
    found = hashlib.sha256()
    for piece in pieces:
        found.update(piece)
    return found.hexdigest()


def _sealed(said: bytes) -> bytes:
    return hashlib.sha256(b"results\0" + said).digest()[:_SEAL]


def _no_token() -> RefusedError:
    reason = "was not given for this result"
    return RefusedError(
        grpc.StatusCode.INVALID_ARGUMENT, "INVALID_TOKEN", reason, field="resume_token"
    )
