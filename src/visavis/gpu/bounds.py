"""Roundings and what they can cost: norms, margins around z, ends of expected values.

Everything here errs to one side. The proof stands in docs/kernel.md, *A screen on a GPU*.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

from visavis.domain import Link
from visavis.gpu.device import Tensor

__all__ = ["Rounded", "Worth", "rounded", "rounding_of_sums"]

#: Norms are enlarged by more than their own float64 arithmetic can have lost.
_UP: Final = 1.0 + 2.0**-20

#: Rounded numbers below are stored as 0: products of what is left are normal or vanish entirely.
_SMALLEST: Final = 2.0**-120

#: A processor that flushes denormals reads a smaller float32 as 0.
_FLUSHED: Final = 2.0**-126

#: Rows and capabilities with a larger norm are not screened: two of them might overflow float32.
_LARGEST: Final = 2.0**60

#: Beyond, there is no bound: that of a float32 sum would no longer be linear in its length.
COLUMNS_MAX: Final = 2**20

#: How far an expected value may lie from the law's, relative to what it is computed from: torch's
#: exp and log1p are good to a few ulp (2^-50), the law's to one.
_WORTH_SLACK: Final = 2.0**-44

#: The law's sigmoid is 0 below −708, where e^z is 2^-1021.
_GAIN_FLOOR: Final = 2.0**-1000

#: A value, cost or product that is flushed: below 2^-1022, times |z| below 2^130.
_WORTH_FLOOR: Final = 2.0**-800


class Rounded(NamedTuple):
    """Numbers as bf16, and bounds of what they stand for, on the device.

    Attributes
    ----------
    values : Tensor of shape (n, columns), bfloat16
    norm : Tensor of shape (n,), float64
        ‖v‖ + ‖e‖, rounded up, with v = values + e.
    error : Tensor of shape (n,), float64
        ‖e‖, rounded up.
    is_usable : Tensor of shape (n,), bool
        The bounds are finite and no product can overflow; else the values are 0.
    """

    values: Tensor
    norm: Tensor
    error: Tensor
    is_usable: Tensor


def rounded(torch: Any, numbers: Tensor, scale: Tensor, scale_norm: float) -> Rounded:
    """Scale columns and round to bf16; what that costs is measured, in float64.

    Parameters
    ----------
    numbers : Tensor of shape (n, columns), float32
    scale : Tensor of shape (columns,), float64
        Powers of two.
    scale_norm : float
        Their Euclidean norm: what flushed denormals may have been worth.
    """
    wide = numbers.to(torch.float64) * scale
    near = wide.to(torch.bfloat16).masked_fill(wide.abs() < _SMALLEST, 0.0)
    flushed = _FLUSHED * scale_norm
    error = torch.linalg.vector_norm(wide - near.to(torch.float64), dim=1) * _UP + flushed
    norm = torch.linalg.vector_norm(wide, dim=1) * _UP + error + flushed
    is_usable = norm < _LARGEST
    return Rounded(near.masked_fill(~is_usable[:, None], 0.0), norm, error, is_usable)


def rounding_of_sums(columns: int) -> tuple[float, float, float]:
    """What sums of `columns` products can lose on the device and in the law.

    Returns
    -------
    float32_sum : float
        Relative to ‖x̂‖‖ŵ‖, in any order. A matrix unit adds n products to an accumulator at a time
        (n ≥ 4), each cut off at 2^-23 of the largest, and cuts the sum off again: n + 2 such errors
        for n products, at most 1.5 · 2^-23 a product. Allowed is 2^-22.
    law : float
        Relative to ‖x‖‖w‖ + |b| + |h|: the law's own roundings, those of z ± margin in float64.
    underflow : float
        Absolute: each product and each sum may lose 2^-126.
    """
    float32_sum = (columns + 16) * 2.0**-22 if columns <= COLUMNS_MAX else math.inf
    return float32_sum, (columns + 64) * 2.0**-52, (columns + 16) * 2.0**-120


class Worth(NamedTuple):
    """What some capabilities are worth, on the device: one each, or one for each pair.

    Attributes
    ----------
    link : Tensor of uint8, or Link
        The latter where all share it.
    value, cost : Tensor of float64
    """

    link: Tensor | Link
    value: Tensor
    cost: Tensor

    def of(self, columns: Tensor) -> Worth:
        """The same of the capabilities `columns`, in its shape."""
        link = self.link if isinstance(self.link, Link) else self.link[columns]
        return Worth(link, self.value[columns], self.cost[columns])

    def end(self, torch: Any, z: Tensor, *, upward: bool) -> Tensor:
        """A bound of the law's expected value wherever z is at most, or at least, the given one.

        Parameters
        ----------
        z : Tensor of float64
        upward : bool
            Not below any for smaller z; else not above any for larger z. NaN where there is none.
        """
        sign = 1.0 if upward else -1.0
        gain = self._gain(torch, z)
        gain = gain + sign * (gain.abs() * _WORTH_SLACK + _GAIN_FLOOR)
        gross = gain * self.value
        slack = (gross.abs() + self.cost.abs()) * _WORTH_SLACK + _WORTH_FLOOR
        return (gross - self.cost) + sign * slack

    def _gain(self, torch: Any, z: Tensor) -> Tensor:
        if self.link is Link.IDENTITY:
            return z
        a = torch.exp(-z.abs())
        if self.link is Link.COUNT:
            return _count(torch, z, a)
        logistic = torch.where(z >= 0.0, 1.0, a) / (1.0 + a)
        if self.link is Link.LOGISTIC:
            return logistic
        gain = torch.where(self.link == int(Link.COUNT), _count(torch, z, a), logistic)
        return torch.where(self.link == int(Link.IDENTITY), z, gain)


def _count(torch: Any, z: Tensor, a: Tensor) -> Tensor:
    return torch.clamp(z, min=0.0) + torch.log1p(a)
