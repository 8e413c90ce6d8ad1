"""Tracing: where spans go, and how a trace crosses the broker.

Without `OTEL_EXPORTER_OTLP_ENDPOINT` no span is made, and a trace that a caller began is passed on
all the same. The variables of OpenTelemetry (headers, sampler, …) hold.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from broker.client import header

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
FLUSH = 3.0
"""Seconds that the last spans have to be sent when the process ends."""

tracer = trace.get_tracer("millrace")
_propagator = TraceContextTextMapPropagator()


def service_name(name: str) -> str:
    """What a service is called in traces: `agent_runner` is `millrace-agent-runner`."""
    return f"millrace-{name.replace('_', '-')}"


@contextmanager
def exporting(name: str, env: Mapping[str, str]) -> Iterator[None]:
    """Send this process's spans to the OTLP endpoint of the environment, if there is one.

    What is left is sent at the end; a receiver that does not answer delays it by `FLUSH`. Once a
    process.
    """
    if not any(env.get(endpoint) for endpoint in ENDPOINTS):
        yield
        return
    resource = Resource.create({SERVICE_NAME: service_name(name)})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        # in a thread: the exporter would try a dead receiver for longer than a shutdown may take
        last = threading.Thread(target=provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(FLUSH)


def inject(headers: dict[str, str] | None = None) -> dict[str, str]:
    """`headers` with the context of the current span, where there is one."""
    carrier = {} if headers is None else headers
    _propagator.inject(carrier)
    return carrier


def extract(headers: bytes | Mapping[str, str] | None) -> Context:
    """The context that a message carries, from its raw header block or its headers."""
    if isinstance(headers, bytes):
        found = ((name, header(headers, name.encode())) for name in ("traceparent", "tracestate"))
        headers = {name: value.decode(errors="replace") for name, value in found if value}
    return _propagator.extract(headers or {}, context=Context())
