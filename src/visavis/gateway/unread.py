"""`Unread`: answers of streams that nobody has read yet: so many bytes of them, and for so long.

gRPC keeps back what the client gives no room for, and what is kept back is memory of the server's.
Who does not read loses the stream; meanwhile others are shed, rather than that everybody's memory
goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from visavis.gateway.job_streams import busy

__all__ = ["STALL_S", "Unread"]

#: Who does not read for so long gives up the stream.
STALL_S: Final = 60.0

#: Of all streams: 64 of the largest answers.
_BYTES_MAX: Final = 2**28


class Unread:
    """What all streams of a server hold, together.

    Parameters
    ----------
    bytes_max : int
    stall_s : float
    """

    def __init__(self, bytes_max: int = _BYTES_MAX, stall_s: float = STALL_S) -> None:
        self._left = bytes_max
        self._stall_s = stall_s

    def check(self) -> None:
        """Shed what would be answered now.

        Raises
        ------
        RefusedError
        """
        if self._left <= 0:
            raise busy("more answers wait to be read than there is room for")

    @contextmanager
    def held(self, byte_count: int) -> Iterator[None]:
        """An answer that waits to be written, or is."""
        self._left -= byte_count
        try:
            yield
        finally:
            self._left += byte_count

    async def write(self, call: Any, response: Any) -> None:
        """Write one message.

        Raises
        ------
        RefusedError
            If it was not taken in time.
        """
        write = asyncio.ensure_future(call.write(response))
        try:
            done, _ = await asyncio.wait({write}, timeout=self._stall_s)
            if not done:
                raise busy(f"nothing was read for {self._stall_s:g} s")
            await write
        finally:
            write.cancel()
