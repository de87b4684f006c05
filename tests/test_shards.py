"""Parts on a cluster of several nodes: whoever is killed, the job ends with the same bytes.

One cluster of three nodes serves the whole module; its processors and GPUs are numbers alone.
"""

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

import pytest

from clusters import Nodes, cluster, nodes
from pretended import Pretended, published
from visavis import __version__
from visavis.cluster import RayPool, ShardWorker
from visavis.errors import InputError, SetupError
from visavis.kernel import CONTRACT_VERSION
from visavis.schedule import (
    Event,
    Outcome,
    PartReceipt,
    Patience,
    ThreadPool,
    run_parts,
)

__all__ = ["cluster", "nodes"]

pytestmark = pytest.mark.faults


class Told:
    """Keeps events, and does at each what a test wants."""

    def __init__(self, then: Callable[[Event], None] = lambda _: None) -> None:
        self.events: list[Event] = []
        self.then = then

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.then(event)

    def workers(self, kind: str) -> list[str]:
        return [str(each.worker) for each in self.events if each.kind == kind]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], tuple[Any, Any]]:
    """What threads of one process publish and answer for so many parts."""

    def of(part_count: int) -> tuple[dict[int, bytes], dict[int, PartReceipt]]:
        task = Pretended(tmp_path_factory.mktemp("alone") / "parts", seconds=0.0)
        with ThreadPool(task, 2) as pool:
            outcome = run_parts(range(part_count), pool)
        return published(task.folder), plain(outcome)

    return of


def plain(outcome: Outcome) -> dict[int, PartReceipt]:
    """Receipts without what may differ: who, and how long."""
    return {
        part: receipt._replace(worker="", seconds=0.0) for part, receipt in outcome.receipts.items()
    }


def assert_whole(task: Pretended, outcome: Outcome, expected: Any, part_count: int) -> None:
    assert not outcome.failed
    assert not outcome.poison
    assert (published(task.folder), plain(outcome)) == expected(part_count)


def process_of(worker: str) -> int:
    return int(worker.rpartition(":")[2])


def kill(worker: str) -> None:
    os.kill(process_of(worker), signal.SIGKILL)


def wait_for_workers(pool: RayPool, count: int) -> None:
    for _ in range(120):
        if len(pool.workers()) >= count:
            return
        pool.wait([], 1.0)
    pytest.fail("workers did not come within two minutes")


def wait_until_gone(processes: set[int]) -> None:
    def alive(process: int) -> bool:
        try:
            return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False

    for _ in range(600):
        if not any(map(alive, processes)):
            return
        time.sleep(0.1)
    pytest.fail(f"still there after a minute: {processes}")


# ---- without Ray -------------------------------------------------------------------------


def test_a_worker_is_a_plain_class_that_names_itself_and_returns_errors(tmp_path: Path) -> None:
    task = Pretended(tmp_path / "parts", wrong=frozenset([1]))
    worker = ShardWorker(
        lambda: task, version=__version__, contract=CONTRACT_VERSION, label="cpu-7"
    )
    assert worker.name.startswith("cpu-7@")
    assert process_of(worker.name) == os.getpid()
    receipt = worker.run(0)
    assert isinstance(receipt, PartReceipt)
    assert receipt.worker == worker.name
    error = worker.run(1)
    assert isinstance(error, InputError)
    assert error.row == 1


@pytest.mark.parametrize(
    ("version", "contract", "reason"),
    [
        ("0.0.1", CONTRACT_VERSION, r"^visavis .* on a worker, 0\.0\.1 on the driver$"),
        (__version__, 99, r"^score contract \d+ on a worker, 99 on the driver$"),
    ],
)
def test_a_worker_of_another_version_is_refused_before_it_opens_anything(
    version: str, contract: int, reason: str
) -> None:
    def factory() -> Any:
        pytest.fail("was opened")

    with pytest.raises(SetupError, match=reason):
        ShardWorker(factory, version=version, contract=contract)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"workers": 0}, "^workers: must be at least 1, got 0"),
        ({"threads": 0}, "^threads: must be at least 1, got 0"),
        ({"gpu_workers": -1}, "^gpu_workers: must be at least 0, got -1"),
        ({"address": "ray://head:1"}, "^address: must be the head's host:port"),
    ],
)
def test_a_bad_argument_is_refused_before_anything_starts(
    options: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=reason):
        RayPool(Pretended(tmp_path), **options)


# ---- on nodes that stay --------------------------------------------------------------------


def test_workers_on_all_nodes_publish_the_bytes_of_one_process(
    nodes: Nodes, tmp_path: Path, expected: Any
) -> None:
    task = Pretended(tmp_path / "parts", unreadable=frozenset([3]), held=frozenset(range(20)))
    told = Told(lambda event: task.release() if event.counts.workers == 4 else None)
    with RayPool(task) as pool:
        outcome = run_parts(range(60), pool, on_event=told)
    assert_whole(task, outcome, expected, 60)
    assert len(told.workers("joined")) == 4
    assert len({receipt.worker for receipt in outcome.receipts.values()}) == 4
    assert [event.part_index for event in told.events if event.kind == "retried"] == [3]


def test_threads_are_processors_that_a_worker_claims(nodes: Nodes, tmp_path: Path) -> None:
    with RayPool(Pretended(tmp_path / "parts"), threads=2) as pool:
        told = Told()
        run_parts(range(40), pool, on_event=told)
        wait_for_workers(pool, 2)
        assert [seats.room for seats in pool._seats] == [2]


def test_workers_with_a_gpu_share_a_job_with_others(
    nodes: Nodes, tmp_path: Path, expected: Any
) -> None:
    nodes.add(num_cpus=1, num_gpus=1)
    slow = Pretended(tmp_path / "parts", held=frozenset(range(60)))
    quick = Pretended(tmp_path / "parts", seconds=0.01, held=frozenset(range(60)))
    told = Told(lambda event: slow.release() if event.counts.workers == 3 else None)
    with RayPool(slow, gpu=quick, workers=2) as pool:
        outcome = run_parts(range(60), pool, on_event=told)
    assert_whole(slow, outcome, expected, 60)
    kinds = [receipt.worker.partition("-")[0] for receipt in outcome.receipts.values()]
    assert set(kinds) == {"cpu", "gpu"}
    assert sorted(told.workers("joined"))[2].startswith("gpu-0@")


def test_a_cluster_of_another_version_is_refused_at_the_start(nodes: Nodes, tmp_path: Path) -> None:
    task = Pretended(tmp_path / "parts")
    with (
        RayPool(task, version="0.0.1") as pool,
        pytest.raises(SetupError, match=r"^visavis .* on a worker, 0\.0\.1 on the driver$"),
    ):
        run_parts(range(3), pool)
    assert not task.notes.exists()


class Broken:
    """Cannot be made again elsewhere."""

    def __call__(self, _: int) -> PartReceipt:
        raise AssertionError

    def __reduce__(self) -> Any:
        return os.kill, (0, 99)


def test_workers_that_never_start_are_not_started_for_ever(nodes: Nodes) -> None:
    with RayPool(Broken()) as pool, pytest.raises(SetupError, match="before it was ready: ") as bad:
        run_parts(range(3), pool)
    assert "Invalid argument" in str(bad.value)


def test_workers_that_no_node_has_room_for_are_not_waited_for_for_ever(nodes: Nodes) -> None:
    reason = r"no worker is left and none joined within 1 s$"
    too_large = RayPool(Pretended(Path("x")), threads=3)
    with too_large as pool, pytest.raises(SetupError, match=reason):
        run_parts(range(3), pool, patience=Patience(join_wait_s=1.0))


def test_what_is_wrong_with_a_part_is_its_own_error_and_a_mistake_stays_one(
    nodes: Nodes, tmp_path: Path
) -> None:
    task = Pretended(tmp_path / "parts", wrong=frozenset([2]))
    with RayPool(task) as pool:
        outcome = run_parts(range(6), pool)
    assert sorted(outcome.receipts) == [0, 1, 3, 4, 5]
    assert str(outcome.failed[2]) == "part, row 2: must be right"
    mistaken = Pretended(tmp_path / "others", mistaken=frozenset([2]))
    with RayPool(mistaken) as pool, pytest.raises(ZeroDivisionError):
        run_parts(range(6), pool)


# ---- whoever is killed -----------------------------------------------------------------------


def test_a_killed_worker_costs_what_it_had_in_flight(
    nodes: Nodes, tmp_path: Path, expected: Any
) -> None:
    task = Pretended(tmp_path / "parts", held=frozenset(range(4, 100)))
    victims: list[str] = []

    def then(event: Event) -> None:
        # Whoever begins part 5 is held there until it is dead.
        if event.kind == "started" and event.part_index == 5 and not victims:
            victims.append(str(event.worker))
            kill(victims[0])
            task.release()

    told = Told(then)
    with RayPool(task) as pool:
        outcome = run_parts(range(40), pool, on_event=told)
    assert_whole(task, outcome, expected, 40)
    assert told.workers("lost") == victims
    assert [each.part_index for each in told.events if each.kind == "retried"] == [5]


def test_a_part_that_kills_three_workers_is_poison_and_the_rest_finish(
    nodes: Nodes, tmp_path: Path
) -> None:
    task = Pretended(tmp_path / "parts", poison=frozenset([4, 11]))
    told = Told()
    with RayPool(task) as pool:
        outcome = run_parts(range(20), pool, on_event=told)
    assert sorted(outcome.receipts) == [part for part in range(20) if part not in (4, 11)]
    assert sorted(outcome.poison) == [4, 11]
    killed = [name for names in outcome.poison.values() for name in names]
    assert len(set(killed)) == len(killed) == 6
    assert [task.begun().count(part) for part in (4, 11)] == [3, 3]
    said = [str(each.reason) for each in told.events if each.kind == "poison"]
    assert all(text.startswith("killed cpu-") for text in said)
    assert len(said) == 2


def test_a_stalled_worker_is_overtaken_and_ended_with_the_job(
    nodes: Nodes, tmp_path: Path, expected: Any
) -> None:
    task = Pretended(tmp_path / "parts", stalling=frozenset([0]))
    told = Told()
    with RayPool(task) as pool:
        outcome = run_parts(range(30), pool, on_event=told)
        stalled = told.workers("started")[0]
    assert_whole(task, outcome, expected, 30)
    again = [each for each in told.events if each.kind == "reissued" and each.part_index == 0]
    assert len(again) == 1
    assert again[0].worker != stalled
    assert outcome.receipts[0].worker == again[0].worker
    wait_until_gone({process_of(stalled)})


def test_a_node_that_is_lost_and_one_that_joins_change_nothing(
    nodes: Nodes, tmp_path: Path, expected: Any
) -> None:
    task = Pretended(tmp_path / "parts", held=frozenset(range(30, 100)))
    steps: list[str] = []

    def then(event: Event) -> None:
        if not steps and event.counts.done == 20 and event.counts.workers == 4:
            steps.append("removed")
            nodes.remove(nodes.present()[0])
        elif steps == ["removed"] and event.kind == "lost":
            steps.append("added")
            nodes.add(num_cpus=3)
        elif steps[-1:] == ["added"] and event.kind == "joined" and event.counts.workers == 5:
            steps.append(str(event.worker))
            task.release()

    with RayPool(task) as pool:
        wait_for_workers(pool, 4)
        told = Told(then)
        outcome = run_parts(range(100), pool, on_event=told)
    assert_whole(task, outcome, expected, 100)
    assert steps[:2] == ["removed", "added"]
    assert len(told.workers("lost")) >= 2
    assert steps[2] in {receipt.worker for receipt in outcome.receipts.values()}


def test_random_kills_of_workers_and_nodes_change_nothing(
    nodes: Nodes, tmp_path: Path, expected: Any
) -> None:
    dice = random.Random(20)
    kills = ["worker"] * 18 + ["raylet"] * 2
    dice.shuffle(kills)
    dead: list[str] = []
    task = Pretended(tmp_path / "parts")

    def then(event: Event) -> None:
        if event.kind != "done" or event.counts.done % 10 or len(dead) == len(kills):
            return
        if kills[len(dead)] == "raylet":
            nodes.kill_raylet(dice.choice(nodes.present()))
            nodes.add()
            dead.append("a node")
            return
        gone = {*told.workers("lost"), *dead}
        alive = sorted(set(told.workers("joined")) - gone)
        victim = dice.choice(alive)  # who has just answered is one of them
        with suppress(ProcessLookupError):  # died with its node, and nobody knows yet
            kill(victim)
            dead.append(victim)

    told = Told(then)
    with RayPool(task) as pool:
        outcome = run_parts(range(400), pool, on_event=told)
    assert_whole(task, outcome, expected, 400)
    assert len(dead) == 20
    assert len(told.workers("lost")) >= 18
    # What was lost is what was in flight; at the end some is issued twice.
    again = [each for each in told.events if each.kind in ("retried", "reissued")]
    assert len(task.begun()) <= 400 + len(again)


DRIVER = """
import sys
from pathlib import Path
from pretended import Pretended
from visavis.cluster import RayPool
from visavis.schedule import run_parts
with RayPool(Pretended(Path(sys.argv[2]), seconds=0.05), address=sys.argv[1]) as pool:
    run_parts(range(10_000), pool)
"""


def test_a_killed_driver_takes_its_workers_along_and_the_job_can_run_again(
    nodes: Nodes, tmp_path: Path, expected: Any
) -> None:
    task = Pretended(tmp_path / "parts")
    command = [sys.executable, "-c", DRIVER, nodes.cluster.address, str(task.folder)]
    with subprocess.Popen(command) as driver:
        while driver.poll() is None and not (task.folder / "30").exists():
            time.sleep(0.05)
        driver.kill()
    assert driver.returncode == -signal.SIGKILL
    wait_until_gone({int(note.name.split("-")[1]) for note in task.notes.iterdir()})
    assert not (task.folder / "9999").exists()
    before = {part: path for part, path in published(task.folder).items() if part < 40}
    for path in task.folder.iterdir():
        if int(path.name) >= 40:
            path.unlink()
    with RayPool(task) as pool:
        outcome = run_parts(range(40), pool)
    assert_whole(task, outcome, expected, 40)
    assert before.items() <= published(task.folder).items()


def test_an_interrupt_ends_the_workers(nodes: Nodes, tmp_path: Path) -> None:
    def then(event: Event) -> None:
        if event.counts.done == 5:
            raise KeyboardInterrupt

    task = Pretended(tmp_path / "parts")
    told = Told(then)
    with pytest.raises(KeyboardInterrupt):
        run_parts(range(10_000), RayPool(task), on_event=told)
    wait_until_gone({process_of(worker) for worker in told.workers("joined")})
    assert len(task.begun()) < 10_000


# ---- strangers -------------------------------------------------------------------------------

OPEN_HEAD = """
import sys
from ray.cluster_utils import Cluster
head = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
cluster = Cluster(True, head_node_args=head)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""

JOIN = """
import sys
from visavis.cluster import connect
from visavis.errors import VisavisError
if sys.argv[3:]:
    connect._is_loopback = lambda host: False  # as from another machine
try:
    with connect.connected(sys.argv[1], insecure=sys.argv[2] == "insecure") as processors:
        print("joined", processors)
except VisavisError as error:
    print(type(error).__name__, error)
"""


def joining(address: str, *options: str, **environment: str) -> str:
    """What a new process says that joins a cluster."""
    command = [sys.executable, "-c", JOIN, address, *options]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_cluster_that_wants_a_token_is_joined_with_it_alone(nodes: Nodes) -> None:
    address = nodes.cluster.address
    assert joining(address, "closed", "elsewhere").startswith("joined ")
    wrong = joining(address, "closed", "elsewhere", RAY_AUTH_TOKEN="f" * 32)
    assert wrong.startswith(f"SetupError Ray at '{address}' ")
    assert "does not take the token of this process" in wrong


def test_a_cluster_elsewhere_that_wants_no_token_is_refused_unless_told(cluster: Any) -> None:
    command = [sys.executable, "-c", OPEN_HEAD]
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as head:
        assert head.stdout is not None
        address = head.stdout.readline().strip()
        assert address
        refused = joining(address, "closed", "elsewhere")
        assert refused.startswith(f"SetupError Ray at '{address}' is not seen to want a token: ")
        assert "--insecure" in refused
        careless = joining(address, "closed", "elsewhere", RAY_AUTH_MODE="disabled")
        assert careless == refused
        assert joining(address, "insecure", "elsewhere") == "joined 1"
        head.communicate()


def test_ray_is_not_started_here_for_everybody() -> None:
    said = joining("local", "closed", RAY_AUTH_MODE="disabled")
    assert said.startswith("SetupError Ray at 'local' would let everybody in: ")
