"""A cluster of several nodes for a test module, and nodes that come, go and are killed.

Its processors and GPUs are numbers alone.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

#: Ray asks for 75 MB at least.
STORE_BYTES = 80_000_000

#: A node whose raylet is killed is known to be dead after about two seconds, and one that is only
#: slow, as everything is on a busy machine, is not.
QUICK_TO_NOTICE = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 10_000,
    "health_check_failure_threshold": 3,
}


class Nodes:
    """A head without processors, and nodes that come and go."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster

    def add(self, num_cpus: int = 2, num_gpus: int = 0) -> Any:
        node = self.cluster.add_node(
            object_store_memory=STORE_BYTES, num_cpus=num_cpus, num_gpus=num_gpus
        )
        node.is_usual = (num_cpus, num_gpus) == (2, 0)
        return node

    def present(self) -> list[Any]:
        return list(self.cluster.worker_nodes)

    def alive(self) -> set[str]:
        import ray

        return {node["NodeID"] for node in ray.nodes() if node["Alive"]}

    def remove(self, node: Any) -> None:
        with reaped([node]):
            self.cluster.remove_node(node, allow_graceful=False)

    def kill_raylet(self, node: Any) -> None:
        os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
        self.remove(node)


@contextmanager
def reaped(nodes: list[Any]) -> Iterator[None]:
    """Wait for the processes of nodes that the block ends: Ray kills and forgets them."""
    started = [
        each.process for node in nodes for kind in node.all_processes.values() for each in kind
    ]
    yield
    for process in started:
        process.wait(60)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    # Workers import the pretended task by name.
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "token")
        import ray
        from ray._private.authentication.authentication_token_setup import (
            ensure_token_if_auth_enabled,
        )
        from ray.cluster_utils import Cluster

        # The token of this account: Ray keeps what it has once read, for other modules too.
        ensure_token_if_auth_enabled(create_token_if_missing=True)
        head = {"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False}
        cluster = Cluster(True, head_node_args=head | {"_system_config": QUICK_TO_NOTICE})
        options = {"log_to_driver": False, "configure_logging": False}
        ray.init(cluster.address, **options)
        yield cluster
        ray.shutdown()
        with reaped(cluster.list_all_nodes()):
            cluster.shutdown()


@pytest.fixture
def nodes(cluster: Any) -> Nodes:
    """Two nodes of two processors, whatever the test before has left."""
    nodes = Nodes(cluster)
    for node in nodes.present():
        if not node.is_usual or node.node_id not in nodes.alive():
            nodes.remove(node)
    while len(nodes.present()) < 2:
        nodes.add()
    return nodes


@dataclass(frozen=True)
class Late:
    """A task that takes its time, so that a worker who comes later finds some work left."""

    task: Any
    seconds: float

    def __call__(self, part_index: int) -> Any:
        time.sleep(self.seconds)
        return self.task(part_index)
