"""What is put together from bytes: columns of little-endian numbers, and fields of a message."""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from visavis.errors import SchemaError

__all__ = ["BYTE", "FLOAT64", "INT32", "field_of", "numbers"]

INT32: Final[np.dtype[np.int32]] = np.dtype("<i4")
FLOAT64: Final[np.dtype[np.float64]] = np.dtype("<f8")
BYTE: Final[np.dtype[np.uint8]] = np.dtype("u1")

Number = TypeVar("Number", bound=np.generic)


def numbers(content: bytes, kind: np.dtype[Number], count: int, field: str) -> npt.NDArray[Number]:
    """The `count` little-endian numbers of a column, a read-only view of its bytes.

    Raises
    ------
    SchemaError
        If there are not so many.
    """
    if len(content) != count * kind.itemsize:
        reason = f"must be {count} × {kind.itemsize} bytes, got {len(content)}"
        raise SchemaError(reason, field=field)
    return np.frombuffer(content, dtype=kind)


def field_of(number: int, *pieces: bytes | pa.Buffer) -> tuple[bytes | pa.Buffer, ...]:
    """A field of bytes, or a message as one, as protobuf writes it: to be joined with others.

    Through a message object what is large would be copied twice more.

    Parameters
    ----------
    number : int
        Of the field.
    pieces : buffers
        Its content, end to end.
    """
    return (_varint(number << 3 | 2) + _varint(sum(map(len, pieces))), *pieces)


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)
