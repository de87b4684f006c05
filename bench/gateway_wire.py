"""As much of a gRPC client as the generator of load needs, for little of a processor.

What gRPC's own client spends on a call is missing for a server on the same processors. Here a call
is two small frames and a look at those of the answer. What a client's
library does, and a server relies on, is done alike: no more streams than the server allows, the
others wait in order; its windows and pings; a deadline that is told, and cancels; and streams that
the transport refused unread are sent again.

Unary calls without compression over cleartext HTTP/2; header fields are indexed after the first
call, as gRPC does. The server is told to index none, so that equal blocks mean the same.
"""

from __future__ import annotations

import asyncio
import base64
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import grpc
from hpack import Decoder

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    *(0, 1, 3, 4, 6, 7, 8, 9),
)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
TABLE_SIZE, ENABLE_PUSH, STREAMS_MAX, WINDOW = 1, 2, 3, 4
REFUSED_STREAM, CANCEL = 7, 8
WINDOW_MAX: Final = 2**31 - 1
FRAME_MAX: Final = 2**14
#: Of a stream and of the connection, until the server says otherwise.
WINDOW_FIRST: Final = 65_535

CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
Code = grpc.StatusCode


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """One frame of HTTP/2."""
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def indexed(name: str, value: str) -> bytes:
    """A header field that the server shall remember; both shorter than 127 bytes."""
    given = name.encode(), value.encode()
    return b"\x40" + b"".join(bytes([len(each)]) + each for each in given)


class Failed(grpc.aio.AioRpcError):
    """A call that did not end with OK."""

    def __init__(self, code: grpc.StatusCode, details: str = "", trailers: object = ()) -> None:
        given = grpc.aio.Metadata(*trailers) if trailers else grpc.aio.Metadata()
        super().__init__(code, grpc.aio.Metadata(), given, details)


class _Call:
    """One that waits for a stream, or for its answer."""

    __slots__ = ("answer", "content", "ends", "path", "received", "stream", "timer")

    def __init__(self, path: str, content: bytes, ends: float, answer: asyncio.Future[bytes]):
        self.path = path
        self.content = content
        self.ends = ends
        self.answer = answer
        self.received = bytearray()
        self.stream = 0
        self.timer: asyncio.TimerHandle | None = None


class Connection(asyncio.Protocol):
    """A connection to one server; make it with `connected`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._read = bytearray()
        self._sending: list[bytes] = []
        self._waiting: deque[_Call] = deque()
        self._open: dict[int, _Call] = {}
        self._stream = 1
        self._fields: dict[str, bytes] = {}
        self._decoder = Decoder()
        self._blocks: dict[bytes, dict[str, str | bytes]] = {}
        self._block = b""
        self._streams_max = 100
        self._stream_window = self._window = WINDOW_FIRST
        self._unread = 0

    def unary(self, path: str) -> Callable[..., Awaitable[bytes]]:
        """What calls a method: bytes to bytes, as a stub's multicallable does."""

        def call(request: bytes, timeout: float) -> Awaitable[bytes]:
            answer: asyncio.Future[bytes] = self._loop.create_future()
            one = _Call(path, request, self._loop.time() + timeout, answer)
            one.timer = self._loop.call_at(one.ends, self._expire, one)
            self._waiting.append(one)
            self._begin()
            return answer

        return call

    def close(self) -> None:
        """End it."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what this side allows."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        told = ((TABLE_SIZE, 0), (ENABLE_PUSH, 0), (WINDOW, WINDOW_MAX))
        settings = b"".join(struct.pack(">HI", *each) for each in told)
        self._send(PREFACE, frame(SETTINGS, 0, 0, settings))
        self._send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW_MAX - WINDOW_FIRST)))

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        """Nobody gets an answer any more."""
        for call in (*self._open.values(), *self._waiting):
            self._fail(call, Failed(Code.UNAVAILABLE, "the connection is lost"))
        self._open.clear()
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        """Take frames out of what has come."""
        read = self._read
        read += data
        begin = 0
        while len(read) - begin >= 9:
            size = int.from_bytes(read[begin : begin + 3], "big")
            if len(read) - begin - 9 < size:
                break
            kind, flags, stream = struct.unpack_from(">BBI", read, begin + 3)
            self._frame(kind, flags, stream, bytes(read[begin + 9 : begin + 9 + size]))
            begin += 9 + size
        del read[:begin]
        self._begin()

    def _frame(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        if kind == DATA:
            self._unread += len(body)
            if self._unread > WINDOW_MAX // 2:
                self._send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._unread)))
                self._unread = 0
            if stream in self._open:
                self._open[stream].received += body
        elif kind in (HEADERS, CONTINUATION):
            self._block = body if kind == HEADERS else self._block + body
            if flags & END_HEADERS:
                self._told(stream, self._decoded(self._block))
        elif kind == SETTINGS and not flags & ACK:
            self._settings(body)
        elif kind == PING and not flags & ACK:
            self._send(frame(PING, ACK, 0, body))
        elif kind == WINDOW_UPDATE and not stream:
            self._window += int.from_bytes(body, "big")
        elif kind == RST_STREAM and stream in self._open:
            self._reset(self._open.pop(stream), int.from_bytes(body, "big"))
        elif kind == GOAWAY:
            # What is open is answered still; the rest would need another connection.
            while self._waiting:
                self._fail(self._waiting.popleft(), Failed(Code.UNAVAILABLE, "GOAWAY"))

    def _settings(self, body: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", body):
            if name == STREAMS_MAX:
                self._streams_max = value
            elif name == WINDOW:
                self._stream_window = value
        self._send(frame(SETTINGS, ACK, 0))
        if not self.ready.done():
            self.ready.set_result(None)

    def _decoded(self, block: bytes) -> dict[str, str | bytes]:
        fields = self._blocks.get(block)
        if fields is None:
            fields = dict(self._decoder.decode(block))
            if len(self._blocks) < 1_000:
                self._blocks[block] = fields
        return fields

    def _told(self, stream: int, fields: dict[str, str | bytes]) -> None:
        """Trailers end a call; the headers before them say nothing."""
        number = fields.get("grpc-status")
        if number is None or stream not in self._open:
            return
        call = self._open.pop(stream)
        if number == "0":
            self._end(call, bytes(call.received[5:]))
            return
        code = CODES.get(int(number), Code.UNKNOWN)
        self._fail(call, Failed(code, str(fields.get("grpc-message", "")), _binary(fields)))

    def _reset(self, call: _Call, code: int) -> None:
        if code == REFUSED_STREAM and not call.answer.done():
            # Nobody has seen it: every client's library sends it again.
            call.received.clear()
            self._waiting.appendleft(call)
            return
        status = Code.CANCELLED if code == CANCEL else Code.UNAVAILABLE
        self._fail(call, Failed(status, f"RST_STREAM {code}"))

    def _begin(self) -> None:
        """Open streams for those that wait, as far as the server has room."""
        waiting = self._waiting
        while waiting and len(self._open) < self._streams_max:
            call = waiting[0]
            if call.answer.done():
                waiting.popleft()
                continue
            size = len(call.content) + 5
            if size > self._window or size > self._stream_window or not self.ready.done():
                return
            waiting.popleft()
            self._window -= size
            call.stream, self._stream = self._stream, self._stream + 2
            self._open[call.stream] = call
            self._send(frame(HEADERS, END_HEADERS, call.stream, self._headers(call)))
            content = b"\0" + struct.pack(">I", len(call.content)) + call.content
            for at in range(0, size, FRAME_MAX):
                flags = END_STREAM if at + FRAME_MAX >= size else 0
                self._send(frame(DATA, flags, call.stream, content[at : at + FRAME_MAX]))

    def _headers(self, call: _Call) -> bytes:
        left_us = max(1, round((call.ends - self._loop.time()) * 1e6))
        told = f"{left_us}u".encode()
        timeout = b"\0\x0cgrpc-timeout" + bytes([len(told)]) + told
        known = self._fields.get(call.path)
        if known is not None:
            return known + timeout
        assert not self._fields, "a connection calls one method"
        fields = {
            ":path": call.path,
            ":authority": "gateway",
            "te": "trailers",
            "content-type": "application/grpc",
            "user-agent": "grpc-load/1",
        }
        # The last one remembered is the first of the dynamic table, behind 61 static fields.
        post, http = b"\x83", b"\x86"
        remembered = bytes(0x80 | 62 + place for place in reversed(range(len(fields))))
        self._fields[call.path] = post + http + remembered
        return post + http + b"".join(indexed(*each) for each in fields.items()) + timeout

    def _expire(self, call: _Call) -> None:
        if call.answer.done():
            return
        if call.stream in self._open:
            del self._open[call.stream]
            self._send(frame(RST_STREAM, 0, call.stream, struct.pack(">I", CANCEL)))
        self._fail(call, Failed(Code.DEADLINE_EXCEEDED, "Deadline Exceeded"))
        self._begin()

    @staticmethod
    def _is_waited_for(call: _Call) -> bool:
        """Whether somebody still waits; the clock does not, from now on."""
        if call.timer is not None:
            call.timer.cancel()
        return not call.answer.done()

    def _end(self, call: _Call, content: bytes) -> None:
        if self._is_waited_for(call):
            call.answer.set_result(content)

    def _fail(self, call: _Call, error: Failed) -> None:
        if self._is_waited_for(call):
            call.answer.set_exception(error)

    def _send(self, *frames: bytes) -> None:
        """With what else is sent in this turn of the loop: one system call for all of it."""
        if not self._sending:
            self._loop.call_soon(self._flush)
        self._sending += frames

    def _flush(self) -> None:
        sending, self._sending = self._sending, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(sending))


def _binary(fields: dict[str, str | bytes]) -> list[tuple[str, bytes]]:
    """The trailers that hold bytes."""
    found = []
    for name, value in fields.items():
        if name.endswith("-bin"):
            text = value if isinstance(value, bytes) else value.encode()
            found.append((name, base64.b64decode(text + b"=" * (-len(text) % 4))))
    return found


async def connected(port: int) -> Connection:
    """A connection to this machine's port, once the server has said what it allows."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
    await connection.ready
    return connection
