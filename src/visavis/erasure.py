"""Erasure: a customer leaves every version of a base, a journal and results.

What holds the customer is rewritten without, then published in its place, then the old file goes:
whenever that is interrupted, running it again finishes. What stays is a tombstone, the sha256 of
the id, in the base and in the journal: such a customer does not come back with the next load, and
counts as one who objected.

Nobody may load, compact or rescore into these places meanwhile: what is being written there
belongs to no manifest yet, and is removed.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from visavis.base.layout import part_bytes
from visavis.base.manifest import part_file
from visavis.base.stored import MANIFEST as VERSION_MANIFEST
from visavis.base.stored import StoredBase, is_of_version, version_folder, versions_at
from visavis.base.writing import part_entry, rows_of_base
from visavis.domain import CUSTOMER_ID
from visavis.errors import InputError, NotFoundError
from visavis.parts import part_of
from visavis.rescore.part import named_part, write_part
from visavis.rescore.plan import PLAN, Plan, ResultManifest
from visavis.rescore.results import MANIFEST as RESULT_MANIFEST
from visavis.rescore.results import Result, files_of_jobs, marks_name, plain
from visavis.store import Folder, Place, bytes_digest

__all__ = ["forget_in_base", "forget_in_result"]


def forget_in_base(place: Place, customer_id: str) -> int:
    """Take a customer out of every version of a base.

    Returns
    -------
    int
        How many versions held the customer.

    Raises
    ------
    InputError
        If there is no base, or `customer_id` is no id.
    CorruptionError, StorageError
        If a version cannot be read or written.
    """
    tombstone = _tombstone(customer_id)
    versions = versions_at(place)
    if not versions:
        raise InputError(f"{place} holds no base", field="path")
    count = sum(_forget_in_version(place, each, customer_id, tombstone) for each in versions)
    published = {version_folder(each) for each in versions}
    # Of a version that was never published: nobody reads it, and it may hold anybody.
    _remove(
        place,
        (
            name
            for name in place.names()
            if is_of_version(name) and name.partition("/")[0] not in published
        ),
    )
    place.remove_leftovers()
    return count


def _tombstone(customer_id: object) -> str:
    if not isinstance(customer_id, str) or not customer_id:
        raise InputError("must be text that is not empty", field=CUSTOMER_ID)
    try:
        return bytes_digest(customer_id.encode())
    except UnicodeEncodeError:
        raise InputError("must be text that UTF-8 can hold", field=CUSTOMER_ID) from None


def _forget_in_version(place: Place, version: int, customer_id: str, tombstone: str) -> bool:
    stored = StoredBase.open(place, version=version)
    manifest = stored.manifest
    folder = version_folder(version)
    entries = list(manifest.parts)
    index = part_of(customer_id, stored.part_count)
    part = stored.part(index)
    try:
        row = part.index_of(customer_id)
    except NotFoundError:
        row = -1
    if row >= 0:
        rest = rows_of_base(part, np.delete(np.arange(part.customer_count), row))
        content = part_bytes(rest)
        sha256 = bytes_digest(content)
        entries[index] = part_entry(rest, part_file(index, sha256), sha256)
        place.create(f"{folder}/{entries[index].file}", content)
    forgotten = tuple(sorted({*manifest.forgotten, tombstone}))
    changed = manifest.model_copy(update={"parts": tuple(entries), "forgotten": forgotten})
    if changed != manifest:
        place.replace(f"{folder}/{VERSION_MANIFEST}", changed.to_bytes())
    named = {f"{folder}/{each}" for each in (VERSION_MANIFEST, *(e.file for e in entries))}
    _remove(place, (name for name in place.names(folder) if name not in named))
    return row >= 0


def _remove(place: Place, names: Iterable[str]) -> None:
    """Remove files and what this machine keeps of them, in the order that finds both again."""
    for name in names:
        content = place.read(name)
        if content is not None:
            place.drop_cached(bytes_digest(content))
        place.remove(name)


def forget_in_result(place: Place, customer_id: str) -> int:
    """Take a customer out of a result; what an unfinished job has published is removed whole.

    Returns
    -------
    int
        How many opportunities of the customer were removed, or parts of an unfinished job.

    Raises
    ------
    InputError
        If there is no result, or `customer_id` is no id.
    CorruptionError, StorageError
        If it cannot be read or written.
    """
    _tombstone(customer_id)
    stands = place.read(PLAN)
    if stands is None:
        # What is left where an unfinished job was removed: then this is done.
        if isinstance(place, Folder) and place.path.is_dir() and not place.names():
            return 0
        raise InputError(f"{place} holds no result", field="path")
    Plan.parse(stands, f"{place}/{PLAN}")
    if place.read(RESULT_MANIFEST) is None:
        return _drop_unfinished(place)
    result = Result.open(place)
    manifest = result.manifest
    index = part_of(customer_id, result.plan.part_count)
    table = plain(result.part(index))
    rest = table.filter(pc.not_equal(table[CUSTOMER_ID], customer_id))
    count: int = table.num_rows - rest.num_rows
    parts = list(manifest.parts)
    if count:
        entry = parts[index]
        coded = _coded(rest)
        parts[index] = write_part(place, index, coded, entry.customer_count - 1, manifest.job_id)
        changed = ResultManifest.of(
            manifest.job_id,
            tuple(parts),
            marks_sha256=manifest.marks_sha256,
            forgotten_count=manifest.forgotten_count + 1,
        )
        place.replace(RESULT_MANIFEST, changed.to_bytes())
    named = {marks_name(manifest.marks_sha256), *(each.file for each in parts)}
    _remove(place, (name for name in files_of_jobs(place) if name not in named))
    place.remove_leftovers()
    return count


def _coded(table: pa.Table) -> pa.Table:
    """Ids as dictionaries again, made anew: the old ones name who has left."""
    for name in (CUSTOMER_ID, "capability_id"):
        at = table.schema.get_field_index(name)
        column = table.column(at).combine_chunks().dictionary_encode()
        table = table.set_column(at, table.schema.field(at).with_type(column.type), column)
    return table


def _drop_unfinished(place: Place) -> int:
    """Remove a job's parts, then its plan: it begins anew when it is asked for again."""
    names = files_of_jobs(place)
    _remove(place, names)
    place.remove_leftovers()
    place.remove(PLAN)
    return sum(named_part(name) is not None for name in names)
