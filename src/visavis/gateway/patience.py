"""`Patience`: how long may be waited; long for a burst, short while there is too much to do."""

from __future__ import annotations

import time
from typing import Final

__all__ = ["Patience"]

#: So long after the last refusal a wait that grows is no burst but what was refused, come again.
_CALM_S: Final = 0.25


class Patience:
    """The bound of a wait, after the idea of controlled delay.

    A queue that has emptied for a moment, while twice as much comes in as is worked off, must not
    grow at once to what a burst may: what is let in then would be late, every time.

    Parameters
    ----------
    target_s, burst_s : float
        How long may be waited while something has just been refused, and otherwise.
    """

    def __init__(self, target_s: float, burst_s: float) -> None:
        self._target_s = target_s
        self._burst_s = burst_s
        self._refused_at = float("-inf")

    def is_over(self, wait_s: float, *, is_standing: bool = False) -> bool:
        """Whether so long a wait is refused; that it is, is remembered.

        Parameters
        ----------
        wait_s : float
        is_standing : bool
            Whether it is known already that this is no burst.
        """
        now = time.monotonic()
        is_strict = is_standing or now - self._refused_at < _CALM_S
        if wait_s <= (self._target_s if is_strict else self._burst_s):
            return False
        self._refused_at = now
        return True
