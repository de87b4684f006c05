"""`visavis serve` as one process of its own: what it answers at, what it holds, how it dies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateways import World

POLICY = (
    "k = 3\nproduct_limit = 1\nev_min = 0.0\ncontrol_share = 0.25\n[cool_down_days]\nmail = 10\n"
)


class Process:
    """One that serves."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self._log = log
        self.address = f"127.0.0.1:{port}"

    def log(self) -> str:
        """What it wrote to standard error; gRPC writes there what others sent, too."""
        return self._log.read_text(errors="replace")

    def anonymous_bytes(self) -> int:
        """What it holds that is no mapped file."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("RssAnon:")]
        return int(line.split()[1]) * 1024

    def socket_count(self) -> int:
        """Its sockets, those that listen among them."""
        count = 0
        for each in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                count += str(each.readlink()).startswith("socket:")
            except FileNotFoundError:  # closed meanwhile
                continue
        return count

    def kill(self) -> None:
        """End it as a lost machine would."""
        self.process.kill()
        self.process.wait(30)


def write_sources(world: World) -> None:
    """The files that `process_of` serves, as the world has them."""
    world.catalog.write(world.folder / "catalog.parquet")
    (world.folder / "policy.toml").write_text(POLICY)


@contextmanager
def process_of(world: World, *options: str, port: int = 0) -> Iterator[Process]:
    """One that answers already; ended by SIGTERM, unless it is dead by then."""
    folder = world.folder
    command = [
        *(sys.executable, "-m", "visavis.cli", "serve", "--json"),
        *("--address", f"127.0.0.1:{port}", "--base", str(folder / "base")),
        *("--catalog", str(folder / "catalog.parquet"), "--policy", str(folder / "policy.toml")),
        *("--journal", str(folder / "journal"), "--root", str(folder), "--threads", "2"),
        *options,
    ]
    # Its log goes to a file: a pipe that nobody reads would stop it.
    with (
        (folder / "log").open("a") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as it,
    ):
        try:
            assert it.stdout is not None
            line = it.stdout.readline()
            assert line, (folder / "log").read_text()
            yield Process(it, int(json.loads(line)["port"]), folder / "log")
        finally:
            if it.poll() is None:
                it.send_signal(signal.SIGTERM)
                try:
                    it.wait(60)
                except subprocess.TimeoutExpired:
                    it.kill()
                    raise
