"""The manifest of a base's version: what belongs to it, under a digest of its own."""

from __future__ import annotations

import json
from datetime import date
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from visavis.errors import CorruptionError, InputError
from visavis.parts import PART_COUNT_MAX
from visavis.store import bytes_digest, json_bytes, parsed_json

__all__ = ["FORMAT", "Manifest", "PartEntry", "part_file"]

FORMAT: Final = 2

_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Scale = Annotated[float, Field(ge=0, le=float(np.finfo(np.float32).max))]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PartEntry(_Frozen):
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


class Manifest(_Frozen):
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

    format: Literal[2] = FORMAT
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

    def to_bytes(self) -> bytes:
        """Canonical JSON, its own digest included."""
        content = self.model_dump(mode="json")
        return json_bytes({**content, "digest": bytes_digest(json_bytes(content))})

    @classmethod
    def parse(cls, content: bytes, named: str) -> Manifest:
        """Read what `to_bytes` made.

        Raises
        ------
        InputError
            If it is of a format that this version of visavis does not read.
        CorruptionError
            If any byte of it is not as it was written.
        """
        held: Any = parsed_json(content, named)
        if isinstance(held, dict) and isinstance(held.get("format"), int):
            _check_format(held, named)
        try:
            manifest = cls(**{key: each for key, each in held.items() if key != "digest"})
        except (ValidationError, AttributeError, TypeError) as error:
            raise CorruptionError(f"{named} is damaged: {_first(error)}") from None
        if manifest.to_bytes() != content:
            raise CorruptionError(f"{named} does not fit its own digest")
        return manifest


def _check_format(held: dict[str, Any], named: str) -> None:
    if held["format"] == FORMAT:
        return
    said = {key: each for key, each in held.items() if key != "digest"}
    try:
        is_whole = held.get("digest") == bytes_digest(json_bytes(said))
    except (ValueError, TypeError):
        is_whole = False
    if is_whole:
        reason = f"{named} is of format {held['format']}; this visavis reads {FORMAT}"
        raise InputError(reason, field="path")
    raise CorruptionError(f"{named} does not fit its own digest")


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        found = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"
    return json.dumps(str(error))
