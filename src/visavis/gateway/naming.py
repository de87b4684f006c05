"""What the gateway gives out to get it back: ids of opportunities and page tokens.

Both carry all that they mean, so that nothing is kept for them, and a check, so that what was not
given by a server is told from it. They are no secrets: who forges one gets what a plain request
gets. So the check of an id, which every opportunity of an answer needs, is a crc32.

Answers have their ids from `visavis.gateway._wire`, in the same form.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
import zlib
from collections.abc import Callable
from typing import Final, NamedTuple

import grpc

from visavis.errors import InputError
from visavis.gateway.errors import RefusedError

__all__ = [
    "CHECK_BEGUN",
    "Page",
    "is_of",
    "named_opportunity",
    "opportunity_namer",
    "page_of",
    "page_token",
]

#: What every opportunity's check goes on from.
CHECK_BEGUN: Final = zlib.crc32(b"opportunity\0")

_CHECK: Final = struct.Struct(">I")
_TOKEN: Final = struct.Struct(">I16s16s")


def opportunity_namer(customer_id: str) -> Callable[[str], str]:
    """The ids of a customer's opportunities, by capability: each one opaque text of both."""
    customer = customer_id.encode()
    head = struct.pack(">I", len(customer)) + customer
    begun = zlib.crc32(head, CHECK_BEGUN)

    def named(capability_id: str) -> str:
        capability = capability_id.encode()
        check = _CHECK.pack(zlib.crc32(capability, begun))
        return base64.urlsafe_b64encode(check + head + capability).decode()

    return named


def named_opportunity(text: str, *, field: str, row: int) -> tuple[str, str]:
    """The customer and the capability of an opportunity.

    Raises
    ------
    InputError
        If the id is none.
    """
    try:
        held = base64.b64decode(text.encode(), altchars=b"-_", validate=True)
        (check,) = _CHECK.unpack_from(held)
        content = held[_CHECK.size :]
        if zlib.crc32(content, CHECK_BEGUN) != check:
            raise ValueError
        (size,) = struct.unpack_from(">I", content)
        customer, capability = content[4 : 4 + size], content[4 + size :]
        return customer.decode(), capability.decode()
    except (ValueError, binascii.Error, struct.error):
        raise InputError("is no id of an opportunity", field=field, row=row) from None


class Page(NamedTuple):
    """Where a page begins.

    Attributes
    ----------
    start : int
    listing : bytes
        Which listing of which version it goes on with.
    """

    start: int
    listing: bytes


def page_token(start: int, listing: bytes, request: bytes) -> str:
    """The token of the page of a listing that begins at `start`.

    Parameters
    ----------
    start : int
    listing : bytes
        Names the version that all pages come from.
    request : bytes
        The request without size and token of the page.
    """
    seal = _seal(start, listing, request)
    return base64.urlsafe_b64encode(_TOKEN.pack(start, _short(listing), seal)).decode()


def page_of(token: str, request: bytes) -> Page | None:
    """Where a token's page begins; None without one.

    Raises
    ------
    RefusedError
        If the token is none that was given for this request.
    """
    if not token:
        return None
    try:
        start, listing, seal = _TOKEN.unpack(
            base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        )
    except (ValueError, binascii.Error, struct.error):
        raise _no_token() from None
    if hashlib.sha256(struct.pack(">I", start) + listing + request).digest()[:16] != seal:
        raise _no_token()
    return Page(start, listing)


def is_of(page: Page, listing: bytes) -> bool:
    """Whether a page goes on with this listing."""
    return page.listing == _short(listing)


def _seal(start: int, listing: bytes, request: bytes) -> bytes:
    return hashlib.sha256(struct.pack(">I", start) + _short(listing) + request).digest()[:16]


def _short(listing: bytes) -> bytes:
    return hashlib.sha256(listing).digest()[:16]


def _no_token() -> RefusedError:
    reason = "was not given for this request"
    return RefusedError(
        grpc.StatusCode.INVALID_ARGUMENT, "INVALID_TOKEN", reason, field="page_token"
    )
