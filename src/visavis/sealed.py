"""Sealed documents: small JSON files that carry their own digest.

A plan or a manifest decides what is read and what is believed, so a changed byte of one must not
pass. `to_bytes` writes canonical JSON with the sha256 of everything else in it; `parse` takes only
those very bytes.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from visavis.errors import CorruptionError, InputError
from visavis.store import bytes_digest, json_bytes, parsed_json

__all__ = ["Sealed", "Strict"]


class Strict(BaseModel):
    """A frozen model that knows no other keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Sealed(Strict):
    """A document of a stated format."""

    #: What a reader of this version understands.
    readable_format: ClassVar[int]
    #: The key of its own digest.
    seal: ClassVar[str] = "digest_of_this"

    format: int

    def to_bytes(self) -> bytes:
        """Canonical JSON, its own digest included."""
        content = self.model_dump(mode="json")
        return json_bytes({**content, self.seal: _digest(content)})

    @classmethod
    def parse(cls, content: bytes, named: str) -> Self:
        """Read what `to_bytes` made.

        Parameters
        ----------
        content : bytes
        named : str
            What the file is called, for errors.

        Raises
        ------
        InputError
            If it is whole, but of a format that this version of visavis does not read.
        CorruptionError
            If any byte of it is not as it was written.
        """
        held: Any = parsed_json(content, named)
        if not isinstance(held, dict):
            raise CorruptionError(f"{named} is damaged: it is no document")
        said = {key: each for key, each in held.items() if key != cls.seal}
        if held.get(cls.seal) != _digest(said):
            raise CorruptionError(f"{named} does not fit its own digest")
        stated = said.get("format")
        if isinstance(stated, int) and stated != cls.readable_format:
            reason = f"{named} is of format {stated}"
            raise InputError(f"{reason}; this visavis reads {cls.readable_format}", field="path")
        try:
            document = cls(**said)
        except ValidationError as error:
            found = error.errors(include_url=False)[0]
            where = ".".join(map(str, found["loc"]))
            raise CorruptionError(f"{named} is damaged: {where}: {found['msg']}") from None
        if document.to_bytes() != content:
            raise CorruptionError(f"{named} does not fit its own digest")
        return document


def _digest(content: dict[str, Any]) -> str:
    try:
        return bytes_digest(json_bytes(content))
    except (ValueError, TypeError, RecursionError, UnicodeEncodeError):
        return ""
