"""The same work on Ray: plain functions and classes, here and on workers.

::

    connect.py       Ray started or joined, with a token; versions; what its failures are here
    shards.py        parts of a full-base job: a pool of actors for visavis.schedule
    owners.py        shards that answer online: actors for visavis.serving
    indicators.py    indicators of all customers, in parts by customer
    fitting.py       joblib's work, as learning spreads it

No other package imports Ray, and importing this one does not either: Ray is loaded by the first
call that needs it. What runs on a worker is a plain function or class, made a task or an actor in
one function of its module, so that all but the transport is tested without a cluster.
"""

from visavis.cluster.connect import connected, held_once
from visavis.cluster.fitting import joblib_backend
from visavis.cluster.indicators import IndicatorJob, PartHead, compute_indicators
from visavis.cluster.owners import RayOwners
from visavis.cluster.shards import RayPool, ShardWorker

__all__ = [
    "IndicatorJob",
    "PartHead",
    "RayOwners",
    "RayPool",
    "ShardWorker",
    "compute_indicators",
    "connected",
    "held_once",
    "joblib_backend",
]
