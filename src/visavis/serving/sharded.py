"""`ShardedServing`: `Serving` whose customers are with owners elsewhere.

::

    record ─► journal ─► state of no customers: the offset, who objected
                             │
    match ─► shard of each id by its part ─► ask(version, offset, questions by shard) ─► Answer
                             │                        │
                             └── entries since ───────┴─► owners that are behind

This process alone reads and writes the journal, and decides which version at which offset answers:
its own state is one of a base of which it holds no part. Every question names both, so that the
rows of an answer, from however many owners, are of one state, and what was recorded is seen by the
next request whoever answers it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from functools import partial
from typing import Any, Final, Self, TypeVar

import numpy as np
import numpy.typing as npt

from visavis.base import StoredBase
from visavis.catalog import Catalog
from visavis.errors import InputError, UnreachableError, VisavisError
from visavis.journal import Journal
from visavis.journal.entries import Entry
from visavis.policy import Policy
from visavis.serving.answer import Answer
from visavis.serving.asking import MovedError, ask
from visavis.serving.audience import Audience
from visavis.serving.context import Context
from visavis.serving.crew import PING_S, Crew
from visavis.serving.customers import Customers
from visavis.serving.doors import (
    Expected,
    check_expected,
    check_ids,
    check_reaches,
    check_reasons,
    chosen_beside,
    state_of,
)
from visavis.serving.gathering import Rows, answer_of, audience_of
from visavis.serving.overrides import OfRows, Overrides
from visavis.serving.owner import Question, Source
from visavis.serving.profiles import Profiles
from visavis.serving.seat import Transport
from visavis.serving.serving import Explained, Serving
from visavis.serving.tail import Delta, Tail
from visavis.serving.touched import State
from visavis.serving.version import ServingVersion, Version
from visavis.serving.waiting import ends_at

__all__ = ["ShardedServing"]

#: So often a request begins anew because its state was not kept.
_MOVES_MAX: Final = 8

_MOVES: Final = "the journal moves on faster than workers answer"

Int64 = npt.NDArray[np.int64]

T = TypeVar("T")


class ShardedServing(Serving):
    """Serves from owners of shards; made by `across`.

    To whoever asks it is a `Serving`, and its answers are the same, byte for byte. Where owners
    die the others answer; only where a shard has nobody for a while it raises `UnreachableError`.
    """

    def __init__(
        self,
        state: State,
        journal: Journal | None,
        remake: Callable[..., Version],
        transport: Transport,
    ) -> None:
        super().__init__(state, journal, 1, remake)
        self._tail = None if journal is None else Tail(journal)
        self._crew = Crew(transport, self._delta, self._objecting_before)
        self._count = transport.count
        self._stopped = threading.Event()
        self._tending = threading.Thread(target=self._tend, name="visavis-crew", daemon=True)

    @classmethod
    def across(
        cls,
        transport: Transport,
        base: StoredBase,
        catalog: Catalog,
        policy: Policy,
        *,
        journal: Journal | None = None,
        as_of: date | str | None = None,
        variant: str | None = None,
        expected: Expected = Expected(),  # noqa: B008 (immutable)
    ) -> Self:
        """Have owners load and check everything; what comes back answers at once.

        Parameters
        ----------
        transport : Transport
            Closed with what comes back, or if nothing does.
        base, catalog, policy, journal, as_of, variant, expected
            As of `Serving.open`. Owners find the base at the same place as this process does.

        Raises
        ------
        VisavisError
            As of `Serving.open`; and if the owners cannot be had.
        """
        try:
            check_expected(base, catalog, policy, expected)
            remake = partial(Version.make, threads=1, variant=variant, is_part=True)
            version = remake(Customers.open(base, 1, []), catalog, policy, as_of=as_of)
            serving = cls(state_of(version, journal), journal, remake, transport)
            serving._want(version)
            serving._crew.load(_key(version), is_stopped=serving._stopped.is_set)
            serving._refuse_unknown(version)
        except BaseException:
            transport.close()
            raise
        serving._tending.start()
        return serving

    def close(self) -> None:
        """End the owners; requests in flight fail."""
        self._stopped.set()
        if self._tending.ident is not None:
            self._tending.join()
        self._crew.close()
        super().close()

    def match(
        self,
        customer_ids: Sequence[str],
        context: Context | None = None,
        *,
        reasons: int | None = None,
        distinctive: bool = False,
        wording: bool = False,
        overrides: Overrides | None = None,
    ) -> Answer:
        """See `Serving.match`."""
        check_ids(customer_ids)
        options: dict[str, Any] = {
            "reasons": reasons,
            "distinctive": distinctive,
            "wording": wording,
        }

        def asked(state: State) -> tuple[tuple[Answer, list[Int64]], list[Question]]:
            nobody = self._nobody(context, options, state)
            if overrides is not None:
                OfRows.of(state.version, overrides, len(customer_ids))
            by_shard = self._by_shard(customer_ids, state)
            questions = [
                Question(
                    shard,
                    "match",
                    ([customer_ids[i] for i in at], context),
                    options if overrides is None else options | {"overrides": overrides.take(at)},
                )
                for shard, at in by_shard.items()
            ]
            return (nobody, list(by_shard.values())), questions

        (nobody, places), found = self._ask(asked)
        rows: list[Rows] = [_good(each) for each in found]
        return answer_of(nobody, customer_ids, list(zip(places, rows, strict=True)))

    def match_at_once(self, customer_id: str, **options: Any) -> None:
        """None: customers are with others, who are waited for."""

    def match_profiles(
        self,
        profiles: Profiles,
        context: Context | None = None,
        *,
        reasons: int | None = None,
        distinctive: bool = False,
    ) -> Answer:
        """See `Serving.match_profiles`; whoever has least to do answers."""
        options = {"reasons": reasons, "distinctive": distinctive}

        def asked(state: State) -> tuple[Answer, list[Question]]:
            nobody = self._nobody(context, options, state)
            known, shard = self._with_objections(profiles, state)
            return nobody, [Question(shard, "match_profiles", (known, context), options)]

        nobody, (answer,) = self._ask(asked)
        rows: Rows = _good(answer)
        count = len(rows.opportunity_count)
        ids = profiles.customer_ids
        ids = [str(row) for row in range(count)] if ids is None else ids
        return answer_of(nobody, ids, [(np.arange(count), rows)])

    def explain(
        self, customer_id: str, capability_id: str, context: Context | None = None
    ) -> Explained:
        """See `Serving.explain`."""
        args = customer_id, capability_id, context

        def asked(state: State) -> tuple[None, list[Question]]:
            (shard,) = self._by_shard([customer_id], state)
            return None, [Question(shard, "explain", args)]

        explained: Explained = _good(self._ask(asked)[1][0])
        return explained

    def explain_profile(
        self, profile: Profiles, capability_id: str, context: Context | None = None
    ) -> Explained:
        """See `Serving.explain_profile`."""

        def asked(state: State) -> tuple[None, list[Question]]:
            known, shard = self._with_objections(profile, state)
            return None, [Question(shard, "explain_profile", (known, capability_id, context))]

        explained: Explained = _good(self._ask(asked)[1][0])
        return explained

    def find_audience(
        self,
        capability: str | Mapping[str, object],
        context: Context | None = None,
        *,
        k: int,
        reach: bool = False,
        reasons: int | None = None,
    ) -> Audience:
        """See `Serving.find_audience`; every shard is asked."""
        check_reasons(reasons)
        options = {"k": k, "reach": reach, "reasons": reasons}
        questions = self._everywhere("find_audience", (capability, context), options)
        _, found = self._ask(lambda _: (None, questions))
        return audience_of([_good(each) for each in found], k)

    def _ask(self, asked: Callable[[State], tuple[T, list[Question]]]) -> tuple[T, list[Any]]:
        """Ask about one state, the newest, or one that is newer still."""
        ends = self._ends()
        for _ in range(_MOVES_MAX):
            state = self._current()
            key = _key(state.version)
            with self._crew.using(key, state.offset), suppress(MovedError):
                # What is wrong with the request is said before anybody is asked.
                said, questions = asked(state)
                return said, ask(self._crew, key, state.offset, questions, ends)
            self.refresh()
        raise UnreachableError(_MOVES)

    def _ask_beside(self, version: Version, asked: Callable[[State], list[Question]]) -> list[Any]:
        """Ask about the newest state of a version that may not be served yet."""
        ends = self._ends()
        for _ in range(_MOVES_MAX):
            offset = version.customers.stored.manifest.journal_offset
            state = State.first(version, offset if self._journal is None else self._journal.offset)
            with suppress(MovedError):
                found = ask(self._crew, _key(version), state.offset, asked(state), ends)
                return [_good(each) for each in found]
        raise UnreachableError(_MOVES)

    def _ends(self) -> float:
        """Until when to wait, by the clock of the transport."""
        return self._crew.transport.now() + ends_at() - time.monotonic()

    def _with_objections(self, given: Profiles, state: State) -> tuple[Profiles, int | None]:
        """Profiles with what the owners of their ids know of objections; and whom to ask."""
        ids = getattr(given, "customer_ids", None)
        if ids is None or isinstance(ids, (str, bytes)) or not all(map(_is_id, ids)):
            # Nobody is looked up, or whoever is asked says what is wrong.
            return given, None
        by_shard = self._by_shard(ids, state)
        if len(by_shard) == 1:
            return given, next(iter(by_shard))
        questions = [
            Question(shard, "objecting", ([ids[i] for i in at],)) for shard, at in by_shard.items()
        ]
        found = ask(self._crew, _key(state.version), state.offset, questions, self._ends())
        has_objected = np.zeros(len(ids), dtype=np.bool_)
        for at, said in zip(by_shard.values(), found, strict=True):
            has_objected[at] = _good(said)
        return given.objecting(has_objected), None

    def _nobody(self, context: Context | None, options: Mapping[str, Any], state: State) -> Answer:
        """The answer about no customer, from the code that answers about all."""
        return Serving.match(self.at(state), [], context, **options)

    def _everywhere(
        self, method: str, args: tuple[Any, ...] = (), options: Mapping[str, Any] | None = None
    ) -> list[Question]:
        return [Question(shard, method, args, options or {}) for shard in range(self._count)]

    def _by_shard(self, customer_ids: Sequence[str], state: State) -> dict[int, Int64]:
        """Where the customers of each shard stand among some ids."""
        part_count = state.version.customers.stored.part_count
        shard = _heads(customer_ids) % np.uint64(part_count) % np.uint64(self._count)
        return {int(each): np.flatnonzero(shard == each) for each in np.unique(shard)}

    def _refuse_record(self, ahead: State, now: State, entries: list[Entry]) -> None:  # noqa: ARG002
        ids = [each.customer_id.decode() for each in entries]

        def asked(state: State) -> tuple[None, list[Question]]:
            questions = []
            for shard, at in self._by_shard(ids, state).items():
                of_shard = [
                    entries[i]._replace(offset=state.offset + 1 + number)
                    for number, i in enumerate(at.tolist())
                ]
                questions.append(Question(shard, "check_record", (of_shard,)))
            return None, questions

        for answer in self._ask(asked)[1]:
            _good(answer)

    def _refuse_publish(self, ahead: State, now: State) -> None:
        known, new = (
            {
                name: fault
                for found in self._ask_beside(state.version, lambda _: self._everywhere("misfits"))
                for name, fault in found.items()
            }
            for state in (now, ahead)
        )
        for customer_id, fault in new.items():
            if customer_id not in known:
                raise fault

    @contextmanager
    def _made(
        self,
        base: StoredBase | None,
        catalog: Catalog | None,
        policy: Policy | None,
        as_of: date | str | None,
        expected: Expected,
    ) -> Iterator[Version]:
        """Another version, loaded by every owner for the block, and longer if it is served then."""
        before = self._state.version
        stored, catalog, policy, day = chosen_beside(before, base, catalog, policy, as_of, expected)
        version = self._remake(Customers.open(stored, 1, []), catalog, policy, as_of=day)
        if self._journal is not None:
            check_reaches(self._journal, stored.manifest.journal_offset)
        self._want(version)
        try:
            self._crew.load(_key(version), is_stopped=self._stopped.is_set)
            self._refuse_unknown(version)
            yield version
        finally:
            for key in {_key(before), _key(version)} - {_key(self._state.version)}:
                self._crew.leave(key)

    def _want(self, version: Version) -> None:
        stored = version.customers.stored
        source = Source(stored, version.catalog, version.policy, version.as_of)
        self._crew.want(_key(version), source, stored.manifest.journal_offset)

    def _refuse_unknown(self, version: Version) -> None:
        """Refuse exclusions of customers whom no owner holds, as one process would."""
        ids = version.policy.exclusions.customers

        def asked(state: State) -> list[Question]:
            return [
                Question(shard, "unknown", ([ids[i] for i in at],))
                for shard, at in self._by_shard(ids, state).items()
            ]

        missing = {each for found in self._ask_beside(version, asked) for each in found}
        for customer_id in ids:
            if customer_id in missing:
                error = version.customers.unknown(customer_id)
                raise InputError(str(error), field="policy.exclusions.customers")

    def _delta(self, _: ServingVersion, after: int, through: int | None) -> Delta | None:
        """What the journal says beyond an offset."""
        if self._tail is None or self._journal is None:
            return None
        return self._tail.delta(after, self._journal.offset if through is None else through)

    def _objecting_before(self, offset: int) -> frozenset[bytes]:
        return frozenset() if self._journal is None else self._journal.objecting(through=offset)

    def tend(self) -> None:
        """Look after the owners; who has nothing to do hears of the journal, too.

        It is done now and then by a thread of its own.
        """
        self._crew.note(_key(self._state.version), self.refresh().journal_offset)
        self._crew.tend()

    def _tend(self) -> None:
        while not self._stopped.wait(PING_S / 2):
            # A journal that cannot be read now fails the requests that need it.
            with suppress(VisavisError):
                self.tend()


def _key(version: Version) -> ServingVersion:
    """A version, at whatever offset."""
    return version.named(0)


def _good(answer: Any) -> Any:
    """What was answered; raises what is an error."""
    if isinstance(answer, VisavisError):
        raise answer
    return answer


def _is_id(given: object) -> bool:
    try:
        return isinstance(given, str) and bool(given.encode())
    except UnicodeEncodeError:
        return False


def _heads(customer_ids: Sequence[str]) -> npt.NDArray[np.uint64]:
    """What parts are chosen by; 0 of what is no id, which whoever is asked says."""
    heads = []
    for each in customer_ids:
        try:
            heads.append(hashlib.sha256(each.encode()).digest()[:8])
        except (AttributeError, UnicodeEncodeError):
            heads.append(bytes(8))
    return np.frombuffer(b"".join(heads), dtype=">u8").astype(np.uint64)
