"""`Tracing`: a span of OpenTelemetry for every call, with its caller's trace as its parent.

A span says which call, how long, how it ended and who called. What was in a request, and what it
was refused with, is not in it: both may name a customer. Where spans go is said by the environment
variables of OpenTelemetry (``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_SERVICE_NAME``, …).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc

from visavis.errors import ExtraError

__all__ = ["Tracing"]


class Tracing:
    """Makes spans.

    Parameters
    ----------
    provider : opentelemetry.trace.TracerProvider, optional
        Default: one that exports as the environment says.

    Raises
    ------
    ExtraError
        If the extra ``tracing`` is not installed.
    """

    def __init__(self, provider: Any = None) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import SERVICE_NAME, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import (
                TraceContextTextMapPropagator,
            )
        except ImportError as error:
            raise ExtraError("opentelemetry", "tracing") from error
        if provider is None:
            # The environment goes before the name that is given here.
            provider = TracerProvider(resource=Resource.create({SERVICE_NAME: "visavis"}))
            provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._provider = provider
        self._tracer = provider.get_tracer("visavis.gateway")
        self._propagator = TraceContextTextMapPropagator()
        self._kind = trace.SpanKind.SERVER
        self._error = trace.StatusCode.ERROR

    def begin(self, method: str, caller: str, metadata: Any) -> Any:
        """The span of a call that has come in.

        Parameters
        ----------
        method : str
            ``MatchService/MatchCustomer``.
        caller : str
        metadata : sequence of (str, str or bytes)
            Of the call; ``traceparent`` among it names the span that it belongs to.
        """
        carrier: Mapping[str, str] = {
            key: value for key, value in metadata or () if isinstance(value, str)
        }
        service, _, name = method.partition("/")
        return self._tracer.start_span(
            f"visavis.v1.{method}",
            context=self._propagator.extract(carrier),
            kind=self._kind,
            attributes={
                "rpc.system": "grpc",
                "rpc.service": f"visavis.v1.{service}",
                "rpc.method": name,
                "enduser.id": caller,
            },
        )

    def end(self, span: Any, code: str) -> None:
        """The call has ended.

        Parameters
        ----------
        span
            As of `begin`.
        code : str
        """
        span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[code].value[0])
        if code not in ("OK", "CANCELLED"):
            span.set_status(self._error, code)
        span.end()

    def close(self) -> None:
        """Export what has not been exported yet."""
        self._provider.shutdown()
