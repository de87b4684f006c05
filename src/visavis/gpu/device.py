"""torch, its devices, their memory and the one product that is asked of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, Final, TypeAlias

import numpy.typing as npt

from visavis.errors import ExtraError, InputError, SchemaError, SetupError

__all__ = ["Device", "Tensor", "host"]

#: torch's own types know little of shapes, and importing them would import torch.
Tensor: TypeAlias = Any

#: What a block may take of the memory that is free on a GPU. Several threads may ask at once, and
#: torch keeps what it has freed; who still asks for too much is halved.
FREE_SHARE: Final = 0.25

#: What a block may take of main memory. There the device is for tests, and no block is worth more.
HOST_BLOCK_BYTES: Final = 2**26

#: How torch says that there is no memory, where it does not by an error of its own.
_NO_MEMORY: Final = re.compile("out of memory|ALLOC_FAILED|can.t allocate memory|not enough memory")

#: torch's settings belong to the process: two threads must not restore what the other has set.
_SETTING_LOCK: Final = Lock()


def _torch() -> Any:
    """Import torch.

    Raises
    ------
    ExtraError
        If it is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise ExtraError("torch", "gpu") from error
    return torch


class Device:
    """One device of torch.

    Parameters
    ----------
    name : str
        ``cpu``, ``cuda`` or ``cuda:N``.

    Raises
    ------
    ExtraError
        If torch is not installed.
    InputError
        If it is no such name.
    SetupError
        If torch does not find the device.
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise SchemaError(f"must be a name, got {type(name).__name__}", field="device")
        if re.fullmatch(r"cpu|cuda(:[0-9]{1,3})?", name) is None:
            raise InputError(f"must be 'cpu', 'cuda' or 'cuda:N', got {name!r}", field="device")
        self.torch = _torch()
        self.name = name
        self.is_cuda = name != "cpu"
        if self.is_cuda:
            count = self.torch.cuda.device_count() if self.torch.cuda.is_available() else 0
            if int(name.partition(":")[2] or 0) >= count:
                reason = f"torch {self.torch.__version__} finds {count} CUDA devices"
                raise SetupError(f"{reason}, but {name!r} was asked for")

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Keep what a caller has asked of torch for its own work away from the block.

        Within `torch.autocast` a product of float32 would be rounded to 16 bits, bound or no bound.
        """
        kind = "cuda" if self.is_cuda else "cpu"
        with self.torch.no_grad(), self.torch.autocast(kind, enabled=False):
            yield

    def tensor(self, array: npt.NDArray[Any]) -> Tensor:
        """Copy an array to the device; what is read-only here is none of torch's business."""
        return self.torch.tensor(array, device=self.name)

    def block_bytes(self) -> int:
        """What the next block may take of the device's memory."""
        if not self.is_cuda:
            return HOST_BLOCK_BYTES
        free, _total = self.torch.cuda.mem_get_info(self.name)
        # What torch has freed it keeps, and gives to the next who asks.
        reserved = self.torch.cuda.memory_reserved(self.name)
        kept = reserved - self.torch.cuda.memory_allocated(self.name)
        return int((free + kept) * FREE_SHARE)

    def has_no_memory(self, error: RuntimeError) -> bool:
        """Whether an error of torch says that its memory does not suffice."""
        if isinstance(error, self.torch.OutOfMemoryError):
            return True
        return _NO_MEMORY.search(str(error)) is not None

    def let_go(self) -> None:
        """Give back what torch keeps of what has been freed, so that it can be cut anew."""
        if self.is_cuda:
            self.torch.cuda.empty_cache()

    def product(self, left: Tensor, right: Tensor) -> Tensor:
        """Left · rightᵀ of bf16 matrices, added up in float32, as float32.

        On a GPU by its matrix unit, whose products of bf16 are exact. Elsewhere as float32 numbers:
        bf16 numbers are such, and a lower precision that a caller has allowed for float32 products
        (TF32, bf16) holds them exactly too.
        """
        if not self.is_cuda:
            wide = self.torch.float32
            return self.torch.mm(left.to(wide), right.to(wide).t())
        with self._whole_reductions():
            return self.torch.mm(left, right.t(), out_dtype=self.torch.float32)

    @contextmanager
    def _whole_reductions(self) -> Iterator[None]:
        """No partial sum is rounded to bf16 in the block; then the setting is as it was."""
        settings = self.torch.backends.cuda.matmul
        name = "allow_bf16_reduced_precision_reduction"
        with _SETTING_LOCK:
            before = getattr(settings, name)
            # Newer versions say in a second part whether a sum may be cut at all.
            cut = getattr(settings, f"{name}_split_k", None)
            setattr(settings, name, False)
            try:
                yield
            finally:
                setattr(settings, name, before if cut is None else (before, cut))


def host(tensor: Tensor, dtype: Any) -> npt.NDArray[Any]:
    """Copy a tensor back, as an array of `dtype`."""
    array: npt.NDArray[Any] = tensor.cpu().numpy()
    return array.astype(dtype, copy=False)
