"""Marks: a digest per capability, published with a result, that tell later what changed since."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from visavis.catalog import Catalog
from visavis.errors import CorruptionError

__all__ = ["Marks", "marks_of"]

_MARK_BYTES: Final = 16
_MARK: Final = pa.binary(_MARK_BYTES)


class Marks(NamedTuple):
    """What each capability of a catalog is, by digest.

    Attributes
    ----------
    ids : pyarrow.StringArray
        Ascending.
    content : pyarrow.FixedSizeBinaryArray
        Of everything that a pair with the capability depends on.
    channel : pyarrow.StringArray
        Cool-downs of other capabilities depend on it too.
    """

    ids: pa.StringArray
    content: pa.FixedSizeBinaryArray
    channel: pa.StringArray

    def to_bytes(self) -> pa.Buffer:
        """One Arrow file."""
        sink = pa.BufferOutputStream()
        batch = pa.record_batch(self._asdict())
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(sink, batch.schema, options=options) as writer:
            writer.write_batch(batch)
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, content: pa.Buffer, named: str) -> Marks:
        """Read what `to_bytes` made.

        Raises
        ------
        CorruptionError
            If it is nothing of that.
        """
        try:
            with pa.ipc.open_file(content) as reader:
                batch = reader.get_batch(0)
                batch.validate(full=True)
                marks = cls(*(batch.column(name) for name in cls._fields))
        except (pa.ArrowException, OSError, KeyError, IndexError) as error:
            raise CorruptionError(f"{named} holds no marks: {error}") from error
        return marks

    def changed_since(self, old: Marks) -> tuple[npt.NDArray[np.int64], list[str]]:
        """What is not as it was.

        Returns
        -------
        ndarray of int64
            Ascending indices, here, of capabilities that are new or have changed.
        list of str
            Ids, there, of those that are gone or have changed.
        """
        before = dict(zip(old.ids.to_pylist(), old.content.to_pylist(), strict=True))
        now = zip(self.ids.to_pylist(), self.content.to_pylist(), strict=True)
        same = np.zeros(len(self.ids), dtype=np.bool_)
        for index, (capability_id, mark) in enumerate(now):
            if before.get(capability_id) == mark:
                same[index] = True
                del before[capability_id]
        return np.flatnonzero(~same), list(before)

    def same_channels(self, old: Marks) -> bool:
        """Whether contacts by id are told to be of the same channels as before."""
        return bool(self.ids.equals(old.ids) and self.channel.equals(old.channel))


def marks_of(catalog: Catalog, indicator_names: Sequence[str]) -> Marks:
    """The marks of a catalog, over a base's indicators."""
    weights = catalog.aligned_weights(indicator_names)
    columns = [
        *(getattr(catalog, f"{name}s") for name in ("product", "channel", "rule")),
        *(catalog.column("family").to_pylist(), catalog.valid_from, catalog.valid_to),
        *(each.tolist() for each in (catalog.bias, catalog.value, catalog.cost, catalog.link)),
        catalog.history_weights,
    ]
    marks = []
    for row, cells in zip(weights, zip(*columns, strict=True), strict=True):
        digest = hashlib.blake2b(repr(cells).encode(), digest_size=_MARK_BYTES)
        digest.update(row.tobytes())
        marks.append(digest.digest())
    ids = pa.array(catalog.ids, pa.string())
    return Marks(ids, pa.array(marks, _MARK), pa.array(catalog.channels, pa.string()))
