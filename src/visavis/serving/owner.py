"""`Owner`: some shards of the base, ready to answer at the offset that is asked for.

A shard is every n-th part of the base, of n owners. An owner holds two of them, so that each has
two owners (chained: what one leaves undone is shared by its neighbours). It reads the base by
itself and is told everything else: catalog and policy when a version is loaded, entries of the
journal with what is asked. It keeps the last states, because the shards of one request must be
answered from one offset, and what it does not have any more it says.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from functools import partial
from typing import Any, Final, Literal, NamedTuple

from visavis.base import StoredBase
from visavis.catalog import Catalog
from visavis.errors import InputError, SetupError, VisavisError
from visavis.journal.entries import Entry
from visavis.policy import Policy
from visavis.serving.audience import Audience
from visavis.serving.customers import Customers
from visavis.serving.doors import misfits, refuse_misfits
from visavis.serving.gathering import Rows, rows_of
from visavis.serving.serving import Explained, Serving
from visavis.serving.tail import Delta
from visavis.serving.touched import State
from visavis.serving.version import HISTORY_BYTES, ServingVersion, Version

__all__ = [
    "METHODS",
    "Missed",
    "Owner",
    "Question",
    "Source",
    "Told",
    "Want",
    "owners_of",
    "shards_of",
]

#: States that are kept of each version: as many changes of the journal may come in while the
#: shards of one request are under way.
_STATES_MAX: Final = 32


def owners_of(shard: int, count: int) -> tuple[int, ...]:
    """Who owns a shard, of so many owners."""
    return (shard,) if count == 1 else (shard, (shard + 1) % count)


def shards_of(owner: int, count: int) -> tuple[int, ...]:
    """The shards of an owner."""
    return (owner,) if count == 1 else (owner, (owner - 1) % count)


class Source(NamedTuple):
    """What a version is made of; owners read the base where they are."""

    stored: StoredBase
    catalog: Catalog
    policy: Policy
    as_of: date


class Want(NamedTuple):
    """The state that an answer must come from.

    Attributes
    ----------
    key : ServingVersion
        Of the version: its name at offset 0.
    offset : int
    delta : Delta or None
        What the owner may not know yet.
    """

    key: ServingVersion
    offset: int
    delta: Delta | None


class Question(NamedTuple):
    """What one shard is asked.

    Attributes
    ----------
    shard : int or None
        None: any will do.
    method : str
        One of `METHODS`.
    args : tuple
    options : mapping
    """

    shard: int | None
    method: str
    args: tuple[Any, ...] = ()
    options: Mapping[str, Any] = {}


class Missed(NamedTuple):
    """Why an owner cannot answer from the state that is wanted.

    Attributes
    ----------
    why : {"unloaded", "behind", "gone"}
        The version is not there; entries are missing before those that came; the owner is beyond.
    offset : int
        The newest that it has.
    """

    why: Literal["unloaded", "behind", "gone"]
    offset: int


class Told(NamedTuple):
    """What an owner answers.

    Attributes
    ----------
    offset : int
        The newest that it has, of the version.
    values : list
        One for each question; what a client caused is a VisavisError.
    """

    offset: int
    values: list[Any]


class _Held:
    """One version at its last offsets."""

    def __init__(self, states: Mapping[int, State], offset: int) -> None:
        self.newest = offset
        self.states: OrderedDict[int, Mapping[int, State]] = OrderedDict({offset: states})

    def advance(self, delta: Delta) -> None:
        """Take in what is new; what was known of who is forgotten goes."""
        entries = [each for each in delta.entries if each.offset > self.newest]
        states = {
            shard: state.advanced(entries, delta.through, delta.forgotten)
            for shard, state in self.states[self.newest].items()
        }
        if delta.forgotten is not None:
            self.states.clear()
        self.newest = delta.through
        self.states[self.newest] = states
        while len(self.states) > _STATES_MAX:
            self.states.popitem(last=False)


class Owner:
    """Holds shards and answers for them; knows no transport. Any number of threads may ask.

    Parameters
    ----------
    index, count : int
        Which owner it is, of how many.
    threads : int
        That load, and that share a question about many customers.
    variant, history_bytes
        As of `Serving.open`.
    """

    def __init__(
        self,
        index: int,
        count: int,
        *,
        threads: int = 1,
        variant: str | None = None,
        history_bytes: int = HISTORY_BYTES,
    ) -> None:
        self._shards = shards_of(index, count)
        self._count = count
        self._threads = threads
        self._variant = variant
        self._history_bytes = history_bytes // len(self._shards)
        self._lock = threading.Lock()
        self._held: dict[ServingVersion, _Held] = {}
        self._serving: Serving | None = None

    def load(
        self,
        key: ServingVersion,
        source: Source,
        delta: Delta | None,
        objecting: frozenset[bytes] = frozenset(),
    ) -> int:
        """Load and check a version, beside those that are there.

        Parameters
        ----------
        key : ServingVersion
        source : Source
        delta : Delta or None
            What the journal says beyond the base.
        objecting : frozenset of bytes
            Who objected up to there, in the base or not.

        Returns
        -------
        int
            The offset that it is at.

        Raises
        ------
        VisavisError
            If it cannot be read or does not fit together, or is another than `key`.
        """
        stored = source.stored
        opened = partial(Customers.open, stored, self._threads)
        whole = Version.make(
            opened([]),
            source.catalog,
            source.policy,
            as_of=source.as_of,
            threads=self._threads,
            variant=self._variant,
            is_part=True,
        )
        if (found := whole.named(0)) != key:
            raise SetupError(f"what was sent is {found}, not {key}")
        states = {}
        for shard in self._shards:
            customers = opened(range(shard, stored.part_count, self._count))
            version = whole.beside(customers, history_bytes=self._history_bytes)
            states[shard] = State.first(version, stored.manifest.journal_offset, objecting)
        held = _Held(states, stored.manifest.journal_offset)
        if delta is not None:
            held.advance(delta)
        with self._lock:
            self._held[key] = held
            if self._serving is None:
                self._serving = Serving(states[self._shards[0]], None, self._threads, Version.make)
        return held.newest

    def keep(self, keys: Collection[ServingVersion]) -> None:
        """Let go of every version but some."""
        with self._lock:
            for key in [key for key in self._held if key not in keys]:
                del self._held[key]

    def hear(self, wants: Sequence[Want]) -> dict[ServingVersion, int]:
        """Take in what is new; say how far each version is. Answering is a sign of life."""
        for want in wants:
            self._states(want)
        with self._lock:
            return {key: held.newest for key, held in self._held.items()}

    def answer(self, want: Want, questions: Sequence[Question]) -> Told | Missed:
        """Answer some questions from one state."""
        found = self._states(want)
        if isinstance(found, Missed):
            return found
        newest, states = found
        return Told(newest, [self._told(states, each) for each in questions])

    def _states(self, want: Want) -> Missed | tuple[int, Mapping[int, State]]:
        with self._lock:
            held = self._held.get(want.key)
            if held is None:
                return Missed("unloaded", 0)
            if want.offset > held.newest:
                if want.delta is None or want.delta.after > held.newest:
                    return Missed("behind", held.newest)
                held.advance(want.delta)
            states = held.states.get(want.offset)
            return Missed("gone", held.newest) if states is None else (held.newest, states)

    def _told(self, states: Mapping[int, State], question: Question) -> Any:
        shard = self._shards[0] if question.shard is None else question.shard
        serving = self._serving
        assert serving is not None, "nothing is asked before a version is loaded"  # noqa: S101
        ask = METHODS[question.method]
        try:
            return ask(serving.at(states[shard]), *question.args, **question.options)
        except VisavisError as error:
            # Frames of the traceback would go nowhere, and hold what the request held.
            return error.with_traceback(None)


def _match(serving: Serving, *args: Any, **options: Any) -> Rows:
    return rows_of(serving.match(*args, **options))


def _match_profiles(serving: Serving, *args: Any, **options: Any) -> Rows:
    return rows_of(serving.match_profiles(*args, **options))


def _explain(serving: Serving, *args: Any, **options: Any) -> Explained:
    return serving.explain(*args, **options)


def _explain_profile(serving: Serving, *args: Any, **options: Any) -> Explained:
    return serving.explain_profile(*args, **options)


def _find_audience(serving: Serving, *args: Any, **options: Any) -> Audience:
    return serving.find_audience(*args, **options)


def _objecting(serving: Serving, customer_ids: Sequence[str]) -> list[bool]:
    """Who of some objected, as the shard's base or the journal has it."""
    found: list[bool] = serving.state.objections_of(customer_ids).tolist()
    return found


def _unknown(serving: Serving, customer_ids: Sequence[str]) -> list[str]:
    """Those of some ids that the shard does not hold."""
    customers = serving.version.customers
    return [each for each in customer_ids if customers.unknown(each) is not None]


def _misfits(serving: Serving) -> dict[str, InputError]:
    return misfits(serving.state)


def _check_record(serving: Serving, entries: Sequence[Entry]) -> None:
    """Refuse entries behind the state that make somebody an error who is none now."""
    state = serving.state
    ahead = state.advanced(entries, state.offset + len(entries), None)
    refuse_misfits(ahead, state)


#: What an owner can be asked.
METHODS: Final[Mapping[str, Callable[..., Any]]] = {
    "match": _match,
    "match_profiles": _match_profiles,
    "explain": _explain,
    "explain_profile": _explain_profile,
    "objecting": _objecting,
    "find_audience": _find_audience,
    "unknown": _unknown,
    "misfits": _misfits,
    "check_record": _check_record,
}
