"""Calls to tool servers that are there, over stdio and over streamable HTTP."""

import asyncio
from collections.abc import Iterable

import pytest
from opentelemetry import trace

from tests.tool_runner.conftest import Reports, Web, call, hanging
from tool_runner.outcome import RESULT_BYTES, Outcome
from tool_runner.servers import Servers

pytestmark = pytest.mark.anyio


def names(servers: Servers) -> Iterable[str]:
    return {tool.name for tool in servers.tools()}


async def test_a_call_brings_back_the_structured_result(servers: Servers) -> None:
    outcome = await call(servers, "probe.big", size=3)
    assert outcome == Outcome("completed", {"result": "xxx"})
    assert servers.ready("probe")
    assert not servers.ready("other")


async def test_a_tool_without_hints_has_the_defaults_of_the_specification(stdio: Servers) -> None:
    silent = await stdio.tool("probe.pid")
    assert silent is not None
    assert (silent.read_only, silent.destructive, silent.idempotent) == (False, True, False)
    stated = await stdio.tool("probe.fail")
    assert stated is not None
    assert (stated.read_only, stated.destructive, stated.idempotent) == (False, False, True)
    assert stated.input_schema["required"] == ["text"]
    assert {"probe.pid", "probe.fail"} <= set(names(stdio))


async def test_an_unknown_tool_is_not_found(stdio: Servers) -> None:
    for unknown in ("probe.nothing", "nobody.pid", "probe", ""):
        assert await stdio.tool(unknown) is None
        assert (await call(stdio, unknown)).code == "tool_not_found"


async def test_a_tool_that_a_server_got_later_is_found(web: Web) -> None:
    async with Servers({"probe": web.config}) as servers:
        assert await servers.tool("probe.late") is None
        web.mcp.add_tool(lambda: "here", name="late")
        assert await servers.tool("probe.late") is not None
        assert (await call(servers, "probe.late")).status == "completed"


async def test_a_failing_tool_gives_its_text(servers: Servers) -> None:
    outcome = await call(servers, "probe.fail", text="no such file")
    assert (outcome.status, outcome.code) == ("failed", "tool_error")
    assert "no such file" in (outcome.error or "")


@pytest.mark.parametrize("tool", ["probe.infinite", "probe.ask"])
async def test_a_tool_that_breaks_its_schema_or_asks_for_input_fails(servers: Servers, tool: str) -> None:
    """Our choice: a person is asked by Millrace, before the call; elicitation is not supported."""
    assert (await call(servers, tool)).code == "tool_error"


async def test_a_result_that_is_too_large_fails(servers: Servers) -> None:
    assert (await call(servers, "probe.big", size=RESULT_BYTES - 100)).status == "completed"
    for size in (RESULT_BYTES, 3 * 1024 * 1024):
        assert (await call(servers, "probe.big", size=size)).code == "tool_error"


async def test_a_tool_that_takes_too_long_is_cancelled(servers: Servers) -> None:
    assert (await call(servers, "probe.hang", within=0.2)).code == "tool_timeout"
    assert (await call(servers, "probe.was_cancelled")).result == {"result": True}


async def test_cancelling_a_call_cancels_the_tool(servers: Servers) -> None:
    async with hanging(servers) as task:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (await call(servers, "probe.was_cancelled")).result == {"result": True}


async def test_progress_comes_one_report_at_a_time_in_order_and_ends_with_the_newest(
    servers: Servers,
) -> None:
    reports = Reports()
    await call(servers, "probe.count", progress=reports, to=50)
    assert reports.values == sorted(set(reports.values))
    assert reports.values[-1] == 50
    assert reports.most_running == 1


async def test_what_progress_raises_cancels_the_tool_and_is_raised(servers: Servers) -> None:
    async def refuse(progress: float, total: float | None, message: str | None) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await call(servers, "probe.hang", progress=refuse)
    assert (await call(servers, "probe.was_cancelled")).result == {"result": True}


async def test_a_call_carries_the_idempotency_key_and_the_trace_context(servers: Servers) -> None:
    given = trace.SpanContext(trace_id=0xABC, span_id=0xDEF, is_remote=False)
    with trace.use_span(trace.NonRecordingSpan(given)):
        outcome = await call(servers, "probe.marks", meta={"millrace/attempt": 2})
    assert outcome.result["millrace/idempotencyKey"] == "key-1"
    assert outcome.result["millrace/attempt"] == 2
    assert outcome.result["traceparent"].split("-")[1] == f"{0xABC:032x}"
