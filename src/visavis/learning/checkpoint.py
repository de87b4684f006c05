"""Finished blocks of a learning run, kept so that a stopped run goes on where it was."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visavis.errors import CorruptionError, InputError
from visavis.store import read_json, write_bytes, write_json

__all__ = ["Checkpoint"]

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Checkpoint:
    """A folder of blocks; without a folder nothing is kept.

    Attributes
    ----------
    folder : Path or None
    """

    folder: Path | None

    @classmethod
    def open(cls, folder: Path | None, provenance: dict[str, Any]) -> Checkpoint:
        """Open a folder for one learning job.

        Raises
        ------
        InputError
            If the folder belongs to other inputs.
        """
        if folder is None:
            return cls(None)
        plan = folder / "plan.json"
        job = hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()
        if plan.exists():
            if read_json(plan).get("job") != job:
                raise InputError(f"{folder} belongs to other inputs", field="checkpoint")
        else:
            write_json(plan, {"job": job, **provenance})
        return cls(folder)

    def holds(self, number: int) -> bool:
        """Whether a block is finished."""
        return self.folder is not None and self._path(number).exists()

    def keep(self, number: int, coefficients: Float64, levels: Float64) -> None:
        """Keep a finished block; a digest of its content stands in front."""
        if self.folder is None:
            return
        stream = io.BytesIO()
        np.savez(stream, coefficients=coefficients, levels=levels)
        content = stream.getvalue()
        write_bytes(self._path(number), hashlib.sha256(content).digest() + content)

    def read(self, number: int) -> tuple[Float64, Float64]:
        """Read a finished block.

        Raises
        ------
        CorruptionError
            If its bytes do not fit its digest.
        """
        stored = self._path(number).read_bytes()
        if hashlib.sha256(stored[32:]).digest() != stored[:32]:
            raise CorruptionError(f"{self._path(number)} does not fit its digest: delete it")
        with np.load(io.BytesIO(stored[32:])) as arrays:
            return arrays["coefficients"], arrays["levels"]

    def _path(self, number: int) -> Path:
        assert self.folder is not None  # noqa: S101 (asked only where there is a folder)
        return self.folder / f"block_{number:06}.bin"
