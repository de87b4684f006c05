"""A schedule over workers that stall, die, come and go, in a world whose clock is ours."""

from __future__ import annotations

import pickle
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visavis.errors import (
    CorruptionError,
    ExtraError,
    InputError,
    RuleError,
    SetupError,
    StorageError,
    VisavisError,
)
from visavis.schedule import (
    Ended,
    Event,
    Outcome,
    PartReceipt,
    Patience,
    Running,
    ThreadPool,
    Worker,
    run_parts,
)

NEVER = float("inf")

#: What a part can be, whoever runs it.
TRUTHS = ["good", "good", "good", "corrupt", "wrong", "poison", "flaky", "out of reach"]


def receipt_of(part: int, digest: str = "") -> PartReceipt:
    return PartReceipt(part, f"{part}.parquet", "f" * 64, digest or f"d{part}", 1, 2, {}, {}, 0.0)


class Named(NamedTuple):
    name: str
    kind: str = "cpu"


class Fate(NamedTuple):
    """What becomes of one flight, and after how long."""

    seconds: float
    answer: PartReceipt | VisavisError | None


class World:
    """A pool of pretended workers, and its clock; `fate` says what becomes of each flight."""

    independent = True

    def __init__(
        self,
        fate: Callable[[str, int], Fate],
        names: Sequence[str] = ("a",),
        joining: Sequence[tuple[float, str]] = (),
        replace_after: float | None = None,
    ) -> None:
        self.fate, self.replace_after = fate, replace_after
        self.now = 0.0
        self.present = [Named(name) for name in names]
        self.joining = list(joining)
        self.said: list[str] = []
        self.log: list[tuple[float, str, int]] = []
        self.closed = False

    def clock(self) -> float:
        return self.now

    def _arrive(self) -> None:
        for when, name in [each for each in self.joining if each[0] <= self.now]:
            self.joining.remove((when, name))
            self.present.append(Named(name))

    def workers(self) -> Sequence[Worker]:
        self._arrive()
        return list(self.present)

    def refused(self) -> Sequence[str]:
        said, self.said = self.said, []
        return said

    def start(self, worker: Worker, part_index: int) -> Running:
        assert worker in self.present
        self.log.append((self.now, worker.name, part_index))
        seconds, answer = self.fate(worker.name, part_index)
        return Running(worker, part_index, (self.now + seconds, answer))

    def wait(self, running: Sequence[Running], timeout_s: float) -> Sequence[Ended]:
        assert timeout_s >= 0
        assert len({each.worker.name for each in running}) == len(running), "one part at a time"
        until = self.now + timeout_s
        first = min((each.ticket[0] for each in running), default=NEVER)
        joins = min((when for when, _ in self.joining if when > self.now), default=NEVER)
        self.now = max(self.now, min(until, first, joins))
        assert self.now < 1e5, "it never ends"
        ended = [Ended(each, each.ticket[1]) for each in running if each.ticket[0] <= self.now]
        for each, answer in ended:
            if answer is None:
                self.present.remove(each.worker)  # type: ignore[arg-type]
                if self.replace_after is not None:
                    name = f"{each.worker.name}+"
                    self.joining.append((self.now + self.replace_after, name))
        return ended

    def close(self) -> None:
        self.closed = True


def run(world: World, parts: Sequence[int], **options: Any) -> tuple[Outcome, list[Event]]:
    events: list[Event] = []
    outcome = run_parts(parts, world, clock=world.clock, on_event=events.append, **options)
    return outcome, events


def steady(seconds: float = 1.0) -> Callable[[str, int], Fate]:
    return lambda _, part: Fate(seconds, receipt_of(part))


def scripted(script: dict[str, list[Fate]]) -> Callable[[str, int], Fate]:
    """The fates of each worker's flights in turn; a second each where none is left."""
    return lambda name, part: script[name].pop(0) if script.get(name) else steady()(name, part)


class Chaos:
    """Truths by part, and accidents that befall flights: at most two deaths and one stall each."""

    def __init__(self, truths: Sequence[str], dice: random.Random) -> None:
        self.truths, self.dice = truths, dice
        self.deaths: Counter[int] = Counter()
        self.stalled: set[int] = set()
        self.unread: Counter[int] = Counter()

    def __call__(self, _: str, part: int) -> Fate:
        truth, dice = self.truths[part], self.dice
        seconds = dice.choice([0.01, 0.5, 1.0, 1.0, 30.0])
        if truth != "poison" and self.deaths[part] < 2 and dice.random() < 0.2:
            self.deaths[part] += 1
            return Fate(seconds, None)
        if part not in self.stalled and dice.random() < 0.1:
            self.stalled.add(part)
            return Fate(NEVER, None)
        return Fate(seconds, self.answer(truth, part))

    def answer(self, truth: str, part: int) -> PartReceipt | VisavisError | None:
        if truth == "poison":
            return None
        if truth in ("flaky", "out of reach"):
            self.unread[part] += 1
            if truth == "out of reach" or self.unread[part] < 4:
                return StorageError("cannot be read", path=part)
        if truth == "corrupt":
            return CorruptionError(f"part {part} is damaged")
        if truth == "wrong":
            return InputError("must be right", row=part)
        return receipt_of(part)


def ends_of(truths: Sequence[str]) -> dict[int, Any]:
    kinds = {"corrupt": CorruptionError, "wrong": InputError, "out of reach": StorageError}
    return {
        part: "poison" if truth == "poison" else kinds.get(truth, receipt_of(part))
        for part, truth in enumerate(truths)
    }


def ends_in(outcome: Outcome) -> dict[int, Any]:
    found = [
        *outcome.receipts.items(),
        *((part, type(error)) for part, error in outcome.failed.items()),
        *((part, "poison") for part in outcome.poison),
    ]
    assert len(dict(found)) == len(found), "each part ends once"
    for ends in (outcome.receipts, outcome.failed, outcome.poison):
        assert list(ends) == sorted(ends)
    return dict(found)


@given(
    truths=st.lists(st.sampled_from(TRUTHS), max_size=25),
    worker_count=st.integers(1, 6),
    dice=st.randoms(use_true_random=False),
)
def test_every_part_ends_once_as_what_it_is_whatever_befalls_workers(
    truths: list[str], worker_count: int, dice: random.Random
) -> None:
    # Stalled workers never come back: there are always more of those that join.
    joining = [(dice.uniform(0, 50), f"late-{number}") for number in range(len(truths) + 1)]
    names = [f"early-{number}" for number in range(worker_count)]
    world = World(Chaos(truths, dice), names, joining, replace_after=2.0)
    parts = list(range(len(truths)))
    dice.shuffle(parts)
    outcome, events = run(world, parts)
    assert ends_in(outcome) == ends_of(truths)
    assert all(len(set(killed)) == 3 for killed in outcome.poison.values())
    ended = Counter(each.part_index for each in events if each.kind in ("done", "failed", "poison"))
    assert ended == Counter(parts)
    for event in events:
        counts = event.counts
        assert counts.done + counts.failed + counts.poison + counts.running <= counts.parts
    if parts:
        last = events[-1].counts
        assert last.done + last.failed + last.poison == len(parts)


def test_who_is_faster_gets_more() -> None:
    world = World(
        lambda name, part: Fate(1.0 if name == "fast" else 5.0, receipt_of(part)), ["slow", "fast"]
    )
    run(world, range(12))
    assert Counter(name for _, name, _ in world.log)["fast"] >= 9
    assert [part for _, _, part in world.log][:12] == list(range(12))


def test_what_is_longest_in_flight_goes_to_idle_workers_once_more() -> None:
    stalled = Fate(NEVER, None)
    script = {
        "b": [stalled],
        "c": [Fate(1.0, receipt_of(2)), stalled],
        "a": [Fate(0.5, receipt_of(0))],
    }
    world = World(scripted(script), ["a", "b", "c"])
    outcome, events = run(world, range(6))
    assert list(outcome.receipts) == list(range(6))
    again = [each for each in events if each.kind == "reissued"]
    # Part 1 has been in flight since the beginning, with b.
    assert again[0].part_index == 1
    assert all(each.worker == "a" for each in again)
    assert {each.part_index for each in again} == {1, 4}
    assert len(world.log) == 8


def test_a_copy_that_dies_leaves_the_part_to_the_other_and_no_third_is_issued() -> None:
    script = {
        "a": [Fate(40.0, receipt_of(0))],
        "b": [Fate(1.0, receipt_of(1)), Fate(10.0, None)],
        "c": [Fate(0.5, receipt_of(2))],
    }
    world = World(scripted(script), ["a", "b", "c"])
    outcome, events = run(world, range(3))
    assert list(outcome.receipts) == [0, 1, 2]
    assert [name for _, name, part in world.log if part == 0] == ["a", "c"]
    script = {"a": [Fate(40.0, receipt_of(0))], "b": [Fate(1.0, None)]}
    world = World(scripted(script), ["a", "b"], joining=[(45.0, "c")])
    outcome, events = run(world, [0])
    # b had the second copy, and died of it: a still has the first.
    assert world.log == [(0.0, "a", 0), (10.0, "b", 0)]
    assert "retried" not in {each.kind for each in events}
    assert list(outcome.receipts) == [0]


def test_what_is_tried_again_comes_before_what_was_never_begun() -> None:
    world = World(scripted({"a": [Fate(1.0, None)]}), ["a", "b"], replace_after=0.5)
    run(world, range(4))
    assert [part for _, _, part in world.log][:3] == [0, 1, 0]


def test_nothing_is_issued_again_before_others_have_shown_how_long_it_takes() -> None:
    world = World(steady(6.0), ["a", "b", "c"])
    _, events = run(world, range(2))
    assert "reissued" not in {each.kind for each in events}
    world = World(scripted({"a": [Fate(NEVER, None)]}), ["a", "b"])
    outcome, events = run(world, [7])
    assert world.log == [(0.0, "a", 7), (10.0, "b", 7)]
    assert list(outcome.receipts) == [7]


def test_workers_that_share_a_fate_do_nothing_twice() -> None:
    world = World(scripted({"a": [Fate(50.0, receipt_of(0))]}), ["a", "b"])
    world.independent = False
    run(world, range(3))
    assert len(world.log) == 3


def test_two_workers_that_disagree_make_a_part_corrupt_by_name() -> None:
    script = {"a": [Fate(21.0, receipt_of(0, "x"))], "b": [Fate(11.0, receipt_of(0, "y"))]}
    world = World(scripted(script), ["a", "b"])
    # Both copies of part 0 end at 21 s.
    outcome, events = run(world, [0])
    assert list(outcome.failed) == [0]
    assert not outcome.receipts
    assert isinstance(outcome.failed[0], CorruptionError)
    assert str(outcome.failed[0]).startswith("part 0: ")
    assert events[-1].counts[:4] == (1, 0, 1, 0)


def test_two_workers_that_agree_are_one_receipt() -> None:
    script = {"a": [Fate(21.0, receipt_of(0))], "b": [Fate(11.0, receipt_of(0))]}
    outcome, events = run(World(scripted(script), ["a", "b"]), [0])
    assert outcome == Outcome({0: receipt_of(0)})
    assert [each.kind for each in events].count("done") == 1


def test_a_receipt_of_another_part_is_corrupt() -> None:
    outcome, _ = run(World(lambda _, part: Fate(1, receipt_of(part + 1)), ["a"]), [3])
    assert "part 3: a answered with the receipt of part 4" in str(outcome.failed[3])


def test_a_part_whose_files_are_out_of_reach_is_tried_later_and_elsewhere() -> None:
    error = StorageError("cannot be read", path="x")
    world = World(scripted({"a": [Fate(0.0, error)], "b": [Fate(3.0, receipt_of(1))]}), ["a", "b"])
    outcome, _ = run(world, [0, 1])
    # After half a second a is idle, but it has failed: b is waited for.
    assert world.log == [(0.0, "a", 0), (0.0, "b", 1), (3.0, "b", 0)]
    assert sorted(outcome.receipts) == [0, 1]
    world = World(scripted({"a": [Fate(0.0, error)] * 9}), ["a"])
    outcome, events = run(world, [0])
    assert [when for when, _, _ in world.log] == [0.0, 0.5, 1.5, 3.5]
    assert outcome.failed == {0: error}
    assert [each.kind for each in events].count("retried") == 3


def test_who_has_failed_is_not_avoided_for_ever() -> None:
    error = StorageError("cannot be read", path="x")
    script = {"a": [Fate(0.0, error)], "b": [Fate(NEVER, receipt_of(1))]}
    world = World(scripted(script), ["a", "b"])
    outcome, _ = run(world, [0, 1])
    assert world.log[2] == (5.5, "a", 0)
    assert sorted(outcome.receipts) == [0, 1]


@pytest.mark.parametrize(
    "error", [CorruptionError("damaged"), InputError("wrong"), SetupError("lacking")]
)
def test_what_is_wrong_with_a_part_is_an_answer_and_the_others_finish(error: VisavisError) -> None:
    world = World(lambda _, part: Fate(1.0, error if part == 2 else receipt_of(part)), ["a", "b"])
    outcome, events = run(world, range(5))
    assert outcome.failed == {2: error}
    assert list(outcome.receipts) == [0, 1, 3, 4]
    assert [part for _, _, part in world.log].count(2) == 1
    assert [each.reason for each in events if each.kind == "failed"] == [str(error)]


def test_a_part_that_kills_three_workers_is_poison_and_named_with_them() -> None:
    world = World(
        lambda _, part: Fate(1.0, None if part == 1 else receipt_of(part)),
        ["a", "b"],
        replace_after=1.0,
    )
    outcome, events = run(world, range(4))
    assert list(outcome.receipts) == [0, 2, 3]
    assert len(set(outcome.poison[1])) == 3
    assert [part for _, _, part in world.log].count(1) == 3
    lost = [each.worker for each in events if each.kind == "lost"]
    assert set(lost) <= set(outcome.poison[1])
    assert len(lost) >= 2


def test_without_a_worker_it_says_so_after_a_while() -> None:
    world = World(steady(), [])
    world.said = ["cpu-0: visavis 0 on a worker"]
    with pytest.raises(SetupError) as caught:
        run(world, range(3), patience=Patience(join_wait_s=20.0))
    assert str(caught.value) == (
        "3 of 3 parts are not done: no worker is left and none joined within 20 s"
        " (the last that came: cpu-0: visavis 0 on a worker)"
    )
    assert world.now == 20.0
    assert world.closed


def test_who_joins_in_time_is_used_and_who_is_lost_is_waited_for() -> None:
    world = World(
        lambda name, part: Fate(1.0, None if name == "a" else receipt_of(part)),
        ["a"],
        joining=[(50.0, "b"), (51.5, "c")],
    )
    outcome, events = run(world, range(4), patience=Patience(join_wait_s=60.0))
    assert list(outcome.receipts) == [0, 1, 2, 3]
    assert {name for _, name, _ in world.log} == {"a", "b", "c"}
    told = [(each.kind, each.worker) for each in events if each.kind in ("joined", "lost")]
    assert told == [("joined", "a"), ("lost", "a"), ("joined", "b"), ("joined", "c")]


@pytest.mark.parametrize("mistake", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupt_and_a_mistake_of_ours_close_the_pool_and_stay_what_they_are(
    mistake: type[BaseException],
) -> None:
    class Interrupted(World):
        def wait(self, *_: object) -> Sequence[Ended]:
            raise mistake

    world = Interrupted(steady())
    with pytest.raises(mistake):
        run(world, range(3))
    assert world.closed
    assert len(world.log) == 1


def test_no_part_needs_no_worker_and_the_same_part_twice_is_refused() -> None:
    assert run(World(steady(), []), []) == (Outcome(), [])
    with pytest.raises(InputError, match=r"^parts: must not name a part twice"):
        run(World(steady()), [1, 2, 1])


# ---- threads of this process -------------------------------------------------------------


def test_threads_give_the_same_as_one_and_name_themselves() -> None:
    def outcome(threads: int) -> Outcome:
        with ThreadPool(receipt_of, threads) as pool:
            return run_parts(range(20), pool)

    alone, many = outcome(1), outcome(3)
    assert {part: each._replace(worker="") for part, each in alone.receipts.items()} == {
        part: receipt_of(part) for part in range(20)
    }
    assert ends_in(alone).keys() == ends_in(many).keys()
    assert {each.worker for each in alone.receipts.values()} == {"thread-0"}
    assert {each.worker for each in many.receipts.values()} <= {f"thread-{n}" for n in range(3)}


def test_a_failing_part_fails_alone_on_threads(tmp_path: Path) -> None:
    tries: list[int] = []

    def task(part: int) -> PartReceipt:
        if part == 1:
            raise InputError("wrong", row=5)
        if part == 2:
            tries.append(part)
            if len(tries) < 3:
                raise StorageError("is busy", path=tmp_path)
        return receipt_of(part)

    with ThreadPool(task, 2) as pool:
        outcome = run_parts(range(4), pool, patience=Patience(backoff_s=0.01))
    assert sorted(outcome.receipts) == [0, 2, 3]
    assert str(outcome.failed[1]) == "row 5: wrong"
    assert len(tries) == 3


def test_a_mistake_of_ours_on_a_thread_stops_what_has_not_begun() -> None:
    begun: list[int] = []
    gate = threading.Event()

    def task(part: int) -> PartReceipt:
        begun.append(part)
        if part == 1:
            gate.set()
            raise ZeroDivisionError
        gate.wait(30)
        return receipt_of(part)

    with ThreadPool(task, 2) as pool, pytest.raises(ZeroDivisionError):
        run_parts(range(100), pool)
    assert set(begun) <= {0, 1, 2}


def test_no_thread_is_no_pool() -> None:
    with pytest.raises(InputError, match=r"^threads: must be at least 1, got 0"):
        ThreadPool(receipt_of, 0)


# ---- answers from other processes --------------------------------------------------------


ERRORS = [
    RuleError("bad", rule="a>1", position=2, column="a", capability="tea"),
    ExtraError("torch", "gpu"),
    InputError("wrong", field="paid", row=3, subject="customer 'c'"),
    StorageError("cannot be read", path="/a"),
    CorruptionError("damaged"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_come_back_from_another_process_as_they_were(error: VisavisError) -> None:
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 (our own bytes)
    assert type(back) is type(error)
    assert (str(back), back.args, vars(back)) == (str(error), error.args, vars(error))
