"""What ``serve`` serves from: this process, or workers of Ray."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from visavis.cli.options import named
from visavis.errors import InputError

if TYPE_CHECKING:
    from visavis.base import StoredBase
    from visavis.catalog import Catalog
    from visavis.policy import Policy
    from visavis.serving import Serving

__all__ = ["RayAddress", "RayWorkers", "Spread"]

RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Customers on workers of Ray: 'local', 'auto' or the head's host:port. Every worker "
        "must see the base under the same name; --threads is then of each.",
    ),
]
RayWorkers = Annotated[
    int | None,
    typer.Option(
        "--ray-workers", min=1, help="Default: as many as there is room for. Two hold each shard."
    ),
]

#: Threads that wait for the answers of one worker.
_WAITING: Final = 4
_WAITING_MIN: Final = 16


class Spread(NamedTuple):
    """What was asked of Ray.

    Attributes
    ----------
    address : str or None
        None: this process serves.
    workers, threads : int or None
    insecure : bool
    """

    address: str | None
    workers: int | None
    threads: int | None
    insecure: bool

    def check(self, processes: int) -> None:
        """Refuse what is for Ray without Ray, and with it what is not.

        Raises
        ------
        InputError
        """
        if self.address is not None:
            if processes > 1:
                reason = "is for one process that serves by itself: with --ray, see --ray-workers"
                raise InputError(reason, field="--workers")
            return
        if self.workers is not None:
            raise InputError("is for --ray, which is not given", field="--ray-workers")
        if self.insecure:
            raise InputError("is for --ray, which is not given", field="--insecure")

    @property
    def slots(self) -> int:
        """How many threads of the gateway match at a time."""
        processors = len(os.sched_getaffinity(0))
        if self.address is None:
            return self.threads or processors
        return max(_WAITING_MIN, _WAITING * (self.workers or processors))

    def open(
        self,
        stored: StoredBase,
        catalog: Catalog,
        policy: Policy,
        *,
        variant: str | None,
        **options: Any,
    ) -> Serving:
        """Load and check everything, here or there; errors and options as of `Serving.open`."""
        if self.address is None:
            from visavis.serving import Serving

            return Serving.open(
                stored, catalog, policy, threads=self.threads, variant=variant, **options
            )
        from visavis.cluster import RayOwners
        from visavis.serving import ShardedServing

        with named(address="--ray", workers="--ray-workers"):
            owners = RayOwners(
                address=self.address,
                workers=self.workers,
                threads=self.threads or 1,
                variant=variant,
                insecure=self.insecure,
            )
        return ShardedServing.across(owners, stored, catalog, policy, variant=variant, **options)
