"""Traces cross the broker in W3C headers, and leave the process over OTLP."""

from pathlib import Path
from signal import SIGTERM

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from broker import telemetry
from tests.harness.nats_server import NatsServer
from tests.harness.otlp import otlp_receiver
from tests.harness.program import program

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_span_is_injected_and_extracted_as_the_same_context() -> None:
    """Standard: W3C Trace Context."""
    with TracerProvider().get_tracer("test").start_as_current_span("append") as span:
        headers = telemetry.inject({"Nats-Msg-Id": "m1"})
    assert headers["Nats-Msg-Id"] == "m1"
    found = trace.get_current_span(telemetry.extract(headers)).get_span_context()
    assert found.span_id == span.get_span_context().span_id
    assert found.is_remote


def test_the_context_is_read_from_a_raw_header_block() -> None:
    """Our choice: what comes from the broker is decoded no further than needed."""
    raw = f"NATS/1.0\r\nNats-Msg-Id: m1\r\ntraceparent: {PARENT}\r\n\r\n".encode()
    found = trace.get_current_span(telemetry.extract(raw)).get_span_context()
    assert trace.format_trace_id(found.trace_id) == "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("headers", [None, {}, b"NATS/1.0\r\n\r\n", b"NATS/1.0\r\ntraceparent: x\r\n\r\n"])
def test_a_message_without_a_context_begins_no_trace(headers: bytes | None) -> None:
    """Standard: an invalid traceparent is ignored."""
    assert not trace.get_current_span(telemetry.extract(headers)).get_span_context().is_valid


def test_without_a_span_nothing_is_injected() -> None:
    """Our choice: no header without use."""
    assert telemetry.inject() == {}


@pytest.mark.anyio
async def test_spans_reach_an_otlp_receiver_under_the_services_name(nats: NatsServer, tmp_path: Path) -> None:
    """WIRE 6: `service.name` is `millrace-agent-runner`; what is left is sent at the end."""
    with otlp_receiver() as receiver:
        env = {
            "MILLRACE_NATS_URL": nats.url,
            "MILLRACE_NKEY": nats.seed("agent_runner"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        }
        name = ("tests.harness.service", "agent_runner", "trace")
        async with program(*name, env=env, cwd=tmp_path) as service:
            await service.says("running")
            service.signal(SIGTERM)
            assert await service.exit() == 0
        (span,) = receiver.spans
        assert (span.service, span.name) == ("millrace-agent-runner", "work")


@pytest.mark.anyio
async def test_a_receiver_that_is_away_keeps_no_process_from_stopping(nats: NatsServer, tmp_path: Path) -> None:
    """Our choice: traces are worth seconds, not a shutdown."""
    env = {
        "MILLRACE_NATS_URL": nats.url,
        "MILLRACE_NKEY": nats.seed("edge"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    }
    async with program("tests.harness.service", "edge", "trace", env=env, cwd=tmp_path) as service:
        await service.says("running")
        service.signal(SIGTERM)
        assert await service.exit() == 0
