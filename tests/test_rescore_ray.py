"""A result has the same bytes from whatever workers: of this process, of a cluster, with GPUs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from clusters import Late, Nodes, cluster, nodes
from visavis.base import Base, StoredBase
from visavis.catalog import Catalog
from visavis.cluster import RayPool
from visavis.policy import Policy
from visavis.rescore import Report, rescore
from visavis.rescore.part import PartMaker
from visavis.schedule import Event, Pool, ThreadPool

__all__ = ["cluster", "nodes"]

pytestmark = pytest.mark.faults

PARTS = 16
CUSTOMERS, CAPABILITIES, INDICATORS = 2_000, 60, 5
KILLS = int(os.environ.get("VISAVIS_KILLS", "20"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def base(folder: Path) -> StoredBase:
    rng = np.random.default_rng(7)
    ids = pa.array([f"c{row:05}" for row in range(CUSTOMERS)])
    x = rng.normal(size=(INDICATORS, CUSTOMERS)).astype(np.float32)
    return Base.from_tables(
        pa.table({"customer_id": ids, **{f"x{d}": column for d, column in enumerate(x)}}),
        attributes=pa.table({"customer_id": ids, "age": rng.integers(10, 90, CUSTOMERS)}),
        facts=pa.table(
            {
                "customer_id": ids.take(pa.array(rng.integers(0, CUSTOMERS, 6_000))),
                "product": [f"p{each}" for each in rng.integers(0, 20, 6_000)],
                "kind": ["bought"] * 6_000,
                "date": pa.array(rng.integers(19_000, 20_000, 6_000), pa.int32()).cast(pa.date32()),
            }
        ),
        as_of="2026-01-01",
    ).write(folder / "base", parts=PARTS)


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    rng = np.random.default_rng(8)
    return Catalog.from_rows(
        {
            "id": f"k{j:03}",
            "product": f"p{j % 20}",
            "channel": "email",
            "family": f"f{j % 3}",
            "weights": {f"x{d}": float(w) for d, w in enumerate(rng.normal(size=INDICATORS))},
            "value": float(rng.uniform(1, 20)),
            "rule": ["age >= 18", None, "age < 60"][j % 3],
            "history_weights": [{"kind": "bought", "feature": "log_count", "weight": 0.25}],
        }
        for j in range(CAPABILITIES)
    )


POLICY = Policy(k=5, product_limit=1, family_limit=3, consent_not_needed=("email",))


@pytest.fixture(scope="module")
def run(folder: Path, base: StoredBase, catalog: Catalog) -> Callable[..., Report]:
    def run(name: str, make_pool: Callable[[PartMaker], Pool], **options: Any) -> Report:
        out = folder / name
        return rescore(base, catalog, POLICY, out, reasons=2, make_pool=make_pool, **options)

    return run


@pytest.fixture(scope="module")
def expected(run: Callable[..., Report], folder: Path) -> dict[str, bytes]:
    """Every file of the result of one thread of this process."""
    report = run("expected", lambda task: ThreadPool(task, 1))
    assert report.result.opportunity_count > CUSTOMERS
    return files(folder / "expected")


def files(folder: Path) -> dict[str, bytes]:
    return {
        each.relative_to(folder).as_posix(): each.read_bytes()
        for each in folder.rglob("*")
        if each.is_file()
    }


def test_threads_give_the_bytes_of_one(
    run: Callable[..., Report], folder: Path, expected: dict[str, bytes]
) -> None:
    run("threads", lambda task: ThreadPool(task.with_match(threads=2), 2))
    assert files(folder / "threads") == expected


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_of_a_cluster_give_the_bytes_of_one_process(
    run: Callable[..., Report],
    folder: Path,
    expected: dict[str, bytes],
    nodes: Nodes,
    workers: int,
) -> None:
    run(f"ray-{workers}", lambda task: RayPool(task, address="auto", workers=workers))
    assert files(folder / f"ray-{workers}") == expected


def test_one_node_gives_the_bytes_of_three(
    run: Callable[..., Report], folder: Path, expected: dict[str, bytes], nodes: Nodes
) -> None:
    nodes.remove(nodes.present()[0])
    run("node", lambda task: RayPool(task, address="auto", threads=2))
    assert files(folder / "node") == expected
    nodes.add()
    nodes.add()
    run("nodes", lambda task: RayPool(task, address="auto"))
    assert files(folder / "nodes") == expected


def test_a_worker_that_screens_on_torch_gives_the_same_bytes(
    run: Callable[..., Report], folder: Path, expected: dict[str, bytes], nodes: Nodes
) -> None:
    nodes.add(num_cpus=1, num_gpus=1)
    done: dict[str, int] = {}

    def told(event: Event) -> None:
        if event.kind == "done":
            kind = str(event.worker).partition("-")[0]
            done[kind] = done.get(kind, 0) + 1

    def pool(task: PartMaker) -> Pool:
        # torch's own processor stands in for the device, and nothing else is different.
        on_device = task.with_match(device="cpu")
        return RayPool(Late(task, 1.0), address="auto", workers=1, gpu=on_device)

    run("gpu", pool, on_event=told)
    assert files(folder / "gpu") == expected
    assert done["gpu"] > 0
    run("gpu-alone", lambda task: ThreadPool(task.with_match(device="cpu"), 1))
    assert files(folder / "gpu-alone") == expected


def test_whoever_is_killed_the_bytes_are_the_same(
    run: Callable[..., Report], folder: Path, expected: dict[str, bytes], nodes: Nodes
) -> None:
    rng = random.Random(3)
    killed = number = 0
    while killed < KILLS:
        due = sorted(rng.sample(range(1, PARTS), 4))

        def told(event: Event, due: list[int] = due) -> None:
            nonlocal killed
            if event.kind != "done" or not due or event.counts.done < due[0]:
                return
            due.pop(0)
            # Gone already, with its node: then nobody was killed here.
            with suppress(ProcessLookupError):
                if rng.random() < 0.1 and len(nodes.present()) > 1:
                    nodes.kill_raylet(nodes.present()[0])
                    nodes.add()
                else:
                    # The name ends in the process id, and all nodes are of this machine.
                    os.kill(int(str(event.worker).rpartition(":")[2]), signal.SIGKILL)
                killed += 1

        run(f"killed-{number}", lambda task: RayPool(task, address="auto"), on_event=told)
        assert files(folder / f"killed-{number}") == expected
        number += 1
    assert number <= KILLS


def test_a_killed_driver_loses_nothing_that_was_published(
    run: Callable[..., Report],
    base: StoredBase,
    catalog: Catalog,
    folder: Path,
    expected: dict[str, bytes],
    nodes: Nodes,
) -> None:
    catalog.write(folder / "catalog.parquet")
    (folder / "policy.toml").write_text(
        'k = 5\nproduct_limit = 1\nfamily_limit = 3\nconsent_not_needed = ["email"]\n'
    )
    out = folder / "driven"
    command = [
        *(sys.executable, "-m", "visavis.cli", "rescore", "--base", str(base.place)),
        *("--catalog", str(folder / "catalog.parquet"), "--policy", str(folder / "policy.toml")),
        *("--out", str(out), "--reasons", "2", "--ray", nodes.cluster.address, "--workers", "2"),
    ]
    for wanted in (1, 5, 9):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as driver:
            while driver.poll() is None and len(list((out / "parts").glob("*"))) < wanted:
                time.sleep(0.01)
            driver.kill()
        assert driver.returncode == -signal.SIGKILL
        assert not (out / "manifest.json").exists()
    kept = files(out)
    assert len(kept) > wanted
    report = run("driven", lambda task: RayPool(task, address="auto"))
    assert report.computed_count == PARTS - (len(kept) - 1)
    assert files(out) == expected
    assert kept.items() <= expected.items()
