"""Learning on Ray: joblib's work goes to Ray's workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from visavis.cluster.connect import connected

__all__ = ["joblib_backend"]


@contextmanager
def joblib_backend(address: str = "local") -> Iterator[int]:
    """Let joblib's work in the block run on Ray, as `visavis.learning.learn` does its blocks.

    Yields how many processors Ray has; errors as of `connected`. ::

        with joblib_backend("head:6379") as processors:
            learn(windows, base, catalog, spec, threads=processors, hold=held_once)
    """
    import joblib
    from joblib.pool import PicklingPool

    # Ray puts its own pool in the place of multiprocessing's, for the whole process.
    bases = PicklingPool.__bases__
    with connected(address) as processors:
        backend = import_module("ray.util.joblib.ray_backend").RayBackend
        # What multiprocessing's pool cannot do, Ray's can: give results while others are made.
        streaming = type("StreamingRayBackend", (backend,), {"supports_return_generator": True})
        try:
            with joblib.parallel_config(backend=streaming()):
                yield processors
        finally:
            PicklingPool.__bases__ = bases
