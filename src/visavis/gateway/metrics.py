"""`Meters`: what the gateway counts, for Prometheus. No label ever holds an id of a customer.

Names follow Prometheus' advice: base units, ``_total`` for what only grows. The values of every
label are a closed set: calls of the contract, status codes, lines, reasons to shed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    start_http_server,
)
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from visavis.errors import StorageError
from visavis.gateway.limits import host_and_port
from visavis.serving import ServingVersion

__all__ = ["Exposition", "Meters", "label_of"]

_SECONDS: Final = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)
_WAITS: Final = (0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_COUNTS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_000, 2_000, 5_000, 10_000)
_STAGES: Final = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)


def label_of(method: str) -> str:
    """``MatchService/MatchCustomer`` of a path, for labels and logs."""
    return method.rpartition(".")[2]


class Meters:
    """Counters and histograms of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._rpc = self._histogram(
            "rpc_seconds", "From the first byte to the last.", ("method", "code"), _SECONDS
        )
        self._queue = self._histogram("queue_seconds", "Waited for a thread.", ("line",), _WAITS)
        self._customers = self._histogram(
            "batch_customers", "Customers matched in one piece.", ("line",), _COUNTS
        )
        self._stage = self._histogram("stage_seconds", "Spent in a thread.", ("stage",), _STAGES)
        self._shed = self._counter("shed", "Calls that were not begun.", ("line", "reason"))
        self._pairs = self._counter("pairs_scored", "Customer and capability, each once.", ())
        self._in_flight = Gauge(
            "visavis_rpcs_in_flight", "Calls being answered.", registry=self.registry
        )
        self._children: dict[tuple[str, ...], Any] = {}

    def _histogram(
        self, name: str, told: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> Histogram:
        return Histogram(f"visavis_{name}", told, labels, buckets=buckets, registry=self.registry)

    def _counter(self, name: str, told: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"visavis_{name}", told, labels, registry=self.registry)

    def _child(self, metric: Any, *labels: str) -> Any:
        # `labels` of the library takes a lock and makes a tuple of texts each time.
        key = (metric._name, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    def arrived(self) -> None:
        """A call has come in."""
        self._in_flight.inc()

    def answered(self, method: str, code: str, seconds: float) -> None:
        """A call has ended."""
        self._in_flight.dec()
        self._child(self._rpc, method, code).observe(seconds)

    def begun(self, line: str, waited_s: float, customer_count: int) -> None:
        """A piece of work has left a line."""
        self._child(self._queue, line).observe(waited_s)
        if customer_count:
            self._child(self._customers, line).observe(customer_count)

    def shed(self, line: str, reason: str) -> None:
        """A call was not begun."""
        self._child(self._shed, line, reason).inc()

    def refused(self, line: str, method: str, code: str) -> None:
        """A call has come in and was shed at once."""
        self.shed(line, "overloaded")
        self._child(self._rpc, method, code).observe(0.0)

    def matched(self, stats: Mapping[str, int], seconds: float) -> None:
        """Some customers were matched."""
        pairs = stats["skipped_by_rule"] + stats["skipped_by_bound"] + stats["screened"]
        self._pairs.inc(pairs)
        self._child(self._stage, "match").observe(seconds)

    def encoded(self, seconds: float) -> None:
        """An answer was written."""
        self._child(self._stage, "encode").observe(seconds)

    def watch(self, served: Callable[[], tuple[ServingVersion, int] | None]) -> None:
        """Tell also what is served.

        Parameters
        ----------
        served : callable
            Its name, and how many entries the journal has beyond it; None before there is any.
        """
        self.registry.register(_Served(served))


class _Served(Collector):
    """What is served, asked whenever metrics are read."""

    def __init__(self, served: Callable[[], tuple[ServingVersion, int] | None]) -> None:
        self._served = served

    def collect(self) -> list[Any]:
        """See prometheus_client."""
        found = self._served()
        ready = GaugeMetricFamily("visavis_ready", "1 once a version is served.")
        ready.add_metric([], float(found is not None))
        if found is None:
            return [ready]
        name, lag = found
        about = {
            "base_version": str(name.base_version),
            "base_digest": name.base_digest,
            "catalog_digest": name.catalog_digest,
            "policy_digest": name.policy_digest,
            "as_of": name.as_of.isoformat(),
        }
        version = InfoMetricFamily("visavis_version", "What is served.", value=about)
        offset = GaugeMetricFamily("visavis_journal_offset", "Up to which entries are known.")
        offset.add_metric([], float(name.journal_offset))
        behind = GaugeMetricFamily("visavis_journal_lag_entries", "Recorded, and not known yet.")
        behind.add_metric([], float(lag))
        return [ready, version, offset, behind]


class Exposition:
    """Where Prometheus reads, over HTTP, in a thread of its own.

    Parameters
    ----------
    address : str
        ``host:port``; port 0 takes a free one.
    meters : Meters

    Raises
    ------
    StorageError
        If the address cannot be listened at.
    """

    def __init__(self, address: str, meters: Meters) -> None:
        host, port = host_and_port(address, "metrics_address")
        host = host.removeprefix("[").removesuffix("]") or "0.0.0.0"  # noqa: S104 (it was asked for)
        try:
            self._server, self._thread = start_http_server(port, host, meters.registry)
        except OSError as error:
            raise StorageError("cannot be listened at", path=address) from error
        self.port = int(self._server.server_port)

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
