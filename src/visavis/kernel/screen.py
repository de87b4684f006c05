"""The screen of a panel: the catalog once more, quantised so that few pairs need float64.

::

    weights ──order()──► blocks of 64 capabilities ──quantise()──► uint8 + proven error norms

A screened variant multiplies 8-bit integers and skips the pairs that a bound excludes; what a score
is stays the business of the float64 weights. Nothing here can change a result, only its price:
every error that quantising makes is measured and handed over (docs/kernel.md, *The bound*).

- **Order.** A block holds capabilities of one link, and of one eligibility plane where planes are
  large enough, because then a customer whom the plane excludes skips the block without looking.
  Within that, by value and cost, so that one threshold serves a block, then strongest first, so
  that thresholds rise early.
- **Columns** are scaled by powers of two, which is exact: x·w = (x·s)·(w/s). Indicators that are a
  thousand times larger than others would otherwise leave those no bits.
- **Each capability** has a scale of its own; a weight is stored as its rounded multiple plus 128.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["BLOCK_CAPABILITIES", "Screen", "build_screen", "column_scale_of"]

#: Capabilities of a block: four vectors of 16 numbers, and one mask of 64 bits.
BLOCK_CAPABILITIES: Final = 64

#: Columns are padded to whole AMX tiles of 64 bytes.
COLUMN_MULTIPLE: Final = 64

#: Blocks begin anew with each plane only where planes hold as many capabilities on average; below,
#: padding would cost more than what excluded customers save.
PLANE_CAPABILITIES_MIN: Final = 128

#: Values a quarter of an octave apart go to different blocks where there are enough capabilities.
VALUE_STEPS_PER_OCTAVE: Final = 4

#: Beyond, a sum of products of bytes could leave 32 bits: nothing is quantised, all is verified.
QUANTISED_COLUMNS_MAX: Final = 2**31 // (127 * 255)

_WEIGHT_MAX: Final = 127
_WEIGHT_OFFSET: Final = 128
_PAGE: Final = 4096

#: Norms are rounded up by more than their own float64 arithmetic can have lost.
_UP: Final = 1.0 + 2.0**-20

#: Weights quantised at a time, in elements: bounds the temporary float64 arrays to 32 MB each.
_CHUNK_CELLS: Final = 4_000_000

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


class Screen(NamedTuple):
    """What csrc/kernel.h calls a ScreenView.

    Attributes
    ----------
    weights : ndarray of shape (blocks, padded_columns / 4, 64, 4), uint8
        Four neighbouring columns of 64 capabilities lie together; 128 stands for 0.
    bias : ndarray of shape (blocks, 64), float32
    valid : ndarray of shape (blocks,), uint64
        Bit l: there is a capability at place l.
    capability : ndarray of shape (blocks, 64), int32
        −1 where there is none.
    position : ndarray of shape (capabilities,), int32
        Where each capability went.
    column_scale : ndarray of shape (columns,), float32
        Powers of two by which indicators are multiplied.
    weight_scale : ndarray of shape (blocks, 64), float32
        What one step of a quantised weight is worth.
    weight_norm, weight_error : ndarray of shape (blocks,), float32
        The largest ‖w‖ + ‖e‖ and ‖e‖ of a block, in scaled columns, rounded up.
    norm : ndarray of shape (capabilities,), float32
        ‖w‖ of each, in scaled columns, rounded up.
    bias_size : ndarray of shape (blocks,), float32
        The largest |b|.
    bias_max : ndarray of shape (blocks,), float32
    value_max, value_min, cost_min : ndarray of shape (blocks,), float64
        Values of 0 are positive zeros.
    link : ndarray of shape (blocks,), uint8
    is_uniform : bool
        All capabilities share link, value and cost.
    """

    weights: npt.NDArray[np.uint8]
    bias: Float32
    valid: npt.NDArray[np.uint64]
    capability: Int32
    position: Int32
    column_scale: Float32
    weight_scale: Float32
    weight_norm: Float32
    weight_error: Float32
    norm: Float32
    bias_size: Float32
    bias_max: Float32
    value_max: Float64
    value_min: Float64
    cost_min: Float64
    link: npt.NDArray[np.uint8]
    is_uniform: bool


def build_screen(
    weights: Float32,
    bias: Float32,
    value: Float64,
    cost: Float64,
    link: npt.NDArray[np.uint8],
    *,
    indicator_scale: Float32 | None = None,
    plane_index: Int32 | None = None,
) -> Screen:
    """Order and quantise a catalog.

    Parameters
    ----------
    weights : ndarray of shape (capabilities, columns), float32
        Finite.
    bias : ndarray of shape (capabilities,), float32
    value, cost : ndarray of shape (capabilities,), float64
    link : ndarray of shape (capabilities,), uint8
    indicator_scale : ndarray of shape (columns,), float32, optional
        The usual size of each indicator; default: taken to be as large as its weights are small.
    plane_index : ndarray of shape (capabilities,), int32, optional
        The eligibility plane of each; default: one for all.
    """
    count = len(weights)
    column_scale = column_scale_of(weights, indicator_scale)
    strength = _norms(weights, column_scale)
    groups = _groups(link, plane_index)
    capability = _order(groups, value, cost, bias, strength)
    blocks = len(capability)
    position = np.empty(count, dtype=np.int32)
    held = capability >= 0
    position[capability[held]] = np.flatnonzero(held.ravel()).astype(np.int32)
    packed, scale, norm, error = _quantise(weights, column_scale, capability)
    return Screen(
        packed,
        bias=np.where(held, bias[capability], np.float32(0.0)),
        valid=_bits(held),
        capability=capability,
        position=position,
        column_scale=column_scale,
        weight_scale=scale,
        weight_norm=norm,
        weight_error=error,
        norm=_up(strength),
        bias_size=np.where(held, np.abs(bias[capability]), 0.0).max(axis=1).astype(np.float32),
        bias_max=np.where(held, bias[capability], -np.inf).max(axis=1).astype(np.float32),
        # −0.0 becomes 0.0: what thresholds divide by must keep its sign.
        value_max=np.where(held, value[capability], -np.inf).max(axis=1) + 0.0,
        value_min=np.where(held, value[capability], np.inf).min(axis=1) + 0.0,
        cost_min=np.where(held, cost[capability], np.inf).min(axis=1),
        link=link[capability[np.arange(blocks), held.argmax(axis=1)]],
        is_uniform=bool(
            (link == link[0]).all() and (value == value[0]).all() and (cost == cost[0]).all()
        ),
    )


def column_scale_of(weights: Float32, indicator_scale: Float32 | None) -> Float32:
    """Powers of two that make indicators and weights of a column about equally large.

    A bound adds ‖x‖·‖e_w‖ and ‖e_x‖·‖w‖; it is smallest where each column's share of both norms is
    the same, that is at s = √(size of w / size of x).
    """
    size = np.zeros(weights.shape[1])
    for begin in range(0, len(weights), max(1, _CHUNK_CELLS // weights.shape[1])):
        part = weights[begin : begin + max(1, _CHUNK_CELLS // weights.shape[1])]
        size += (part.astype(np.float64) ** 2).sum(axis=0)
    size = np.sqrt(size / len(weights))
    usual = 1.0 / np.where(size > 0.0, size, 1.0)
    if indicator_scale is not None:
        given = np.asarray(indicator_scale, dtype=np.float64)
        usual = np.where(np.isfinite(given) & (given > 0.0), given, 1.0)
    with np.errstate(divide="ignore"):
        exponent = np.rint(0.5 * np.log2(size / usual))
    # A column without weights needs no bits; exponents stay where float32 has room on both sides.
    exponent = np.where(size > 0.0, np.clip(exponent, -60, 60), -60)
    return np.exp2(exponent).astype(np.float32)


def _norms(weights: Float32, column_scale: Float32) -> Float64:
    norms = np.empty(len(weights))
    rows = max(1, _CHUNK_CELLS // weights.shape[1])
    for begin in range(0, len(weights), rows):
        scaled = weights[begin : begin + rows] / column_scale.astype(np.float64)
        norms[begin : begin + rows] = np.sqrt((scaled * scaled).sum(axis=1))
    return norms


def _up(norms: Float64) -> Float32:
    """As float32, not below: the next number after the nearest, for denormals are far apart."""
    with np.errstate(over="ignore"):
        return np.nextafter((norms * _UP).astype(np.float32), np.float32(np.inf))


def _groups(link: npt.NDArray[np.uint8], plane_index: Int32 | None) -> npt.NDArray[np.int64]:
    """A code for what a block must have in common."""
    groups = link.astype(np.int64)
    if plane_index is not None:
        planes, codes = np.unique(plane_index, return_inverse=True)
        if len(planes) * PLANE_CAPABILITIES_MIN <= len(link):
            groups = groups * len(planes) + codes
    return groups


def _order(
    groups: npt.NDArray[np.int64], value: Float64, cost: Float64, bias: Float32, strength: Float64
) -> Int32:
    """Blocks of capabilities, of shape (blocks, 64); −1 fills the last block of a group."""
    with np.errstate(divide="ignore"):
        octave = np.where(value > 0.0, np.log2(np.where(value > 0.0, value, 1.0)), -2000.0)
    step = -np.rint(octave * VALUE_STEPS_PER_OCTAVE)
    # A stable order: index last, so that the screen of a catalog is one thing.
    by_strength = np.lexsort((-(strength + bias), cost, step, groups))
    blocks = []
    for group in np.split(by_strength, np.flatnonzero(np.diff(groups[by_strength])) + 1):
        padded = np.full(-(-len(group) // BLOCK_CAPABILITIES) * BLOCK_CAPABILITIES, -1)
        padded[: len(group)] = group
        blocks.append(padded.reshape(-1, BLOCK_CAPABILITIES))
    return np.concatenate(blocks).astype(np.int32)


def _quantise(
    weights: Float32, column_scale: Float32, capability: Int32
) -> tuple[npt.NDArray[np.uint8], Float32, Float32, Float32]:
    """Quantised weights with their scales, and by block the largest norm and the largest error."""
    columns = weights.shape[1]
    padded = -(-columns // COLUMN_MULTIPLE) * COLUMN_MULTIPLE
    blocks = len(capability)
    packed = _aligned((blocks, padded // 4, BLOCK_CAPABILITIES, 4))
    scale = np.zeros((blocks, BLOCK_CAPABILITIES), dtype=np.float32)
    norm, error = (np.empty(blocks, dtype=np.float32) for _ in range(2))
    chunk = max(1, _CHUNK_CELLS // (BLOCK_CAPABILITIES * columns))
    for begin in range(0, blocks, chunk):
        cut = slice(begin, begin + chunk)
        members = capability[cut]
        w = np.where((members >= 0)[..., None], weights[members].astype(np.float64), 0.0)
        w /= column_scale
        largest = np.abs(w).max(axis=2)
        with np.errstate(over="ignore"):
            step = (largest / _WEIGHT_MAX).astype(np.float32)
        # Where a step would be no normal float32, nothing is quantised: the error is all there is.
        usable = np.isfinite(step) & (step >= np.finfo(np.float32).tiny)
        usable &= columns <= QUANTISED_COLUMNS_MAX
        step[~usable] = 1.0
        wide = step.astype(np.float64)[:, :, None]
        q = np.where(usable[:, :, None], np.clip(np.rint(w / wide), -127, 127), 0.0)
        e = np.sqrt(((w - q * wide) ** 2).sum(axis=2))
        scale[cut] = step
        error[cut] = _up(e.max(axis=1))
        norm[cut] = _up((np.sqrt((w * w).sum(axis=2)) + e).max(axis=1))
        whole = np.full((len(members), BLOCK_CAPABILITIES, padded), _WEIGHT_OFFSET, dtype=np.uint8)
        whole[:, :, :columns] = (q + _WEIGHT_OFFSET).astype(np.uint8)
        quads = whole.reshape(len(members), BLOCK_CAPABILITIES, padded // 4, 4)
        packed[cut] = quads.transpose(0, 2, 1, 3)
    return packed, scale, norm, error


def _aligned(shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Page-aligned memory: where a panel lies decides whether its tiles share cache sets."""
    size = int(np.prod(shape))
    memory = np.empty(size + _PAGE, dtype=np.uint8)
    begin = -memory.ctypes.data % _PAGE
    return memory[begin : begin + size].reshape(shape)


def _bits(held: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    packed = np.packbits(held, axis=1, bitorder="little")
    return np.ascontiguousarray(packed).view("<u8").astype(np.uint64).ravel()
