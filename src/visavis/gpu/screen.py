"""A panel on the device, and the pairs of a block of rows that its bound cannot exclude."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from visavis import kernel
from visavis.domain import Link
from visavis.gpu.bounds import Rounded, Worth, rounded, rounding_of_sums
from visavis.gpu.device import Device, Tensor, host
from visavis.kernel.screen import column_scale_of

__all__ = ["Predictors", "ScreenOnDevice", "Screened"]

#: Of each row so many more than K′ are looked at from below, those with the largest upper ends:
#: among them are the K′ largest lower ends, nearly.
SPARE: Final = 32

#: Rows with more candidates are not worth the memory: the compiled core screens them by itself.
CANDIDATES_MAX: Final = 4_096

#: Bytes that a block needs for each pair at its peak, in `Worth.end`: z and margin, what is open
#: and six float64 temporaries. On torch's CPU device 73 were measured, with three links (1,000 ×
#: 20,000 pairs); GPUs hold on to what they have freed, so half as much again.
PAIR_BYTES: Final = 104

#: The same for each indicator of a row: three float64 and the bf16.
INDICATOR_BYTES: Final = 32

#: What a bias and an adjustment may lose where denormals are flushed.
_FLUSHED: Final = 2.0**-120

#: Weights rounded at a time, in cells: bounds the float64 temporaries to 32 MB each.
_CHUNK_CELLS: Final = 4_000_000


class Predictors(NamedTuple):
    """What the device knows of the pairs of a block.

    Attributes
    ----------
    z, margin : Tensor of shape (n_rows, n_capabilities), float64
        The law's z lies within `margin` of `z`, where the pair is open.
    is_open : Tensor of shape (n_rows, n_capabilities), bool
        No rule and no adjustment of −inf excludes the pair.
    """

    z: Tensor
    margin: Tensor
    is_open: Tensor


class Screened(NamedTuple):
    """What a screen leaves of a block, back on this machine.

    Attributes
    ----------
    candidates : kernel.Candidates
        None, and nothing known beyond them, of rows that the compiled core has to screen itself.
    open_count : int
        Pairs that no rule excludes.
    """

    candidates: kernel.Candidates
    open_count: int


class ScreenOnDevice:
    """A panel as bf16, with its error norms and its worth, on one device.

    Parameters
    ----------
    device : Device
    panel : kernel.Panel
    """

    def __init__(self, device: Device, panel: kernel.Panel) -> None:
        self.device = device
        weights, bias, value, cost, link = map(np.asarray, panel.packed.arrays)
        columns = panel.indicator_count
        self.capability_count = len(weights)
        scale = column_scale_of(weights[:, :columns], panel.indicator_scale).astype(np.float64)
        self._scale = device.tensor(scale)
        self._scale_norm = float(np.sqrt((scale * scale).sum()))
        self._column_count = int(weights.shape[1])
        near = self._round_weights(weights, 1.0 / scale)
        float32_sum, self._law = rounding_of_sums(columns)
        self._weights, self._power = near.values, near.power
        # What a row's norm and its error add to the margin of each capability.
        self._per_norm = near.error + (float32_sum + self._law) * near.norm
        self._per_error = near.norm
        self._bias = device.tensor(bias.astype(np.float64))
        self._bias_margin = self._bias.abs() * self._law + _FLUSHED
        shared = Link(int(link[0])) if (link == link[0]).all() else None
        self._worth = Worth(
            device.tensor(link.astype(np.uint8)) if shared is None else shared,
            device.tensor(value.astype(np.float64)),
            device.tensor(cost.astype(np.float64)),
        )

    def _round_weights(self, weights: kernel.types.Float32, scale: kernel.types.Float64) -> Rounded:
        torch = self.device.torch
        # Columns are padded to a multiple of eight, as matrix units like them: with zeros.
        whole = np.ones(weights.shape[1])
        whole[: len(scale)] = scale
        by_column = self.device.tensor(whole)
        norm = float(np.sqrt((scale * scale).sum()))
        rows = max(1, _CHUNK_CELLS // weights.shape[1])
        parts = [
            rounded(torch, self.device.tensor(weights[begin : begin + rows]), by_column, norm)
            for begin in range(0, len(weights), rows)
        ]
        return Rounded(*(torch.cat(column) for column in zip(*parts, strict=True)))

    @property
    def row_bytes(self) -> int:
        """What a row of a block needs at most."""
        return PAIR_BYTES * self.capability_count + INDICATOR_BYTES * self._column_count

    def predictors(self, request: kernel.Request) -> Predictors:
        """The predictors of all pairs of a block, within proven margins."""
        torch = self.device.torch
        rows = rounded(torch, self.device.tensor(request.indicators), self._scale, self._scale_norm)
        padding = self._column_count - rows.values.shape[1]
        values = torch.nn.functional.pad(rows.values, (0, padding))
        z = self.device.product(values, self._weights).to(torch.float64)
        z *= rows.power[:, None]
        z *= self._power
        z += self._bias
        margin = torch.outer(rows.norm, self._per_norm)
        margin += torch.outer(rows.error, self._per_error)
        margin += self._bias_margin
        is_open = self._open(request)
        if request.history is not None:
            self._adjust(request.history, z, margin, is_open)
        return Predictors(z, margin, is_open)

    def _open(self, request: kernel.Request) -> Tensor:
        """Which pairs the rules leave, of shape (n_rows, n_capabilities), bool."""
        torch, eligible = self.device.torch, request.eligible
        shape = (request.customer_count, self.capability_count)
        if isinstance(eligible, kernel.Eligibility):
            planes, codes = np.unique(eligible.plane_index, return_inverse=True)
            if planes[-1] >= 0:
                bits = self.device.tensor(eligible.planes.view(np.int64))
                plane = self.device.tensor(np.maximum(planes, 0).astype(np.int64))
                held = (bits[:, plane >> 6] >> (plane & 63)) & 1 != 0
                held |= self.device.tensor(planes < 0)
                return held[:, self.device.tensor(codes)]
        elif eligible is not None:
            return self.device.tensor(eligible)
        return torch.ones(shape, dtype=torch.bool, device=self.device.name)

    def _adjust(self, history: kernel.History, z: Tensor, margin: Tensor, is_open: Tensor) -> None:
        """Add each adjustment to its pair; −inf closes it."""
        begin, end = history.indptr[0], history.indptr[-1]
        sizes = np.diff(history.indptr)
        h = history.adjustment[begin:end].astype(np.float64)
        closes = np.isneginf(h)
        h[closes] = 0.0
        rows = self.device.tensor(np.repeat(np.arange(len(sizes)), sizes))
        columns = self.device.tensor(history.capability_index[begin:end].astype(np.int64))
        adjustment = self.device.tensor(h)
        z[rows, columns] += adjustment
        margin[rows, columns] += adjustment.abs() * self._law
        is_open[rows, columns] &= self.device.tensor(~closes)

    def screen(self, request: kernel.Request, rank: int) -> Screened:
        """The pairs of a block that could be among the first `rank` of their customer.

        Parameters
        ----------
        request : kernel.Request
        rank : int
            At most the number of capabilities.
        """
        torch = self.device.torch
        near = self.predictors(request)
        upper = self._worth.end(torch, near.z + near.margin, upward=True)
        # No bound is none at all: such a pair is always a candidate.
        upper = torch.nan_to_num(upper, nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
        upper.masked_fill_(~near.is_open, -torch.inf)
        least = self._reached(near, upper, rank).clamp(min=request.ev_min)
        # Strictly below: ties are all verified, for the lower index wins them.
        kept = (upper >= least[:, None]) & near.is_open
        unknown = kept.sum(dim=1) > max(CANDIDATES_MAX, 2 * rank)
        kept &= ~unknown[:, None]
        sizes = host(kept.sum(dim=1), np.int64)
        candidates = kernel.Candidates(
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            host(kept.nonzero()[:, 1], np.int32),
            host(least.masked_fill(unknown, torch.inf), np.float64),
        )
        return Screened(candidates, int(near.is_open.sum()))

    def _reached(self, near: Predictors, upper: Tensor, rank: int) -> Tensor:
        """An expected value that `rank` eligible pairs of each row reach; −inf if none is known."""
        torch = self.device.torch
        chosen = upper.topk(min(self.capability_count, rank + SPARE), dim=1).indices
        z = near.z.gather(1, chosen) - near.margin.gather(1, chosen)
        lower = self._worth.of(chosen).end(torch, z, upward=False)
        lower = torch.nan_to_num(lower, nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)
        lower.masked_fill_(~near.is_open.gather(1, chosen), -torch.inf)
        reached: Tensor = lower.topk(rank, dim=1).values[:, -1]
        return reached
