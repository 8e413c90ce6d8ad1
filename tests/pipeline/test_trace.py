"""One turn is one trace: from the edge's receiving to the turn's end, over OTLP/HTTP to a real receiver."""

import pytest

from tests.harness.client import http, joined, new_session
from tests.harness.otlp import Span, otlp_receiver
from tests.harness.system import system
from tests.harness.wait import until

pytestmark = pytest.mark.anyio


async def test_a_turn_with_a_tool_and_an_approval_is_one_trace(tmp_path_factory: pytest.TempPathFactory) -> None:
    """W3C context in the message headers; one root span, the edge's; the tool's server takes part too."""
    with otlp_receiver() as receiver:
        directory = tmp_path_factory.mktemp("trace")
        async with system(directory, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint) as running:
            token = running.token()
            session_id = await new_session(running.edge, token)
            async with joined(running.edge, session_id, token) as client:
                await client.say([{"tool": "demo.note", "arguments": {"text": "traced"}}, {"say": "done"}])
                request = await client.until("tool_approval_request")
                await client.send("tool_approval", tool_call_id=request["tool_call_id"], approved=True)
                await client.until("turn_end")
            for service in running.services:
                await service.stop()
            turn = await until(lambda: next((s for s in receiver.spans if s.name == "turn"), None))
            assert turn
            spans = [span for span in receiver.spans if span.trace_id == turn.trace_id]
            by_id = {span.span_id: span for span in spans}

            def line(span: Span) -> list[str]:
                names = [span.name]
                while span.parent_id:
                    span = by_id[span.parent_id]
                    names.append(span.name)
                return names[::-1]

            roots = [span for span in spans if not span.parent_id]
            assert [(root.service, root.name) for root in roots] == [("millrace-edge", "message")]
            lines = [line(span) for span in spans]
            turn_line = ["message", "append", "turn"]
            call_line = [*turn_line, "tool_call", "tool"]
            for expected in (
                [*turn_line, "turn_start"],
                [*call_line, "tool_approval_request"],
                [*call_line, "execute_tool"],
                [*call_line, "tool_result"],
                [*turn_line, "turn_end"],
            ):
                assert expected in lines, lines
            assert {span.service for span in spans} >= {
                "millrace-edge",
                "millrace-agent-runner",
                "millrace-tool-runner",
            }


async def test_each_service_tells_its_health_and_its_metrics(tmp_path_factory: pytest.TempPathFactory) -> None:
    """WIRE 6: `/healthz`, `/readyz` and `/metrics` on each service; readiness follows the broker."""
    async with system(tmp_path_factory.mktemp("health")) as running:
        token = running.token()
        session_id = await new_session(running.edge, token)
        async with joined(running.edge, session_id, token) as client:
            await client.say([{"tool": "demo.add", "arguments": {"a": 1, "b": 1}}])
            await client.until("turn_end")
            pages = {}
            ready = {
                service.name: set((await http("GET", f"{service.url}/readyz")).json["checks"])
                for service in running.services
            }
            assert ready["agent_runner"] == {"broker", "consuming agent_runner"}
            assert ready["tool_runner"] == {"broker", "consuming"}
            assert {"consuming INGEST_acme", "consuming INGEST_globex"} < ready["event_ingest"]
            for service in running.services:
                assert (await http("GET", f"{service.url}/healthz")).status == 200
                pages[service.name] = (await http("GET", f"{service.url}/metrics")).body.decode()
        assert 'millrace_messages_total{tenant="acme"} 1.0' in pages["edge"]
        assert 'millrace_active_connections{transport="websocket"} 1.0' in pages["edge"]
        assert "millrace_active_sessions 1.0" in pages["edge"]
        assert 'millrace_response_time_seconds_count{agent="script",status="completed"} 1.0' in pages["agent_runner"]
        assert 'millrace_tool_calls_total{status="completed",tool="demo.add"} 1.0' in pages["tool_runner"]
        took = 'millrace_tool_execution_time_seconds_count{status="completed",tool="demo.add"} 1.0'
        assert took in pages["tool_runner"]
        for name in ("errors_total", "approvals_total", "token_usage", "pending_approvals"):
            assert all(f"millrace_{name}" in page for page in pages.values())
        await running.nats.kill()
        for service in running.services:

            async def away(url: str = service.url) -> bool:
                return (await http("GET", f"{url}/readyz")).status == 503

            await until(away, within=20)
            assert (await http("GET", f"{service.url}/healthz")).status == 200
        await running.nats.start()
        for service in running.services:
            await service.ready()
