"""`Serving`: what one process asks to answer requests; knows no transport."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from datetime import date
from functools import partial
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from visavis.base import StoredBase
from visavis.catalog import Catalog
from visavis.errors import InputError
from visavis.journal import Appended, Journal
from visavis.journal.entries import Entry
from visavis.journal.incoming import contents_of, tables_of
from visavis.policy import Policy
from visavis.serving.answer import Answer
from visavis.serving.audience import Audience, find_audience
from visavis.serving.context import Context, Terms
from visavis.serving.customers import Customers
from visavis.serving.doors import (
    CUSTOMERS_MAX,
    Expected,
    caught_up,
    check_attributes,
    check_expected,
    check_ids,
    check_reasons,
    chosen_beside,
    processors,
    refuse_misfits,
    state_of,
)
from visavis.serving.explaining import Explained, explain, explain_profile
from visavis.serving.matching import Found, found_in, match_block, over_threads
from visavis.serving.overrides import OfRows, Overrides
from visavis.serving.profiles import Profiles, profile_block
from visavis.serving.single import answer_single
from visavis.serving.telling import attributes_told
from visavis.serving.touched import State
from visavis.serving.version import HISTORY_BYTES, ServingVersion, Version

__all__ = ["CUSTOMERS_MAX", "Expected", "Explained", "Serving"]

#: How long what another process recorded may go unnoticed. Looking takes some 50 µs.
LOOK_S: Final = 0.005


class Serving:
    """One version of base, catalog and policy, with what the journal says, ready to answer.

    Made by `open`. Any number of threads may ask and record at the same time. It does not outlive a
    fork: a child opens its own.
    """

    def __init__(
        self, state: State, journal: Journal | None, threads: int, remake: Callable[..., Version]
    ) -> None:
        self._state = state
        self._journal = journal
        self._threads = threads
        self._remake = remake
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="visavis-match")
        #: Its own: who asks for one customer must not stand behind everybody of an audience.
        self._audience_pool = ThreadPoolExecutor(
            max(1, threads // 2), thread_name_prefix="visavis-audience"
        )
        #: Held by who reads the journal and replaces the state.
        self._recording = threading.RLock()
        self._publishing = threading.Lock()
        self._looked_at = time.monotonic()
        self._pulse: Callable[[], int] = int
        self._pulsed = 0
        self._is_closed = False

    @classmethod
    def open(
        cls,
        base: StoredBase,
        catalog: Catalog,
        policy: Policy,
        *,
        journal: Journal | None = None,
        as_of: date | str | None = None,
        threads: int | None = None,
        variant: str | None = None,
        history_bytes: int = HISTORY_BYTES,
        expected: Expected = Expected(),  # noqa: B008 (immutable)
    ) -> Serving:
        """Load and check everything; what comes back answers at once.

        Parameters
        ----------
        base : StoredBase
        catalog : Catalog
        policy : Policy
        journal : Journal, optional
            Consulted before the base, from the base's offset on. It stays the caller's to close.
        as_of : date or str, optional
            Default: the base's.
        threads : int, optional
            That load, and that share a request of many customers. Default: the processors.
        variant : str, optional
            See `kernel.choose_variant`.
        history_bytes : int
            For adjustments in memory: see `visavis.serving.version`.
        expected : Expected
            What the caller means to serve.

        Raises
        ------
        InputError
            If base, catalog, policy, journal and day do not fit together, or a digest differs.
        CorruptionError
            If a byte of base or journal is not as it was written.
        """
        check_expected(base, catalog, policy, expected)
        remake = partial(
            Version.make, threads=threads, variant=variant, history_bytes=history_bytes
        )
        version = remake(Customers.open(base, processors(threads)), catalog, policy, as_of=as_of)
        state = state_of(version, journal)
        return cls(state, journal, version.engine.threads, remake)

    @property
    def state(self) -> State:
        """What is answered from, as far as the journal is known."""
        return self._state

    def at(self, state: State) -> Self:
        """The same, with the same threads, that answers from one state and records nothing."""
        other = copy(self)
        other._state, other._journal = state, None
        return other

    def close(self) -> None:
        """Stop the threads; requests in flight end as they would, later ones are refused."""
        self._is_closed = True
        self._pool.shutdown()
        self._audience_pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> ServingVersion:
        """What the next request is answered from, if nothing is recorded before."""
        return self._current().name

    @property
    def version(self) -> Version:
        """Base, catalog and policy that are served now."""
        return self._state.version

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
        """The best opportunities of some customers, exactly.

        Parameters
        ----------
        customer_ids : sequence of str
            In any order, repeats allowed; at most `CUSTOMERS_MAX`.
        context : Context, optional
        reasons : int, optional
            At most so many reasons per opportunity; None = none are looked for.
        distinctive : bool
            As of `Matches.to_table`.
        wording : bool
            Tell also what the messages of the opportunities need to know of their customers.
        overrides : Overrides, optional
            What is otherwise for each of them; it goes before what the context says of all.

        Returns
        -------
        Answer
            A customer whom the base does not hold is an error of that row.

        Raises
        ------
        InputError
            Naming the field.
        SetupError
            If it was time to look at the journal and it cannot be read: what it says may be an
            objection.
        """
        check_ids(customer_ids)
        check_reasons(reasons)
        state = self._current()
        version = state.version
        if len(customer_ids) == 1 and context is None and overrides is None:
            answer = answer_single(
                state, customer_ids, reasons=reasons, distinctive=distinctive, wording=wording
            )
            if answer is not None:
                return answer
        terms = state.plain if context is None else Terms.of(version, context)
        of_rows = None
        if overrides is not None:
            of_rows = OfRows.of(version, overrides, len(customer_ids))
        rows, errors = version.customers.rows(customer_ids)

        def matched(places: npt.NDArray[np.int64]) -> Found:
            return match_block(
                state,
                rows[places],
                terms,
                reasons=reasons,
                distinctive=distinctive,
                of_rows=None if of_rows is None else of_rows.take(places),
            )

        places = np.arange(len(rows))
        found = Found.together(over_threads(places, self._pool, self._threads, matched))
        control = version.control[rows] & (rows >= 0)
        attributes: dict[int, dict[str, Any]] = {}
        if wording:
            counts, columns = found.opportunity_count, found.capability_index
            attributes = attributes_told(state, rows, terms, counts, columns, of_rows)
        return Answer(
            state.name_on(terms.as_of),
            version,
            customer_ids,
            found.errors | errors,
            found.opportunity_count,
            control,
            found.capability_index,
            found.propensity,
            found.expected_value,
            found.reasons,
            found.stats,
            attributes,
        )

    def match_at_once(
        self,
        customer_id: str,
        *,
        reasons: int | None = None,
        distinctive: bool = False,
        wording: bool = False,
    ) -> Answer | None:
        """What `match` answers about one customer, where nothing has to be waited for.

        Parameters
        ----------
        customer_id : str
        reasons, distinctive, wording
            As in `match`.

        Returns
        -------
        Answer or None
            None: it is time to look at the journal, or there is something unusual about the
            customer. `match` answers then.
        """
        check_reasons(reasons)
        if self._is_closed or self._must_look(self._pulse()):
            return None
        return answer_single(
            self._state, [customer_id], reasons=reasons, distinctive=distinctive, wording=wording
        )

    def match_profiles(
        self,
        profiles: Profiles,
        context: Context | None = None,
        *,
        reasons: int | None = None,
        distinctive: bool = False,
    ) -> Answer:
        """The best opportunities of customers whom no base holds.

        Parameters
        ----------
        profiles : Profiles
            At most `CUSTOMERS_MAX`. Who objected, as the journal has it, has no opportunity
            whatever the profile says.
        context, reasons, distinctive
            As in `match`.

        Raises
        ------
        InputError
            Naming field and row: one profile that is wrong refuses them all.
        """
        check_reasons(reasons)
        state = self._current()
        version = state.version
        terms = state.plain if context is None else Terms.of(version, context)
        live, block, control = profile_block(state, profiles, terms, CUSTOMERS_MAX)
        count = len(control)
        found = found_in(version, terms, count, live, block, {}, reasons, distinctive)
        ids = profiles.customer_ids
        return Answer(
            state.name_on(terms.as_of),
            version,
            [str(row) for row in range(count)] if ids is None else ids,
            {},
            found.opportunity_count,
            control,
            found.capability_index,
            found.propensity,
            found.expected_value,
            found.reasons,
            found.stats,
        )

    def explain(
        self, customer_id: str, capability_id: str, context: Context | None = None
    ) -> Explained:
        """Why a customer has, or has not, an opportunity, and what would change it.

        Raises
        ------
        NotFoundError
            If the base or the catalog does not hold the id.
        InputError
            Naming a field of the context; or if the journal's entries about the customer do not
            fit the base.
        """
        return explain(self._current(), customer_id, capability_id, context)

    def explain_profile(
        self, profile: Profiles, capability_id: str, context: Context | None = None
    ) -> Explained:
        """Why a customer whom no base holds has, or has not, an opportunity.

        Parameters
        ----------
        profile : Profiles
            Of one customer, with an id.
        capability_id : str
        context : Context, optional

        Raises
        ------
        NotFoundError
            If the catalog does not hold the id.
        InputError
            Naming a field of the profile or of the context.
        """
        return explain_profile(self._current(), profile, capability_id, context)

    def find_audience(
        self,
        capability: str | Mapping[str, object],
        context: Context | None = None,
        *,
        k: int,
        reach: bool = False,
        reasons: int | None = None,
    ) -> Audience:
        """The best customers of a capability that is served, or of a draft.

        Parameters
        ----------
        capability : str or mapping
            An id, or a row as `Catalog.from_rows` takes it. With the id of one that is served it
            stands in that one's place; a new id must not be named by facts.
        context : Context, optional
            Of the day, of what is available, and of the policy; not of one customer. For a draft
            of a new id, ``only`` and ``without`` say what else there is.
        k : int
            At most so many customers, up to `AUDIENCE_MAX`.
        reach : bool
            Count also how many customers would get it among their own best. The first time for a
            version and context, everybody is matched.
        reasons : int, optional
            At most so many for each customer, as of an opportunity; None = none are looked for.

        Raises
        ------
        NotFoundError
            If the catalog does not hold the id.
        InputError
            If the draft is no capability, or does not fit the base; or naming a field.
        """
        check_reasons(reasons)
        return find_audience(
            self._current(),
            capability,
            Context() if context is None else context,
            k=k,
            reach=reach,
            reasons=reasons,
            pool=self._audience_pool,
        )

    def record(
        self,
        request_id: str,
        *,
        facts: pa.Table | None = None,
        attributes: pa.Table | Sequence[pa.Table] | None = None,
        objections: Sequence[str] = (),
    ) -> Appended:
        """Record what happened: durable when this returns, and seen by the next request.

        Parameters
        ----------
        request_id : str
            Sent again with the same content, it is answered with the same offsets.
        facts, attributes, objections
            As in `Journal.append`.

        Raises
        ------
        InputError
            Naming column and row; also for what does not fit the base that is served, of which
            then nothing is recorded.
        StorageError
            As of `Journal.append`.
        """
        journal = self._open_journal()
        contents = contents_of(facts, attributes, objections)
        with self._recording:
            self._catch_up(journal)
            state = self._state
            for table in tables_of(attributes):
                check_attributes(state.version, table)
            after = enumerate(contents, start=state.offset + 1)
            entries = [Entry(offset, *content) for offset, content in after]
            # What it would lead to is computed before: what fails later would fail every batch.
            is_known = journal.knows(request_id)
            ahead = (
                state if is_known else state.advanced(entries, state.offset + len(entries), None)
            )
            if not is_known:
                self._refuse_record(ahead, state, entries)
            appended = journal.append(
                facts=facts, attributes=attributes, objections=objections, request_id=request_id
            )
            expected = (state.offset + 1, state.offset + len(entries), False, 0)
            first, last = appended.first_offset, appended.last_offset
            if expected == (first, last, appended.repeated, appended.dropped_count):
                self._state = ahead
            else:
                # It was repeated, or others recorded in between, or somebody is forgotten.
                self._catch_up(journal)
        return appended

    def _refuse_record(self, ahead: State, now: State, _: list[Entry]) -> None:
        """Refuse entries that make somebody an error who is none now."""
        refuse_misfits(ahead, now)

    def forget(self, customer_id: str) -> int:
        """Erase a customer from the journal; the next request knows of an objection alone.

        The base still holds the customer: see ``visavis base forget``.

        Returns
        -------
        int
            How many entries were emptied.
        """
        journal = self._open_journal()
        with self._recording:
            count = journal.forget(customer_id)
            self._catch_up(journal)
        return count

    def refresh(self) -> ServingVersion:
        """Take in what was recorded until now, whoever did it."""
        if self._journal is not None:
            with self._recording:
                self._catch_up(self._journal)
        return self._state.name

    def follow(self, pulse: Callable[[], int]) -> None:
        """Look at the journal before every request for which `pulse` is another number.

        Parameters
        ----------
        pulse : callable
            Tells of other processes that record. Without one, what they recorded is seen within
            `LOOK_S`.
        """
        self._pulse = pulse

    def publish(
        self,
        *,
        base: StoredBase | None = None,
        catalog: Catalog | None = None,
        policy: Policy | None = None,
        as_of: date | str | None = None,
        expected: Expected = Expected(),  # noqa: B008 (immutable)
    ) -> ServingVersion:
        """Serve something else: loaded and checked beside, then put in place at once.

        Requests in flight end with the version that they began with. Rolling back is publishing
        what was served before.

        Parameters
        ----------
        base, catalog, policy : optional
            What stays is not given.
        as_of : date or str, optional
            Default: the day that is served, or the base's if that is later.
        expected : Expected
            What the caller means to publish.

        Raises
        ------
        InputError
            If they do not fit together or what the journal says does not fit the base any more, or
            a digest differs. What was served is served on.
        CorruptionError
            If a byte of the base is not as it was written.
        """
        with self._publishing, self._made(base, catalog, policy, as_of, expected) as version:
            # Nothing takes an objection back: what is known of them stays so.
            self.refresh()
            state = state_of(version, self._journal, self._state.objecting)
            with self._recording:
                if self._journal is not None:
                    state = caught_up(state, self._journal)
                self._refuse_publish(state, self._state)
                self._state = state
            return state.name

    def check(
        self,
        *,
        base: StoredBase | None = None,
        catalog: Catalog | None = None,
        policy: Policy | None = None,
        as_of: date | str | None = None,
        expected: Expected = Expected(),  # noqa: B008 (immutable)
    ) -> ServingVersion:
        """Load and check as `publish` does, and go on with what is served; errors as there."""
        with self._publishing, self._made(base, catalog, policy, as_of, expected) as version:
            return state_of(version, self._journal, self._state.objecting).name

    @contextmanager
    def _made(
        self,
        base: StoredBase | None,
        catalog: Catalog | None,
        policy: Policy | None,
        as_of: date | str | None,
        expected: Expected,
    ) -> Iterator[Version]:
        """Another version, with what is served where nothing else is given."""
        old = self._state.version
        stored, catalog, policy, day = chosen_beside(old, base, catalog, policy, as_of, expected)
        customers = old.customers
        if stored.digest != customers.stored.digest:
            customers = Customers.open(stored, self._threads)
        yield self._remake(customers, catalog, policy, as_of=day)

    def _refuse_publish(self, ahead: State, now: State) -> None:
        """Refuse a version that makes somebody an error who is none now."""
        refuse_misfits(ahead, now)

    def _open_journal(self) -> Journal:
        if self._journal is None:
            raise InputError("is not open: nothing can be recorded", field="journal")
        return self._journal

    def _current(self) -> State:
        """The state, after a look at the journal if the last one was long ago."""
        if self._is_closed:
            raise InputError("has been closed", field="serving")
        journal, pulse = self._journal, self._pulse()
        is_behind = pulse != self._pulsed
        if (
            journal is not None
            and self._must_look(pulse)
            # Somebody else is at it: what was recorded before this request is in place already,
            # unless another process did it just now; of that the pulse tells.
            and self._recording.acquire(blocking=is_behind)
        ):
            try:
                if is_behind and pulse == self._pulsed:
                    return self._state
                self._catch_up(journal)
                self._pulsed = pulse
            finally:
                self._recording.release()
        return self._state

    def _must_look(self, pulse: int) -> bool:
        """Whether the journal may say something that is to be known to the next request."""
        return self._journal is not None and (
            pulse != self._pulsed or time.monotonic() - self._looked_at >= LOOK_S
        )

    def _catch_up(self, journal: Journal) -> None:
        self._state = caught_up(self._state, journal)
        self._looked_at = time.monotonic()
