"""A match whose screen runs on a device of torch: blocks of rows, memory, the compiled core."""

from __future__ import annotations

from time import perf_counter_ns
from typing import Final

import numpy as np
import numpy.typing as npt

from visavis import kernel
from visavis.errors import SetupError
from visavis.gpu.device import Device
from visavis.gpu.screen import Screened, ScreenOnDevice
from visavis.kernel.arguments import require
from visavis.kernel.calls import empty_match

__all__ = ["GpuScreen", "check_device", "match"]

#: K′ of docs/score.md where limits may pass over pairs.
_LISTED_MIN: Final = 32
_LISTED_PER_RANK: Final = 4


def check_device(name: str) -> str:
    """Return the name of a device if torch is there and finds it; errors as of `GpuScreen`."""
    return Device(name).name


class GpuScreen:
    """A panel on a device, ready to screen; matches may run on several threads.

    Parameters
    ----------
    panel : kernel.Panel
    device : str
        ``cuda``, ``cuda:N``, or ``cpu``, which is for tests: the kernel screens faster there.

    Raises
    ------
    ExtraError
        If torch is not installed.
    InputError
        If the device has no such name.
    SetupError
        If torch does not find it, or it has no memory for the panel.
    """

    def __init__(self, panel: kernel.Panel, *, device: str = "cuda") -> None:
        require(panel, kernel.Panel, "panel", "made by pack")
        self.panel = panel
        self._device = Device(device)
        try:
            with self._device.undisturbed():
                self._screen = ScreenOnDevice(self._device, panel)
        except RuntimeError as error:
            if not self._device.has_no_memory(error):
                raise
            reason = f"{device} has no memory for {panel.capability_count} capabilities"
            raise SetupError(reason) from error
        #: Rows of a block that the device is known not to hold; halved at each failure.
        self._too_many: int | None = None

    def match(
        self,
        indicators: npt.ArrayLike,
        *,
        k: int,
        eligible: npt.NDArray[np.bool_] | kernel.Eligibility | None = None,
        history: kernel.History | None = None,
        limits: kernel.Limits | None = None,
        ev_min: float | None = 0.0,
        variant: str | None = None,
    ) -> kernel.MatchResult:
        """The best opportunities of every customer: the bytes of `kernel.match`.

        Parameters
        ----------
        indicators, k, eligible, history, limits, ev_min
            As in `kernel.match`.
        variant : str, optional
            What verifies, and screens the rows that the device could not close.

        Returns
        -------
        kernel.MatchResult
            ``stats["rescreens"]`` counts those rows, ``verified`` what was scored for them too.
            ``nanoseconds["screen"]`` is the device's part with its transfers, ``verify`` that of
            `kernel.verify`.

        Raises
        ------
        InputError
            As `kernel.match`.
        SetupError
            If the device has no memory for a single row.
        """
        name = kernel.choose_variant(variant)
        request = kernel.checked(
            indicators,
            self.panel,
            k=k,
            eligible=eligible,
            history=history,
            limits=limits,
            ev_min=ev_min,
        )
        result = empty_match(request.customer_count, request.k)
        begin = 0
        while begin < request.customer_count:
            rows = np.arange(begin, min(request.customer_count, begin + self._block_rows()))
            part = request.of_rows(rows)
            started = perf_counter_ns()
            screened = self._screened(part)
            if screened is None:
                self._halve(len(rows))
                continue
            result.nanoseconds["screen"] += perf_counter_ns() - started
            skipped = len(rows) * self.panel.capability_count - screened.open_count
            result.stats["skipped_by_rule"] += skipped
            result.stats["screened"] += screened.open_count
            self._verify(part, screened.candidates, rows, result, name)
            begin += len(rows)
        return result

    def _block_rows(self) -> int:
        fitting = self._device.block_bytes() // self._screen.row_bytes
        if self._too_many is not None:
            fitting = min(fitting, self._too_many // 2)
        return max(1, fitting)

    def _screened(self, part: kernel.Request) -> Screened | None:
        """What the screen leaves of a block; None if the device had no memory for it."""
        limits = part.limits
        rank = part.k if limits == kernel.Limits() else max(_LISTED_PER_RANK * part.k, _LISTED_MIN)
        try:
            with self._device.undisturbed():
                return self._screen.screen(part, min(rank, self.panel.capability_count))
        except RuntimeError as error:
            if not self._device.has_no_memory(error):
                raise
            return None

    def _halve(self, row_count: int) -> None:
        if row_count == 1:
            count = self.panel.capability_count
            reason = f"{self._device.name} has no memory for one customer × {count} capabilities"
            raise SetupError(reason)
        self._too_many = row_count
        self._device.let_go()

    def _verify(
        self,
        part: kernel.Request,
        candidates: kernel.Candidates,
        rows: npt.NDArray[np.int64],
        result: kernel.MatchResult,
        variant: str,
    ) -> None:
        """Verify what the screen left of `rows`; what is not certain then starts anew."""
        started = perf_counter_ns()
        found, is_certain = kernel.verify(
            panel=self.panel, candidates=candidates, variant=variant, **part._asdict()
        )
        result.nanoseconds["verify"] += perf_counter_ns() - started
        result.stats["verified"] += found.stats["verified"]
        _write(found, rows, result)
        left = np.flatnonzero(~is_certain)
        if not len(left):
            return
        again = part.of_rows(left)._asdict()
        found = kernel.match(panel=self.panel, variant=variant, **again)
        result.stats["verified"] += found.stats["verified"]
        result.stats["rescreens"] += len(left)
        for stage, nanoseconds in found.nanoseconds.items():
            result.nanoseconds[stage] += nanoseconds
        _write(found, rows[left], result)


def _write(
    found: kernel.MatchResult, rows: npt.NDArray[np.int64], result: kernel.MatchResult
) -> None:
    result.capability_index[rows] = found.capability_index
    result.expected_value[rows] = found.expected_value
    result.propensity[rows] = found.propensity
    result.opportunity_count[rows] = found.opportunity_count


def match(
    indicators: npt.ArrayLike,
    panel: kernel.Panel,
    *,
    k: int,
    eligible: npt.NDArray[np.bool_] | kernel.Eligibility | None = None,
    history: kernel.History | None = None,
    limits: kernel.Limits | None = None,
    ev_min: float | None = 0.0,
    variant: str | None = None,
    device: str = "cuda",
) -> kernel.MatchResult:
    """Match once: `kernel.match` with its screen on a device.

    Who matches more than once makes a `GpuScreen` and keeps it.

    Parameters
    ----------
    indicators, panel, k, eligible, history, limits, ev_min, variant
        As in `kernel.match`.
    device : str
        As of `GpuScreen`.
    """
    return GpuScreen(panel, device=device).match(
        indicators,
        k=k,
        eligible=eligible,
        history=history,
        limits=limits,
        ev_min=ev_min,
        variant=variant,
    )
