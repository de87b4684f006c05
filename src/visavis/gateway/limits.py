"""What is refused beyond: every limit holds for one request (GetServingInfo tells them)."""

from __future__ import annotations

from typing import Final

from visavis.errors import InputError, LimitError
from visavis.serving.audience import AUDIENCE_MAX

__all__ = [
    "AUDIENCE_MAX",
    "CUSTOMERS_MAX",
    "ENTRIES_MAX",
    "MESSAGE_BYTES_MAX",
    "METADATA_BYTES_MAX",
    "OPEN_FRAMES_MAX",
    "PAGE_MAX",
    "REASONS_MAX",
    "bounded",
    "check_size",
    "host_and_port",
    "page_size",
    "size_fault",
]

MESSAGE_BYTES_MAX: Final = 4 * 2**20
METADATA_BYTES_MAX: Final = 8 * 2**10

#: Ten opportunities of each, 20 bytes an opportunity, are half a message.
CUSTOMERS_MAX: Final = 10_000
ENTRIES_MAX: Final = 10_000
REASONS_MAX: Final = 100
PAGE_MAX: Final = 1_000

#: Of one stream: enough to keep the threads busy while answers travel.
OPEN_FRAMES_MAX: Final = 8

#: What a message may hold beside what is counted: headers of gRPC and the like.
_SLACK: Final = 2**10


def bounded(given: int, least: int, most: int, field: str) -> int:
    """A number of a request.

    Raises
    ------
    InputError
        If it lies below `least`.
    LimitError
        If it lies above `most`.
    """
    if given < least:
        raise InputError(f"must be at least {least}, got {given}", field=field)
    if given > most:
        raise LimitError(f"must be at most {most}, got {given}", field=field)
    return given


def page_size(given: int) -> int:
    """Rows of a page; 0 leaves it to the server."""
    return min(bounded(given, 0, 2**31, "page_size") or PAGE_MAX, PAGE_MAX)


def check_size(size: int, field: str) -> None:
    """Refuse an answer of more bytes than a message can hold.

    Raises
    ------
    LimitError
    """
    if fault := size_fault(size, field):
        raise fault


def size_fault(size: int, field: str) -> LimitError | None:
    """What is wrong with an answer of so many bytes."""
    if size <= MESSAGE_BYTES_MAX - _SLACK:
        return None
    reason = f"would be answered with {size} bytes, of at most {MESSAGE_BYTES_MAX}: ask for less"
    return LimitError(reason, field=field)


def host_and_port(address: str, field: str) -> tuple[str, int]:
    """An address taken apart.

    Raises
    ------
    InputError
        If it is no ``host:port``.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise InputError(f"must be host:port, got {address!r:.80}", field=field)
    return host, int(port)
