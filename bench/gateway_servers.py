"""Servers in processes of their own, and load on them: what `test_gateway` measures with.

BENCH_SERVE holds further options of ``visavis serve``.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, NamedTuple

from full_base import VISAVIS
from gateway_load import HELD_BACK, Plan
from watching import Watch, processor_s

HERE = Path(__file__).parent
#: How calls end under more load than there is room for; others say why.
EXPECTED = frozenset({"RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", HELD_BACK})


class Server(NamedTuple):
    """One that answers.

    Attributes
    ----------
    pid, port : int
    started_s : float
        From its start to its readiness.
    """

    pid: int
    port: int
    started_s: float


@dataclass(frozen=True)
class Load:
    """What came of a plan.

    Attributes
    ----------
    plan : Plan
    codes, in_window : dict of str to int
        Of calls that were to begin, and of calls that ended, within the counted time.
    details : dict of str to str
        By code, what the first call said that ended so.
    latency_ms, lag_ms : dict of str to float
        By percentile: from the intended time to OK, and how late this side sent.
    request_bytes, response_bytes : float
        Of the mean call.
    generator_s, server_s : float
        Processor time within the counted time.
    begin_mb, most_mb : float
        What the server held before, and the most it held, without mapped files.
    """

    plan: Plan
    codes: dict[str, int]
    in_window: dict[str, int]
    details: dict[str, str]
    latency_ms: dict[str, float]
    lag_ms: dict[str, float]
    request_bytes: float
    response_bytes: float
    generator_s: float
    server_s: float
    begin_mb: float
    most_mb: float

    @property
    def goodput(self) -> float:
        """OK answers a second."""
        return self.in_window.get("OK", 0) / self.plan.seconds

    @property
    def customers_per_s(self) -> float:
        """Customers answered a second."""
        return self.goodput * self.plan.batch

    @property
    def server_us(self) -> float:
        """Processor time of the server, a call that was sent and ended."""
        sent = sum(self.in_window.values()) - self.in_window.get(HELD_BACK, 0)
        return self.server_s / max(1, sent) * 1e6

    @property
    def growth(self) -> float:
        """The most that the server held, as a share of what it held before."""
        return self.most_mb / self.begin_mb

    def at(self, percentile: str) -> float:
        """Latency in ms; infinite where nothing was OK."""
        return self.latency_ms.get(percentile, float("inf"))

    def text(self) -> str:
        """In a line."""
        asked = f"{self.plan.rate:,.0f}/s offered" if self.plan.rate else "closed-loop"
        late = f"; sent late p99 {self.lag_ms['99']:.2f} ms" if self.lag_ms else ""
        return (
            f"{asked}, {self.goodput:,.0f}/s OK, p50 {self.at('50'):.2f} ms, p99"
            f" {self.at('99'):.2f} ms, server {self.server_us:,.0f} µs a call, generator"
            f" {self.generator_s / self.plan.seconds:.0%} of a processor{late}, memory"
            f" {self.begin_mb:,.0f} to {self.most_mb:,.0f} MB ({self.told_codes}){self._unexpected}"
        )

    @property
    def _unexpected(self) -> str:
        said = [(code, text) for code, text in self.details.items() if code not in EXPECTED]
        return "".join(f"; {code}: {text!r}" for code, text in said)

    @property
    def told_codes(self) -> str:
        """How calls ended, and how many."""
        return ", ".join(f"{name} {count:,}" for name, count in sorted(self.codes.items()))


class Generator:
    """The process that makes the load, for one plan after the other.

    Parameters
    ----------
    process : Popen
        Of gateway_load.py.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def drive(self, server: Server, plan: Plan) -> Load:
        """Put a load on a server, and watch it meanwhile."""
        assert self._process.stdin is not None
        marks: dict[str, float] = {}
        with Watch(server.pid) as watch:
            self._process.stdin.write(f"{plan.text()}\n")
            self._process.stdin.flush()
            for line in _lines(self._process.stdout):
                told = json.loads(line)
                if (event := told.pop("event")) == "done":
                    break
                marks[event] = processor_s(server.pid)
            else:
                raise RuntimeError("the generator of load has ended")
        return Load(
            plan=plan,
            server_s=marks["end"] - marks["begin"],
            begin_mb=watch.begin_mb,
            most_mb=watch.most_mb,
            **told,
        )


@contextmanager
def generator() -> Iterator[Generator]:
    """A generator of load, until it is not needed any more."""
    command = [sys.executable, HERE / "gateway_load.py"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Generator(process)
        finally:
            process.kill()


@contextmanager
def gateway(inputs: Path, jobs: Path, log: Path) -> Iterator[Server]:
    """``visavis serve``, ready; where it runs jobs, their results go below `jobs`."""
    places = ("--base", inputs / "base", "--catalog", inputs / "catalog.parquet")
    command = [VISAVIS, "serve", *places, "--policy", inputs / "policy.toml"]
    command += [
        "--address",
        "127.0.0.1:0",
        "--json",
        *shlex.split(os.environ.get("BENCH_SERVE", "")),
    ]
    if "--jobs" in options_of_serve():
        command += ["--jobs", jobs]
    with _started(command, log) as server:
        yield server


@cache
def options_of_serve() -> str:
    """What it says for --help."""
    wide = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(
        [VISAVIS, "serve", "--help"], capture_output=True, text=True, check=True, env=wide
    ).stdout


@contextmanager
def echo(size: int, log: Path) -> Iterator[Server]:
    """A bare server that answers so many bytes."""
    with _started([sys.executable, HERE / "gateway_echo.py", str(size)], log) as server:
        yield server


@contextmanager
def milvus_lite(folder: Path, log: Path) -> Iterator[int]:
    """milvus-lite's own server, by its command line; its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("milvus-lite"), "server", "--host", "127.0.0.1"]
    with (
        log.open("w") as to,
        subprocess.Popen(
            [*command, "--port", str(port), "--data-dir", folder],
            stdout=to,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            yield port
        finally:
            process.kill()


@contextmanager
def _started(command: list[object], log: Path) -> Iterator[Server]:
    """A server that says its port in a line of JSON once it is ready."""
    began = time.monotonic()
    with (
        log.open("w") as errors,
        subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            first = next(_lines(process.stdout), "")
            assert first, f"the server did not start:\n{log.read_text()[-2_000:]}"
            # What it says beyond, an access log for one, must not fill the pipe.
            threading.Thread(target=deque, args=(process.stdout, 0), daemon=True).start()
            yield Server(process.pid, json.loads(first)["port"], time.monotonic() - began)
        finally:
            process.terminate()
            try:
                process.wait(30.0)
            except subprocess.TimeoutExpired:
                process.kill()


def _lines(stream: IO[str] | None) -> Iterator[str]:
    assert stream is not None
    return iter(stream)
