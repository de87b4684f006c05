"""The manifest of a base's version: what belongs to it, under a digest of its own."""

from __future__ import annotations

from datetime import date
from typing import Annotated, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from visavis.parts import PART_COUNT_MAX
from visavis.sealed import Sealed, Strict

__all__ = ["Manifest", "PartEntry", "part_file"]

_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Scale = Annotated[float, Field(ge=0, le=float(np.finfo(np.float32).max))]


class PartEntry(Strict):
    """What the manifest says of a part.

    Attributes
    ----------
    file : str
        Its name in the version's folder.
    sha256 : str
    customer_count, fact_count : int
    """

    file: Annotated[str, Field(pattern=r"^part-[0-9]{5,7}\.[0-9a-f]{16}\.arrow$")]
    sha256: _Digest
    customer_count: _Count
    fact_count: _Count


def part_file(index: int, sha256: str) -> str:
    """The name of a part's file."""
    return f"part-{index:05d}.{sha256[:16]}.arrow"


class Manifest(Sealed):
    """What belongs to a version.

    Attributes
    ----------
    as_of : date
        The UTC day up to which (inclusive) the indicators know the customers.
    indicators : tuple of str
    attributes : mapping of str to str
        Types by name.
    indicator_scale : tuple of float
        Root mean squares of the indicators, as float32: a hint for the kernel, never a result.
    journal_offset : int
        The journal's entries up to it are in the profiles.
    forgotten : tuple of str
        sha256 of the ids that must not come back, in hex.
    parts : tuple of PartEntry
        In the order of their index.
    """

    readable_format: ClassVar[int] = 2
    seal: ClassVar[str] = "digest"

    format: int = 2
    as_of: date
    indicators: tuple[str, ...]
    attributes: dict[str, str]
    indicator_scale: tuple[_Scale, ...]
    journal_offset: _Count = 0
    forgotten: tuple[_Digest, ...] = ()
    parts: Annotated[tuple[PartEntry, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Whether what it says of its parts can be so."""
        if self.part_count.bit_count() != 1 or self.part_count > PART_COUNT_MAX:
            raise ValueError(f"no base has {self.part_count} parts")
        if len(set(self.indicators)) != len(self.indicators):
            raise ValueError("an indicator stands twice")
        if len(self.indicator_scale) != len(self.indicators):
            raise ValueError("not every indicator has its scale")
        for index, part in enumerate(self.parts):
            if part.file != part_file(index, part.sha256):
                raise ValueError(f"part {index} has the name of another: {part.file}")
        return self

    @property
    def part_count(self) -> int:
        """How many parts it names."""
        return len(self.parts)
