"""Indicators at scale: `visavis indicators` as a process of its own, its time and its memory.

Ten million synthetic events of 100 000 customers by default. A hundred million, some minutes and
4 GB of disk::

    BENCH_EVENTS=100_000_000 make bench BENCH_ARGS='-k indicators -s'
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from events import AS_OF, write_events
from visavis.digest import canonical_digest
from visavis.indicators import Indicators

EVENTS = int(os.environ.get("BENCH_EVENTS", "10_000_000"))
CUSTOMERS = int(os.environ.get("BENCH_CUSTOMERS", "100_000"))
SPEC = Path(__file__).with_name("indicators.toml")
INDICATORS = 128
SAMPLE_S = 0.05


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("events")
    write_events(folder, EVENTS, CUSTOMERS)
    return folder


def command(folder: Path, out: Path, *options: str) -> list[str]:
    given = [f"--events={path}" for path in sorted(folder.glob("events-*.parquet"))]
    return [
        *(str(Path(sys.executable).with_name("visavis")), "indicators", *given),
        *(f"--taxonomy={folder / 'taxonomy.parquet'}", f"--spec={SPEC}", f"--as-of={AS_OF}"),
        *(f"--out={out}", "--json", *options),
    ]


def watched(arguments: list[str], spill: Path) -> dict[str, float]:
    """Run a command; return its seconds, peaks of its memory and of what it spilled, in MB."""
    spill.mkdir(exist_ok=True)
    peak = dict.fromkeys(("RssAnon", "RssFile", "VmHWM", "spilled"), 0.0)
    started = time.perf_counter()
    process = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(spill)}
    )
    while process.poll() is None:
        for name, value in sampled(process.pid, spill).items():
            peak[name] = max(peak[name], value)
        time.sleep(SAMPLE_S)
    seconds = time.perf_counter() - started
    assert process.returncode == 0
    assert not list(spill.iterdir()), "what is spilled is removed"
    return {"seconds": seconds, **peak}


def sampled(pid: int, spill: Path) -> dict[str, float]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    fields = dict(line.split(":", 1) for line in lines)
    memory = {
        name: int(fields[name].split()[0]) * 1024 / 1e6
        for name in ("RssAnon", "RssFile", "VmHWM")
        if name in fields
    }
    return memory | {"spilled": size_of(spill) / 1e6}


def size_of(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        # A file may be removed while we look.
        try:
            size += path.stat().st_blocks * 512
        except OSError:
            continue
    return size


def shown(what: str, measured: dict[str, float]) -> str:
    speed = EVENTS / measured["seconds"] / 1e6
    return (
        f"\n{what}: {measured['seconds']:.1f} s, {speed:.2f} M events/s,"
        f" peak RSS {measured['VmHWM']:.0f} MB (anonymous {measured['RssAnon']:.0f}, files"
        f" {measured['RssFile']:.0f}), spilled {measured['spilled']:.0f} MB"
    )


def test_indicators(benchmark, folder, tmp_path, capsys):
    first, second = tmp_path / "first.parquet", tmp_path / "second.parquet"
    spill = tmp_path / "spill"
    measured = benchmark.pedantic(lambda: watched(command(folder, first), spill), rounds=1)
    benchmark.extra_info.update(events=EVENTS, customers=CUSTOMERS, **measured)
    alone = watched(command(folder, second, "--threads=1"), spill)
    with capsys.disabled():
        print(shown(f"{EVENTS:,} events → {CUSTOMERS:,} × {INDICATORS}", measured))
        print(shown("with one thread", alone))
    table = pq.read_table(first)
    assert (table.num_rows, table.num_columns) == (CUSTOMERS, INDICATORS + 1)
    assert canonical_digest(table) == canonical_digest(pq.read_table(second))


def test_indicators_are_ones_own(benchmark, folder, tmp_path):
    """With the events of every other customer gone, the rest keep their bits."""
    everybody, half = tmp_path / "everybody.parquet", tmp_path / "half.parquet"
    watched(command(folder, everybody), tmp_path / "spill")
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    os.link(folder / "taxonomy.parquet", fewer / "taxonomy.parquet")
    for path in folder.glob("events-*.parquet"):
        keep_even(path, fewer / path.name)
    benchmark.pedantic(lambda: watched(command(fewer, half), tmp_path / "spill"), rounds=1)
    whole, kept = Indicators.read(everybody), Indicators.read(half)
    places = pc.index_in(kept.customer_ids, whole.customer_ids).to_numpy()
    assert len(places) == CUSTOMERS // 2
    assert np.array_equal(whole.matrix[places].view(np.uint32), kept.matrix.view(np.uint32))


def keep_even(path: Path, out: Path) -> None:
    """Copy the events of customers with an even number."""
    even = pa.array([str(digit) for digit in range(0, 10, 2)])
    with pq.ParquetFile(path) as source, pq.ParquetWriter(out, source.schema_arrow) as writer:
        for group in range(source.num_row_groups):
            rows = source.read_row_group(group)
            last = pc.utf8_slice_codeunits(rows["customer_id"].cast(pa.string()), -1)
            writer.write_table(rows.filter(pc.is_in(last, even)))
