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

#: Numbers of a row below this share of its largest are stored as 0. Products of what is left are
#: multiples of 2^-114, which no processor flushes, and their sums are too.
_SMALLEST: Final = 2.0**-50

#: A processor that flushes denormals reads a smaller float32 as 0.
_FLUSHED: Final = 2.0**-126

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
    """Rows of numbers as bf16, and bounds of what they stand for, on the device.

    Attributes
    ----------
    values : Tensor of shape (n, columns), bfloat16
        At most 1 in size: no sum of products of two such rows overflows.
    power : Tensor of shape (n,), float64
        The power of two that each row is worth: v = power · values + e.
    norm : Tensor of shape (n,), float64
        ‖v‖ + ‖e‖, rounded up.
    error : Tensor of shape (n,), float64
        ‖e‖, rounded up.
    """

    values: Tensor
    power: Tensor
    norm: Tensor
    error: Tensor


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
    largest = wide.abs().amax(dim=1)
    # A number by its own significand is a power of two, exactly.
    power = torch.where(largest > 0.0, largest / torch.frexp(largest).mantissa, 1.0)
    wide /= power[:, None]
    values = wide.to(torch.bfloat16).masked_fill(wide.abs() < _SMALLEST, 0.0)
    flushed = _FLUSHED * scale_norm
    rest = torch.linalg.vector_norm(wide - values.to(torch.float64), dim=1)
    error = rest * power * _UP + flushed
    norm = torch.linalg.vector_norm(wide, dim=1) * power * _UP + error + flushed
    return Rounded(values, power, norm, error)


def rounding_of_sums(columns: int) -> tuple[float, float]:
    """What sums of `columns` products can lose on the device and in the law.

    Returns
    -------
    float32_sum : float
        Relative to ‖x̂‖‖ŵ‖, in any order. A matrix unit adds n products to an accumulator at a time
        (n ≥ 4), each cut off at 2^-23 of the largest, and cuts the sum off again: n + 2 such errors
        for n products, at most 1.5 · 2^-23 a product. Allowed is 2^-22. ∞ where there is no bound.
    law : float
        Relative to ‖x‖‖w‖ + |b| + |h|: the law's own roundings, those of z ± margin in float64.
    """
    float32_sum = (columns + 16) * 2.0**-22 if columns <= COLUMNS_MAX else math.inf
    return float32_sum, (columns + 64) * 2.0**-52


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
