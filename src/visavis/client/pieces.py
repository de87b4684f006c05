"""A batch that is larger than a server takes: cut, asked piece by piece, put together again.

Every row of the answer is of one version. Pieces are asked one after the other; where a later one
was answered from another version (a fact was recorded meanwhile, say), the earlier ones are asked
again, a few rounds at most. Where that does not settle, the caller is told: a stream, whose frames
each have a version of their own, is what a busy server can answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import grpc
import pyarrow as pa

from visavis.client import decoding
from visavis.client.congestion import in_turn
from visavis.client.errors import GatewayError, RequestError, VersionChangedError
from visavis.client.results import Batch, RowError, ServingInfo, Version
from visavis.client.steps import Budget, Call, Plan, Rpc

__all__ = ["Asked", "cut_size", "in_pieces"]

#: Rounds in which pieces that came from another version are asked again.
ROUNDS_MAX: Final = 5

#: What an answer may weigh of what a message may: the ids of capabilities, and Arrow's own, are
#: not counted below.
_SHARE: Final = 0.75

#: Of a row of the answer without its texts: two codes, a rank, two numbers, a flag.
_ROW_BYTES: Final = 32
#: Of a reason without its name: a number, an offset.
_REASON_BYTES: Final = 12

#: A request's field at fault where it asks for more than an answer can hold.
_TOO_MANY: Final = ("ids", "profiles")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a batch.

    Attributes
    ----------
    customer_ids : list of str
    request : callable
        (start, end) → the MatchCustomersRequest of those rows.
    """

    customer_ids: list[str]
    request: Callable[[int, int], Any]


def cut_size(info: ServingInfo, k: int, reasons: int, customer_ids: list[str]) -> int:
    """How many customers to ask for at a time, such that the answer fits a message.

    Parameters
    ----------
    info : ServingInfo
    k : int
        Opportunities per customer, at most.
    reasons : int
        Per opportunity, at most.
    customer_ids : list of str
    """
    id_bytes = max((len(each.encode()) for each in customer_ids), default=0)
    name_bytes = max((len(name.encode()) for name in info.indicator_names), default=0)
    reason_bytes = _REASON_BYTES + max(name_bytes, len("history"))
    row_bytes = _ROW_BYTES + reasons * reason_bytes
    room = int(info.limits.message_bytes_max * _SHARE)
    fitting = room // (k * row_bytes + id_bytes + 8)
    return max(min(fitting, info.limits.customer_count_max), 1)


def in_pieces(rpc: Rpc, asked: Asked, size: int, bytes_max: int, budget: Budget) -> Plan[Batch]:
    """Ask piece by piece until all are of one version.

    Raises
    ------
    VersionChangedError
        If they are not, after a few rounds.
    """
    pieces = _cut(asked, size, bytes_max)
    answers: list[Batch | None] = [None] * len(pieces)
    newest: Version | None = None
    for _ in range(ROUNDS_MAX):
        place = 0
        while place < len(pieces):
            held = answers[place]
            if held is not None and held.version == newest:
                place += 1
                continue
            start, end = pieces[place]
            try:
                call = Call(rpc, asked.request(start, end), budget)
                answer = yield from in_turn(call, is_first=newest is None)
            except RequestError as error:
                if not _is_too_much(error) or end - start < 2:
                    raise _placed(error, start, len(pieces)) from error.__cause__
                middle = (start + end) // 2
                pieces[place : place + 1] = [(start, middle), (middle, end)]
                answers[place : place + 1] = [None, None]
                continue
            answers[place] = answered = decoding.batch(answer)
            newest = answered.version
            place += 1
        whole = [each for each in answers if each is not None]
        if all(each.version == newest for each in whole):
            return _joined(whole, [start for start, _ in pieces])
    reason = f"pieces of one batch came from several versions, {ROUNDS_MAX} times: use a stream"
    raise VersionChangedError(reason, code=grpc.StatusCode.ABORTED, reason="VERSION_CHANGED")


def _cut(asked: Asked, size: int, bytes_max: int) -> list[tuple[int, int]]:
    """Pieces of at most `size` customers, none of which weighs more than a message may."""
    pieces = []
    count = len(asked.customer_ids)
    waiting = [(start, min(start + size, count)) for start in range(0, count, size)][::-1]
    while waiting:
        first, last = waiting.pop()
        if last - first > 1 and asked.request(first, last).ByteSize() > bytes_max:
            middle = (first + last) // 2
            waiting += [(middle, last), (first, middle)]
        else:
            pieces.append((first, last))
    return pieces or [(0, 0)]


def _is_too_much(error: RequestError) -> bool:
    head = (error.field or "").partition(".")[0]
    return error.reason == "LIMIT_EXCEEDED" and head in _TOO_MANY


def _placed(error: RequestError, start: int, count: int) -> GatewayError:
    """What is wrong with a piece; where its rows begin is said, for the server counts its own."""
    if count == 1:
        return error
    return RequestError(
        f"{error.message} (rows are counted from row {start} of the batch)",
        code=error.code,
        reason=error.reason,
        field=error.field,
        metadata=error.metadata,
    )


def _joined(pieces: list[Batch], starts: list[int]) -> Batch:
    if len(pieces) == 1:
        return pieces[0]
    errors: list[RowError] = []
    for start, piece in zip(starts, pieces, strict=True):
        errors += [replace(each, row=each.row + start) for each in piece.row_errors]
    return Batch(
        version=pieces[0].version,
        customer_count=sum(piece.customer_count for piece in pieces),
        table=pa.concat_tables([piece.table for piece in pieces]),
        row_errors=tuple(errors),
    )
