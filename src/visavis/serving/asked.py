"""`Asked`: the capability of an audience, among those that are served; or a draft of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from visavis import kernel
from visavis.catalog import Catalog
from visavis.engine import Engine
from visavis.errors import InputError
from visavis.kernel.arguments import require
from visavis.serving.context import Context, Terms
from visavis.serving.version import Version

__all__ = ["Asked", "Pairs"]

Bools = npt.NDArray[np.bool_]


class Pairs(NamedTuple):
    """Customers who may meet the capability and are worth it, in any order."""

    rows: npt.NDArray[np.int64]
    expected_value: npt.NDArray[np.float64]
    propensity: npt.NDArray[np.float64]


class Asked(NamedTuple):
    """A capability among those that are served.

    Attributes
    ----------
    engine : Engine
        Of a catalog that holds it, on the day of the request.
    j : int
        Its index there.
    alone : Catalog
    panel : Panel
        Of it alone.
    rank : float
        Its place in the order of the served catalog, between two if it is new.
    closed : ndarray of bool, or None
        What the context leaves out of the engine's catalog.
    is_draft : bool
        It is not served.
    is_ready : bool
        It is served, on the served day: planes and adjustments are there.
    """

    engine: Engine
    j: int
    alone: Catalog
    panel: kernel.Panel
    rank: float
    closed: Bools | None
    is_draft: bool
    is_ready: bool

    @property
    def stands_in(self) -> bool:
        """Whether it is a draft in the place of a served one."""
        return self.is_draft and self.rank == self.j

    @classmethod
    def of(
        cls,
        version: Version,
        capability: str | Mapping[str, object],
        context: Context,
        terms: Terms,
    ) -> Asked:
        """A capability by id, or a draft of one as a row.

        Raises
        ------
        NotFoundError
            If the catalog does not hold the id.
        InputError
            If the draft is no capability, or does not fit the base.
        """
        require(capability, (str, Mapping), "capability", "an id or a row of a catalog")
        closed, is_draft = terms.closed, not isinstance(capability, str)
        if isinstance(capability, str):
            j = version.catalog.index_of(capability)
            engine, rank = version.engine, float(j)
            if terms.as_of != version.as_of:
                engine = engine.beside(engine.base, as_of=terms.as_of)
        else:
            engine, j = _with_draft(version, capability, terms)
            is_new = engine.catalog.capability_count > version.catalog.capability_count
            rank = j - 0.5 if is_new else float(j)
            if closed is not None:
                # Beside a new one, `only` and `without` say what else there is; a channel that is
                # shut is shut. In the place of another, everything is said of it.
                is_shut = _is_closed(engine.catalog, j, context, of_channels_alone=is_new)
                closed = np.insert(closed, j, is_shut) if is_new else closed.copy()
                closed[j] = is_shut
        index = np.array([j])
        return cls(
            engine,
            j,
            engine.catalog.take(index),
            engine.panel_of(index),
            rank,
            closed,
            is_draft,
            not is_draft and terms.as_of == version.as_of,
        )


def _is_closed(catalog: Catalog, j: int, context: Context, *, of_channels_alone: bool) -> bool:
    """Whether the context leaves a draft out."""
    channels = context.available_channels
    if channels is not None and catalog.channels[j] not in set(channels):
        return True
    if of_channels_alone:
        return False
    names = {
        "capabilities": catalog.ids[j],
        "products": catalog.products[j],
        "families": catalog.families[j],
        "channels": catalog.channels[j],
    }
    only, without = context.only._asdict(), context.without._asdict()
    return any(
        (only[kind] is not None and name not in set(only[kind]))
        or (without[kind] is not None and name in set(without[kind]))
        for kind, name in names.items()
    )


def _with_draft(version: Version, row: Mapping[str, object], terms: Terms) -> tuple[Engine, int]:
    """An engine of the served catalog with a draft, and the draft's index."""
    draft = Catalog.from_rows([row])
    name, served = draft.ids[0], version.catalog
    tables = [draft.to_table()]
    if name in version.capability_index:
        others = np.delete(np.arange(served.capability_count), version.capability_index[name])
        if len(others):
            tables.append(served.take(others).to_table())
    else:
        _check_unnamed(version, name)
        tables.append(served.to_table())
    engine = Engine(
        version.customers.stored.head,
        Catalog.from_table(pa.concat_tables(tables)),
        version.policy,
        as_of=terms.as_of,
        variant=version.engine.variant,
        is_part=True,
    )
    return engine, engine.catalog.index_of(name)


def _check_unnamed(version: Version, name: str) -> None:
    """Refuse a new id that facts of the base name already."""
    for part in version.customers.parts:
        # Contacts by an id that nobody knew cooled every channel down; of a known one they do not.
        if _names(part.facts, name):
            raise InputError(f"facts name {name!r} already: draft under another id", field="id")


def _names(facts: pa.Table, capability_id: str) -> bool:
    column = facts["capability_id"]
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    for chunk in chunks:
        named = chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk
        if named.index(capability_id).as_py() >= 0:
            return True
    return False
