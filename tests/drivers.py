"""Jobs in processes that may be killed: forked from one that has imported everything and no more.

`python drivers.py` reads a line of JSON for each process to start or to wait for. `Drivers` writes
those lines; `SCENES` are what a process can do, and tests call them in their own process as well.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from visavis.base import Base, StoredBase, TableStream, load
from visavis.catalog import Catalog
from visavis.erasure import forget_in_base, forget_in_result
from visavis.errors import VisavisError
from visavis.journal import Journal, compact
from visavis.policy import Policy
from visavis.rescore import Report, job
from visavis.schedule import PartReceipt, Patience, Running, ThreadPool, Worker, run_parts
from visavis.store import Folder, faults

AS_OF = date(2026, 1, 31)
CUSTOMERS = 48

#: Long and distinctive: no other bytes look like it.
FORGOTTEN = "forgotten-customer-5e1a77c0-with-a-long-id"

#: A refusal that visavis foresaw, and one that it did not.
REFUSED, FAULT = 3, 70

#: As the command line has it, but nobody waits half a second for a second try.
QUICK = Patience(backoff_s=0.001)


def tables() -> dict[str, pa.Table]:
    """Profiles, attributes and facts; the one who will be forgotten is in all of them."""
    rng = np.random.default_rng(7)
    ids = [FORGOTTEN, *(f"customer-{number:03}" for number in range(1, CUSTOMERS))]
    columns = {f"i{number}": rng.normal(size=CUSTOMERS).astype(np.float32) for number in range(5)}
    attributes = {
        "customer_id": ids,
        "age": pa.array(rng.integers(10, 80, CUSTOMERS), pa.int64()),
        "city": [f"the city of {each}" for each in ids],
        "consent_email": pa.array(rng.random(CUSTOMERS) < 0.8),
    }
    owner = [ids[0], *(ids[row] for row in rng.integers(0, CUSTOMERS, 60))]
    facts = {
        "customer_id": owner,
        "product": [f"p{number % 4}" for number in range(61)],
        "kind": ["bought"] * 61,
        "date": [date(2026, 1, 1 + number % 28) for number in range(61)],
    }
    return {
        "profiles": pa.table({"customer_id": ids, **columns}),
        "attributes": pa.table(attributes),
        "facts": pa.table(facts),
    }


def capabilities() -> list[dict[str, Any]]:
    rng = np.random.default_rng(8)
    term = {"kind": "bought", "feature": "ever", "weight": -0.5}
    return [
        {
            "id": f"c{number}",
            "product": f"p{number % 4}",
            "channel": ("email", "counter")[number % 2],
            "family": "one",
            "weights": {f"i{place}": float(np.float32(rng.normal())) for place in range(5)},
            "value": float(rng.integers(1, 9)),
            "rule": "age >= 18" if number % 3 else None,
            "history_weights": [term],
        }
        for number in range(12)
    ]


CATALOG = Catalog.from_rows(capabilities())
POLICY = Policy(k=3, ev_min=None, product_limit=1, consent_not_needed=("counter",))


def write_world(folder: Path) -> StoredBase:
    """A base of four parts and a journal beside it."""
    held = tables()
    base = Base.from_tables(
        held["profiles"], as_of=AS_OF, attributes=held["attributes"], facts=held["facts"]
    ).write(folder / "base", parts=4)
    with Journal.open(folder / "journal", create=True) as journal:
        journal.append(
            facts=pa.table(
                {
                    "customer_id": ["customer-003", FORGOTTEN],
                    "product": ["p1", "p2"],
                    "kind": ["bought"] * 2,
                    "date": [date(2026, 1, 30)] * 2,
                }
            ),
            attributes=pa.table({"customer_id": ["customer-004"], "age": [12]}),
            objections=["customer-005"],
        )
    return base


def rescore(folder: str, out: str, *, journal: bool = False, threads: int = 1) -> Report:
    """The job of a world, as far as it is not done."""
    base = StoredBase.open(Path(folder) / "base")
    overlay = None
    if journal:
        plan = job.planned(out)
        through = None if plan is None else plan.journal_offset
        with Journal.open(Path(folder) / "journal") as opened:
            overlay = opened.overlay(after=base.manifest.journal_offset, through=through)
    made = job.Job.make(base, CATALOG, POLICY, out, overlay=overlay, reasons=2)
    return made.run(lambda task: ThreadPool(task, threads))


def load_again(folder: str, *, journal: bool = False) -> StoredBase:
    """The next version of a world's base, from its tables."""
    streams = {name: TableStream.of(table) for name, table in tables().items()}
    more: dict[str, Any] = {}
    if journal:
        with Journal.open(Path(folder) / "journal") as opened:
            overlay = opened.overlay()
        more = {
            "amend": overlay.apply,
            "journal_offset": overlay.through,
            "forgotten": overlay.forgotten,
        }
    return load(Path(folder) / "base", streams.pop("profiles"), as_of=AS_OF, **streams, **more)


def compact_again(folder: str) -> StoredBase:
    """The next version of a world's base, with what the journal says."""
    base = StoredBase.open(Path(folder) / "base")
    with Journal.open(Path(folder) / "journal") as opened:
        overlay = opened.overlay(after=base.manifest.journal_offset)
    return compact(base, overlay)


def forget(folder: str, *results: str) -> dict[str, int]:
    """Erase the customer from a world's base and from results; what was removed where."""
    counts = {"base": forget_in_base(Folder(Path(folder) / "base"), FORGOTTEN)}
    return counts | {each: forget_in_result(Folder(Path(each)), FORGOTTEN) for each in results}


SCENES: dict[str, Callable[..., object]] = {
    each.__name__: each for each in (rescore, load_again, compact_again, forget)
}


def operations(scene: Callable[..., object], *given: Any, **options: Any) -> int:
    """How many operations on files a scene does in this process."""
    plan = faults.Plan("kill-before", 0)
    faults.install(plan)
    try:
        scene(*given, **options)
    finally:
        faults.install(None)
    return plan.count


class Drivers:
    """The process that others are forked from."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def _ask(self, **said: Any) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(said), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def start(self, scene: str, *given: object, fault: str | None = None, **options: Any) -> int:
        """Start a process; returns its id, which is its own until it is waited for."""
        return self._ask(
            scene=scene, given=[str(each) for each in given], options=options, fault=fault
        )

    def wait(self, pid: int) -> int:
        """How it ended: its status, or the negative number of the signal that killed it."""
        return self._ask(wait=pid)

    def run(self, scene: str, *given: object, fault: str | None = None, **options: Any) -> int:
        """Start a process and wait for it."""
        return self.wait(self.start(scene, *given, fault=fault, **options))

    def in_turn(self, count: int, start: Callable[[int], int]) -> Iterator[tuple[int, int]]:
        """How processes 1 … count ended, in order; the next runs while one is looked at."""
        pids = {1: start(1)}
        for number in range(1, count + 1):
            if number < count:
                pids[number + 1] = start(number + 1)
            yield number, self.wait(pids.pop(number))


def _child(said: dict[str, Any]) -> None:
    status = FAULT
    try:
        if said["fault"] is not None:
            faults.install(faults.Plan.parse(said["fault"]))
        SCENES[said["scene"]](*said["given"], **said["options"])
        status = 0
    except VisavisError:
        status = REFUSED
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


class _Inline(ThreadPool):
    """Computes parts where it is asked to: threads would not outlive a fork."""

    def start(self, worker: Worker, part_index: int) -> Running:
        ticket: Future[PartReceipt] = Future()
        ticket.set_result(self._task(part_index))
        return Running(worker, part_index, ticket)


def _warm_up() -> None:
    """Do everything once, so that no child has to compile and import it again."""
    with TemporaryDirectory() as folder:
        made = job.Job.make(write_world(Path(folder)), CATALOG, POLICY, Path(folder) / "out")
        made.run(lambda task: _Inline(task, 1))


def _serve() -> None:
    job.run_parts = partial(run_parts, patience=QUICK)
    _warm_up()
    for line in sys.stdin:
        said = json.loads(line)
        if "wait" in said:
            answer = os.waitstatus_to_exitcode(os.waitpid(said["wait"], 0)[1])
        else:
            answer = os.fork()
            if not answer:
                _child(said)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
