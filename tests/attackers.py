"""What hostile clients do to a gateway, each in a process of its own: ``attackers.py NAME PORT``.

They speak HTTP/2 by hand where gRPC's own client is too polite. Each goes on until its input ends,
and then says in a line of JSON what it saw.
"""

from __future__ import annotations

import json
import os
import random
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from gateways import IDS, batch_request
from visavis.v1 import match_service_pb2

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING = 0, 1, 3, 4, 6
END_STREAM, ACK, END_HEADERS = 1, 1, 4

MATCH = "/visavis.v1.MatchService/"


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def settings(*, window: int | None = None) -> bytes:
    body = b"" if window is None else struct.pack(">HI", 4, window)
    return frame(SETTINGS, 0, 0, body)


def literal(name: str, value: str) -> bytes:
    """A header field that no table remembers; both sides shorter than 127 bytes."""
    given = name.encode(), value.encode()
    return b"\0" + b"".join(bytes([len(each)]) + each for each in given)


def headers(method: str, stream: int, flags: int = END_HEADERS) -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": "gateway",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b"".join(literal(name, value) for name, value in fields.items())
    return frame(HEADERS, flags, stream, block)


def message(stream: int, content: bytes, flags: int = 0) -> bytes:
    return frame(DATA, flags, stream, b"\0" + struct.pack(">I", len(content)) + content)


#: Beginnings that never go on: all that is said on such a socket.
SILENT = (b"", PREFACE[:10], PREFACE, PREFACE + settings()[:5])

#: What is no HTTP/2, and closed at once.
FOREIGN = (b"GET / HTTP/1.1\r\nHost: gateway\r\n", b"\x16\x03\x01\x02\x00\x01\x00", bytes(64))

#: Beginnings of calls that never go on: gRPC takes them for slow clients.
CALLS = (
    PREFACE + settings() + headers(MATCH + "MatchCustomer", 1)[:30],
    PREFACE + settings() + headers(MATCH + "MatchCustomer", 1, 0),
    PREFACE + settings() + headers(MATCH + "MatchCustomer", 1),
    PREFACE + settings() + headers(MATCH + "MatchCustomer", 1) + message(1, b"x" * 99)[:20],
    PREFACE + settings() + headers(MATCH + "StreamMatches", 1),
)

Stopped = Callable[[], bool]


def until_input_ends() -> Stopped:
    ended = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    return ended.is_set


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def held_open(port: int, stopped: Stopped, contents: tuple[bytes, ...]) -> dict[str, Any]:
    """A thousand sockets, each opened again as soon as the server closes it."""
    lasted: list[float] = []
    with selectors.DefaultSelector() as waiting:

        def opened(number: int) -> None:
            one = socket.create_connection(("127.0.0.1", port))
            one.sendall(contents[number % len(contents)])
            one.setblocking(False)
            waiting.register(one, selectors.EVENT_READ, (number, time.monotonic()))

        # Not all at once: who holds a thousand sockets open is to be felt, not who opens them.
        for number in range(1_000):
            opened(number)
            time.sleep(0.004)
        tell("begun")
        while not stopped():
            for key, _ in waiting.select(0.1):
                number, since = key.data
                one: Any = key.fileobj
                try:
                    is_open = bool(one.recv(65_536))
                except ConnectionError:
                    is_open = False
                if not is_open:
                    lasted.append(time.monotonic() - since)
                    waiting.unregister(one)
                    one.close()
                    opened(number)
        for key in list(waiting.get_map().values()):
            waiting.unregister(key.fileobj)
            key.fileobj.close()  # type: ignore[union-attr]
    return {"closed": len(lasted), "longest_s": max(lasted, default=0.0)}


def silent(port: int, stopped: Stopped) -> dict[str, Any]:
    return held_open(port, stopped, SILENT)


def begun_calls(port: int, stopped: Stopped) -> dict[str, Any]:
    return held_open(port, stopped, CALLS)


def stalled(port: int, stopped: Stopped) -> dict[str, Any]:
    """Streams and batches whose answers nobody has room for; pings are answered."""
    ids = batch_request(IDS * 10, reason_count=3)
    framed = [
        match_service_pb2.StreamMatchesRequest(frame_id=number, match=ids).SerializeToString()
        for number in range(8)
    ]
    sockets = []
    for _ in range(4):
        one = socket.create_connection(("127.0.0.1", port))
        one.sendall(PREFACE + settings(window=0))
        for stream in range(1, 41, 2):
            if stream % 4 == 1:
                one.sendall(headers(MATCH + "StreamMatches", stream))
                for content in framed:
                    one.sendall(message(stream, content))
            else:
                one.sendall(headers(MATCH + "MatchCustomers", stream))
                one.sendall(message(stream, ids.SerializeToString(), END_STREAM))
        one.setblocking(False)
        sockets.append(one)
    # What was asked for is computed first: what is to be felt is that nobody reads it.
    time.sleep(3.0)
    tell("begun")
    while not stopped():
        time.sleep(0.05)
        for one in sockets:
            try:
                one.recv(65_536)
            except (BlockingIOError, ConnectionError):
                continue
    for one in sockets:
        one.close()
    return {"streams": 80}


def resets(port: int, stopped: Stopped) -> dict[str, Any]:
    """Streams that are opened and given up at once, as fast as the server takes them."""
    ids = batch_request(IDS).SerializeToString()
    count = connections = 0
    tell("begun")
    while not stopped():
        connections += 1
        with socket.create_connection(("127.0.0.1", port)) as one:
            one.settimeout(1.0)
            one.sendall(PREFACE + settings())
            stream = 1
            try:
                while not stopped() and stream < 200_000:
                    burst = b""
                    for _ in range(50):
                        burst += headers(MATCH + "MatchCustomers", stream)
                        if stream % 8 == 1:
                            burst += message(stream, ids, END_STREAM)
                        burst += frame(RST_STREAM, 0, stream, struct.pack(">I", 8))
                        stream += 2
                        count += 1
                    one.sendall(burst)
                    one.setblocking(False)
                    try:
                        if not one.recv(1 << 20):
                            break
                    except BlockingIOError:
                        pass
                    one.settimeout(1.0)
            except (ConnectionError, TimeoutError):
                continue
    return {"streams": count, "connections": connections}


def large(port: int, stopped: Stopped) -> dict[str, Any]:
    """Messages of 64 MiB, and metadata of 100 kB."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_metadata_size", 1 << 20)]
    content, codes = bytes(64 * 2**20), set()
    metadata = (("x-long", "y" * 100_000),)
    tell("begun")
    count = 0
    while not stopped():
        with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            call = channel.unary_unary(MATCH + "MatchCustomer")
            for given in ({"request": content}, {"request": b"", "metadata": metadata}):
                try:
                    call(timeout=10, **given)
                except grpc.RpcError as error:
                    codes.add(error.code().name)
                count += 1
    return {"calls": count, "codes": sorted(codes)}


def garbage(port: int, stopped: Stopped) -> dict[str, Any]:
    """Frames of HTTP/2 made at random behind a right beginning."""
    count = 0
    tell("begun")
    while not stopped():
        with socket.create_connection(("127.0.0.1", port)) as one:
            one.settimeout(1.0)
            try:
                one.sendall(PREFACE + settings())
                for sent in random_frames(count):
                    one.sendall(sent)
                one.settimeout(0.02)
                one.recv(65_536)
            except (ConnectionError, TimeoutError):
                pass
        count += 1
    return {"connections": count}


def random_frames(seed: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    for _ in range(rng.randrange(1, 12)):
        kind, flags = rng.randrange(12), rng.choice((0, 1, 4, 5, 8, 32, 255))
        stream = rng.choice((0, 1, 1, 3, 2**31 - 1))
        body = rng.choice((b"", rng.randbytes(8), headers(MATCH + "Explain", 1)[9:], bytes(16_384)))
        made = frame(kind, flags, stream, body)
        yield made if rng.random() < 0.9 else made[: rng.randrange(len(made))]


ATTACKS = {each.__name__: each for each in (silent, begun_calls, stalled, resets, large, garbage)}

if __name__ == "__main__":
    os.nice(19)  # what they burn themselves is not what they do to others
    name, port = sys.argv[1:]
    tell(json.dumps(ATTACKS[name](int(port), until_input_ends())))
