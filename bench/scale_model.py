"""A model of a job on N machines: what bounds it first, from costs measured on one.

    python bench/scale_model.py                     # the table of docs/scale.md
    python bench/scale_model.py --nodes 1000 --customers 1e9 --capabilities 1e5

Every number that the simulation is fed with is an option; the defaults are what was measured on one
machine, and assumptions where one machine cannot tell (storage, network, stragglers, failures),
which docs/scale.md names as such.

Workers pull: each asks the driver for a part, reads it, matches it, writes its result and asks
again. The driver answers one at a time. Storage is shared evenly by all who read or write. When no
part is left, those in flight longest are issued once more, and the first copy that ends counts.
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections import deque
from dataclasses import dataclass, replace

PART_CUSTOMERS = 2**14


@dataclass(frozen=True)
class Setting:
    """What a job and its machines are.

    Attributes
    ----------
    nodes, cores : int
        Machines, and one-thread workers on each.
    customers, capabilities, indicators, k : float
    pairs_per_s : float
        Of one thread of the kernel.
    other_us : float
        Processor time beyond the kernel, per customer.
    start_s : float
        From the beginning to a worker that has packed the catalog.
    driver_us : float
        Of the driver, per part handed out and received.
    storage_gb_s : float
        Of the storage, all readers and writers together.
    node_gb_s : float
        Of a machine's network.
    row_bytes : float
        Of a published opportunity.
    straggler_share, straggler_factor : float
        So many parts take so many times longer.
    failures_per_node_hour : float
        Machines lost; they do not come back.
    copies : bool
        Whether stragglers are issued once more.
    """

    nodes: int = 1000
    cores: int = 16
    customers: float = 1e9
    capabilities: float = 1e5
    indicators: float = 128
    k: float = 10
    pairs_per_s: float = 1.3e9
    other_us: float = 4.0
    start_s: float = 9.0
    driver_us: float = 420.0
    storage_gb_s: float = 100.0
    node_gb_s: float = 1.25
    row_bytes: float = 18.4
    straggler_share: float = 0.01
    straggler_factor: float = 3.0
    failures_per_node_hour: float = 0.001
    copies: bool = True

    @property
    def parts(self) -> int:
        """How many parts the base has: a power of two would be next; the model takes the least."""
        return max(1, round(self.customers / PART_CUSTOMERS))

    @property
    def workers(self) -> int:
        """How many one-thread workers there are."""
        return self.nodes * self.cores

    @property
    def match_s(self) -> float:
        """Of one part on one thread."""
        pairs = PART_CUSTOMERS * self.capabilities
        return pairs / self.pairs_per_s + PART_CUSTOMERS * self.other_us * 1e-6

    @property
    def moved_s(self) -> float:
        """To read and write one part, when all workers do so at the same time."""
        size = PART_CUSTOMERS * (self.indicators * 4 + 45 + self.k * self.row_bytes)
        share = min(self.storage_gb_s / self.workers, self.node_gb_s / self.cores) * 1e9
        return size / share


@dataclass(frozen=True)
class Found:
    """How a simulated job went.

    Attributes
    ----------
    wall_s : float
        From the beginning, starting included.
    ideal_s : float
        The kernel's work spread evenly, and nothing else.
    issued_twice, lost : int
        Parts that ran once more, because they were late or their machine was lost.
    """

    wall_s: float
    ideal_s: float
    issued_twice: int
    lost: int


def simulate(setting: Setting, seed: int = 0) -> Found:
    """Run a job of pulled parts."""
    rng = random.Random(seed)  # noqa: S311  (a simulation)
    rate = setting.failures_per_node_hour / 3600.0
    dies = [rng.expovariate(rate) if rate else float("inf") for _ in range(setting.nodes)]
    waiting = list(range(setting.parts))
    # (time, worker, part that has just ended or −1)
    events = [
        (setting.start_s * rng.uniform(1.0, 1.2), worker, -1) for worker in range(setting.workers)
    ]
    heapq.heapify(events)
    done: set[int] = set()
    flights: deque[tuple[float, int]] = deque()
    copied: set[int] = set()
    driver_free = wall = 0.0
    lost = 0
    while len(done) < setting.parts:
        now, worker, part = heapq.heappop(events)
        if dies[worker // setting.cores] <= now:
            if part >= 0 and part not in done:
                waiting.append(part)
                lost += 1
            continue
        if part >= 0 and part not in done:
            done.add(part)
            wall = now
        if waiting:
            next_part = waiting.pop()
        else:
            next_part = _late(flights, done, copied, now - setting.match_s - setting.moved_s)
            if next_part < 0 or not setting.copies:
                heapq.heappush(events, (now + max(0.1, setting.match_s / 4), worker, -1))
                continue
            copied.add(next_part)
        driver_free = max(driver_free, now) + setting.driver_us * 1e-6
        factor = setting.straggler_factor if rng.random() < setting.straggler_share else 1.0
        took = (setting.match_s + setting.moved_s) * factor * rng.lognormvariate(0.0, 0.05)
        flights.append((driver_free, next_part))
        heapq.heappush(events, (driver_free + took, worker, next_part))
    pairs = setting.customers * setting.capabilities
    ideal = pairs / (setting.pairs_per_s * setting.workers)
    return Found(wall, ideal, len(copied), lost)


def _late(
    flights: deque[tuple[float, int]], done: set[int], copied: set[int], before: float
) -> int:
    """The part that has been in flight longest, since before a time; −1 if there is none."""
    while flights and (flights[0][1] in done or flights[0][1] in copied):
        flights.popleft()
    return flights[0][1] if flights and flights[0][0] < before else -1


def table(base: Setting) -> list[tuple[str, Setting]]:
    """The rows of docs/scale.md: the setting, and what each bound alone would change."""
    return [
        ("as measured and assumed", base),
        ("no stragglers issued twice", replace(base, copies=False)),
        ("a driver 10 times quicker", replace(base, driver_us=base.driver_us / 10)),
        ("storage 10 times quicker", replace(base, storage_gb_s=base.storage_gb_s * 10)),
        ("started already", replace(base, start_s=0.0)),
        ("10 nodes", replace(base, nodes=max(1, base.nodes // 100))),
        ("100 nodes", replace(base, nodes=max(1, base.nodes // 10))),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in vars(Setting()).items():
        kind = int if isinstance(default, int) and not isinstance(default, bool) else float
        if not isinstance(default, bool):
            parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default)
    base = Setting(**vars(parser.parse_args()))
    print(
        f"{base.customers:g} customers × {base.capabilities:g} capabilities, {base.parts:,} parts;"
        f" a part matches in {base.match_s:.2f} s and moves in {base.moved_s:.2f} s"
    )
    print(f"{'':34s}{'wall s':>10s}{'work s':>10s}{'kernel alone s':>16s}{'twice':>8s}{'lost':>6s}")
    for name, setting in table(base):
        found = simulate(setting)
        work = found.wall_s - setting.start_s
        print(
            f"{name:34s}{found.wall_s:10.1f}{work:10.1f}{found.ideal_s:16.1f}"
            f"{found.issued_twice:8d}{found.lost:6d}"
        )


if __name__ == "__main__":
    main()
