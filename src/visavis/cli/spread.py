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
    from visavis.cluster import RayOwners
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
    variant : str or None
        Wherever it is.
    """

    address: str | None
    workers: int | None
    threads: int | None
    insecure: bool
    variant: str | None

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

    def owners(self) -> RayOwners | None:
        """Connect to Ray, before anything else runs here; None where this process serves.

        Ray begins processes, and sets what signals do: both want to be done before gRPC has
        threads, and before signals are those of the server.

        Raises
        ------
        VisavisError
        """
        if self.address is None:
            return None
        from visavis.cluster import RayOwners

        with named(address="--ray", workers="--ray-workers", threads="--threads"):
            return RayOwners(
                address=self.address,
                workers=self.workers,
                threads=self.threads or 1,
                variant=self.variant,
                insecure=self.insecure,
            )

    def slots(self, owners: RayOwners | None) -> int:
        """How many threads of the gateway match at a time."""
        if owners is None:
            return self.threads or len(os.sched_getaffinity(0))
        return max(_WAITING_MIN, _WAITING * owners.count * (self.threads or 1))

    def open(
        self,
        owners: RayOwners | None,
        stored: StoredBase,
        catalog: Catalog,
        policy: Policy,
        **options: Any,
    ) -> Serving:
        """Load and check everything, here or there; errors and options as of `Serving.open`."""
        from visavis.serving import Serving, ShardedServing

        given, variant = (stored, catalog, policy), self.variant
        if owners is None:
            return Serving.open(*given, threads=self.threads, variant=variant, **options)
        return ShardedServing.across(owners, *given, variant=variant, **options)
