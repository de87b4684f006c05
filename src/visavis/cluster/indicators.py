"""Indicators of all customers on Ray: the bytes of one machine, from many.

::

    IndicatorJob ──► _spread ──► run(0) … run(n−1), each on a worker ──► heads and matrices
                                                                             │
    Indicators ◄──────────────────── gather: sorted by customer id ◄─────────┘

A part of the work is a slice of the customers by a hash of their id (visavis.indicators.parts). A
task opens the files by their paths, which every worker must see under the same name, and computes
the indicators of its part alone; so it may run again elsewhere when a worker is lost, and the
bytes are those of one machine. Files must stay as they are while it runs.

Matrices come back through Ray's object store, which spills to disk, and are fetched one at a time:
the driver holds the whole result once, as on one machine. A part must fit a worker: its customers
× indicators × 4 bytes, best below 1 GB.

Nothing but `_spread` and what it calls touches Ray.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from visavis import __version__
from visavis.cluster.connect import check_same_version, connected, errors_of_ray, import_ray
from visavis.domain import parse_date
from visavis.errors import InputError, VisavisError
from visavis.indicators import (
    MEMORY_LIMIT,
    IndicatorDefinition,
    Indicators,
    IndicatorSpec,
    compute,
    merge_parts,
)

__all__ = ["IndicatorJob", "PartHead", "compute_indicators"]

#: How often a task is run again when its worker dies. What it computes depends on nothing else.
RETRIES: Final = 3

#: How long cancelled tasks may take to remove what they have spilled.
CANCEL_WAIT_S: Final = 60.0

Matrix = npt.NDArray[np.float32]


class PartHead(NamedTuple):
    """What a part says of its matrix: whose rows they are and what the columns mean."""

    customer_ids: pa.StringArray
    definitions: tuple[IndicatorDefinition, ...]


@dataclass(frozen=True, slots=True)
class IndicatorJob:
    """The indicators of all customers as parts that know nothing of each other.

    Attributes
    ----------
    events : tuple of pathlib.Path
        Absolute, as is `taxonomy`.
    spec : IndicatorSpec
    as_of : datetime.date
    taxonomy : pathlib.Path, optional
    part_count : int
    memory_limit : str
        Of DuckDB in each task.
    threads : int
        Of DuckDB in each task.
    temp_directory : pathlib.Path, optional
        Where tasks spill, on the worker; default: the system's.
    version : str
        Of visavis on the driver.
    token : str
        Names the folders in which tasks spill.
    """

    events: tuple[Path, ...]
    spec: IndicatorSpec
    as_of: date
    taxonomy: Path | None
    part_count: int
    memory_limit: str = MEMORY_LIMIT
    threads: int = 1
    temp_directory: Path | None = None
    version: str = __version__
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    def spill_folder(self, index: int) -> Path:
        """Where the task of a part spills, under a name that the driver knows too."""
        root = self.temp_directory or Path(tempfile.gettempdir())
        return root / f"visavis-{self.token}-{index}"

    def remove_spilled(self) -> None:
        """Remove what tasks of this machine left: killed, or interrupted at the wrong moment."""
        for index in range(self.part_count):
            shutil.rmtree(self.spill_folder(index), ignore_errors=True)

    def run(self, index: int) -> tuple[PartHead, Matrix]:
        """Compute one part.

        Raises
        ------
        InputError
            As `visavis.indicators.compute`: of the first bad cell of all.
        SetupError
            If this is another version of visavis than the driver's.
        """
        check_same_version(self.version)
        folder = self.spill_folder(index)
        if folder.parent.is_dir():  # else `compute` says so
            folder.mkdir(exist_ok=True)
        try:
            part = compute(
                self.events,
                self.spec,
                self.as_of,
                taxonomy=self.taxonomy,
                memory_limit=self.memory_limit,
                threads=self.threads,
                temp_directory=folder,
                part=(index, self.part_count),
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return PartHead(part.customer_ids, part.definitions), part.matrix

    def gather(self, heads: Sequence[PartHead], matrices: Iterable[Matrix]) -> Indicators:
        """Put all parts together, in order; `matrices` are drawn one by one.

        Raises
        ------
        InputError
            If no customer is left, or the taxonomy was not the same for all parts.
        """
        definitions = heads[0].definitions
        if any(head.definitions != definitions for head in heads):
            raise InputError("changed while it was read", field="taxonomy")
        customer_ids = [head.customer_ids for head in heads]
        ids, matrix = merge_parts(customer_ids, matrices, len(definitions))
        return Indicators(ids, matrix, definitions, self.as_of, self.spec.digest())


def compute_indicators(
    events: str | Path | Sequence[str | Path],
    spec: IndicatorSpec,
    as_of: date | str,
    *,
    taxonomy: str | Path | None = None,
    partitions: int | None = None,
    address: str = "local",
    insecure: bool = False,
    memory_limit: str = MEMORY_LIMIT,
    threads: int = 1,
    temp_directory: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Indicators:
    """Compute indicators on Ray: the bytes of `visavis.indicators.compute`, from many machines.

    Every task reads all events once and once more what it keeps, so partitions beyond the number
    of tasks that run at a time only cost: about 0.1 µs per event and partition.

    Parameters
    ----------
    events, taxonomy : path, or sequence of paths
        Of Parquet or CSV files that every worker can open; a relative one is taken from here.
    spec : IndicatorSpec
    as_of : datetime.date or ISO text
    partitions : int, optional
        Default: as many as the cluster runs at a time.
    address : str
    insecure : bool
        As of `connected`.
    memory_limit, threads, temp_directory
        Of each task; `threads` is also the number of processors that it claims.
    progress : callable, optional
        Called with (partitions done, partitions in all).

    Returns
    -------
    Indicators

    Raises
    ------
    InputError
        As `compute`, from whichever task met it first; or if an argument is wrong.
    SetupError
        If Ray cannot be reached, or workers die more often than tasks are tried again.
    """
    for name, value in (("partitions", partitions), ("threads", threads)):
        if value is not None and value < 1:
            raise InputError(f"must be at least 1, got {value}", field=name)
    paths = [events] if isinstance(events, str | Path) else list(events)
    with connected(address, insecure=insecure) as cpu_count:
        job = IndicatorJob(
            events=tuple(_absolute(path, "events") for path in paths),
            spec=spec,
            as_of=parse_date(as_of, field="as_of"),
            taxonomy=None if taxonomy is None else _absolute(taxonomy, "taxonomy"),
            part_count=partitions or max(1, cpu_count // threads),
            memory_limit=memory_limit,
            threads=threads,
            temp_directory=temp_directory,
        )
        try:
            return job.gather(*_spread(job.run, job.part_count, threads, progress))
        finally:
            job.remove_spilled()


def _absolute(path: object, field: str) -> Path:
    if not isinstance(path, str | Path):
        reason = f"must be files that workers can open, got {type(path).__name__}"
        raise InputError(reason, field=field)
    return Path(path).absolute()


def _spread(
    run: Callable[[int], tuple[PartHead, Matrix]],
    part_count: int,
    threads: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[PartHead], Iterator[Matrix]]:
    """Run all parts on Ray; return their heads, and their matrices to be fetched one by one."""
    ray = import_ray()
    # max_retries is for workers that die; what is wrong with the input is an answer.
    task = ray.remote(num_cpus=threads, num_returns=2, max_retries=RETRIES)(_answer)
    # Stored once, not sent with every task.
    shared = ray.put(run)
    references = [task.remote(shared, index) for index in range(part_count)]
    heads = [head for head, _ in references]
    waiting = heads
    with errors_of_ray():
        try:
            while waiting:
                done, waiting = ray.wait(waiting)
                for head in ray.get(done):
                    if isinstance(head, VisavisError):
                        raise head
                if progress is not None:
                    progress(part_count - len(waiting), part_count)
        except BaseException:
            _cancel(waiting)
            raise
        return ray.get(heads), _fetched([matrix for _, matrix in references])


def _answer(
    run: Callable[[int], tuple[PartHead, Matrix]], index: int
) -> tuple[PartHead | VisavisError, Matrix | None]:
    """Run one part on a worker. Errors of ours are returned: Ray would wrap what is raised."""
    try:
        return run(index)
    except VisavisError as error:
        return error, None


def _cancel(waiting: Sequence[Any]) -> None:
    """Cancel tasks and wait until they have removed what they spilled."""
    ray = import_ray()
    for reference in waiting:
        ray.cancel(reference)
    if waiting:
        ray.wait(list(waiting), num_returns=len(waiting), timeout=CANCEL_WAIT_S)


def _fetched(references: list[Any]) -> Iterator[Matrix]:
    ray = import_ray()
    references.reverse()
    while references:
        with errors_of_ray():
            # Nothing else refers to it: the store lets go of a matrix that was copied out.
            yield ray.get(references.pop())
