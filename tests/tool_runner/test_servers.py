"""The tool servers, against real MCP servers over stdio and over streamable HTTP."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from opentelemetry import trace
from pydantic import BaseModel

from contracts.config import ToolServer
from tests.harness.wait import until
from tool_runner.servers import RESULT_BYTES, Lost, NotSent, Outcome, Servers

pytestmark = pytest.mark.anyio

IMPORT = "from tests.tool_runner.test_servers import probe"
OVER_STDIO = ToolServer(command=(sys.executable, "-c", f"{IMPORT}; probe().run('stdio')"))
MISSING = ToolServer(command=("/nonexistent/server",))
STARTING = 20.0  # a bound on the start of a Python process, not an expectation


class Name(BaseModel):
    """What the tool `ask` asks for."""

    name: str


def probe() -> MCPServer:  # noqa: C901 - a list of small functions
    """An MCP server with a tool for each way in which a call can go."""
    server = MCPServer("probe", log_level="CRITICAL")
    cancelled = asyncio.Event()

    @server.tool()
    def pid() -> int:
        return os.getpid()

    @server.tool()
    def environment() -> list[str]:
        return sorted(os.environ)

    @server.tool()
    def marks(ctx: Context) -> dict[str, Any]:
        return dict(ctx.request_context.meta or {})

    @server.tool()
    async def hang(ctx: Context) -> None:
        await ctx.report_progress(1, 2, "hanging")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    @server.tool()
    async def was_cancelled() -> bool:
        return await cancelled.wait()

    @server.tool()
    async def count(to: int, ctx: Context) -> None:
        for step in range(1, to + 1):
            await ctx.report_progress(step, to)

    @server.tool(annotations=ToolAnnotations(idempotent_hint=True, destructive_hint=False))
    def fail(text: str) -> str:
        raise ToolError(text)

    @server.tool()
    def big(size: int) -> str:
        return "x" * size

    @server.tool()
    def infinite() -> float:
        return float("inf")

    @server.tool()
    async def ask(ctx: Context) -> str:
        return str(await ctx.elicit("your name?", Name))

    return server


class Web:
    """An MCP server over streamable HTTP that can go away and come back on its port."""

    def __init__(self, *, sessions: bool = False) -> None:
        self.mcp = probe()
        self._sessions = sessions
        self._port = 0

    @property
    def config(self) -> ToolServer:
        return ToolServer(url=f"http://127.0.0.1:{self._port}/mcp")

    async def start(self) -> None:
        listening = socket.create_server(("127.0.0.1", self._port))
        self._port = listening.getsockname()[1]
        app: Any = self.mcp.streamable_http_app()
        config = uvicorn.Config(_only_sessions(app) if self._sessions else app, log_config=None)
        self._uvicorn = uvicorn.Server(config)
        self._serving = asyncio.create_task(self._uvicorn.serve(sockets=[listening]))

    def listen_no_more(self) -> None:
        for server in self._uvicorn.servers:
            server.close()

    def drop_connections(self) -> None:
        for connection in list(self._uvicorn.server_state.connections):
            connection.transport.abort()

    async def stop(self) -> None:
        self._uvicorn.should_exit = self._uvicorn.force_exit = True
        await self._serving


def _only_sessions(app: Any) -> Any:
    """The app of a server from before 2026, which knows only MCP sessions."""

    async def older(scope: Any, receive: Any, send: Any) -> None:
        if (b"mcp-method", b"server/discover") in scope.get("headers", ()):
            await send({"type": "http.response.start", "status": 400, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await app(scope, receive, send)

    return older


@asynccontextmanager
async def running(web: Web) -> AsyncIterator[Web]:
    await web.start()
    yield web
    await web.stop()


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    async with running(Web()) as web:
        yield web


@pytest.fixture
async def stdio() -> AsyncIterator[Servers]:
    async with Servers({"probe": OVER_STDIO}, patience=STARTING) as servers:
        yield servers


@pytest.fixture(params=["stdio", "http", "http with sessions"])
async def servers(request: pytest.FixtureRequest) -> AsyncIterator[Servers]:
    async with running(Web(sessions=request.param == "http with sessions")) as web:
        config = OVER_STDIO if request.param == "stdio" else web.config
        async with Servers({"probe": config}, patience=STARTING) as servers:
            yield servers


class Reports:
    """Collects progress."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.running = 0
        self.most_running = 0

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(0)  # let others in
        self.values.append(progress)
        self.running -= 1


async def call(
    servers: Servers,
    tool: str,
    *,
    within: float = STARTING,
    progress: Any = None,
    meta: dict[str, Any] | None = None,
    **arguments: Any,
) -> Outcome:
    return await servers.call(
        tool,
        arguments,
        timeout=within,
        progress=progress or Reports(),
        idempotency_key="key-1",
        meta=meta,
    )


@asynccontextmanager
async def hanging(servers: Servers) -> AsyncIterator[asyncio.Task[Outcome]]:
    """A call to `hang` that has certainly begun."""
    reports = Reports()
    task = asyncio.create_task(call(servers, "probe.hang", progress=reports))
    await until(lambda: reports.values, within=STARTING)
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


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
async def test_a_tool_that_breaks_its_schema_or_asks_for_input_fails(
    servers: Servers, tool: str
) -> None:
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


async def test_a_server_process_sees_only_the_environment_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    config = ToolServer(command=OVER_STDIO.command, env={"GIVEN": "1"})
    async with Servers({"probe": config}, patience=STARTING) as servers:
        seen = (await call(servers, "probe.environment")).result["result"]
    assert "GIVEN" in seen
    assert "OPENAI_API_KEY" not in seen


async def test_a_call_is_lost_when_its_server_is_killed_and_the_next_one_works(
    stdio: Servers,
) -> None:
    killed = (await call(stdio, "probe.pid")).result["result"]
    async with hanging(stdio) as task:
        os.kill(killed, signal.SIGKILL)
        with pytest.raises(Lost):
            await task
    assert (await call(stdio, "probe.pid")).result["result"] != killed


async def test_an_idle_server_that_dies_is_started_again(stdio: Servers) -> None:
    os.kill((await call(stdio, "probe.pid")).result["result"], signal.SIGKILL)
    await until(lambda: not stdio.ready("probe"))
    await until(lambda: stdio.ready("probe"), within=STARTING)


async def test_a_server_that_cannot_start_is_not_sent_to_and_disturbs_no_other(web: Web) -> None:
    async with Servers({"missing": MISSING, "probe": web.config}, patience=1.0) as servers:
        with pytest.raises(NotSent):
            await call(servers, "missing.tool")
        with pytest.raises(NotSent):
            await servers.tool("missing.tool")
        assert (await call(servers, "probe.pid")).status == "completed"


async def test_a_call_that_finds_nobody_is_not_sent_and_leaves_the_others_alone(web: Web) -> None:
    async with Servers({"probe": web.config}) as servers, hanging(servers) as task:
        web.listen_no_more()
        with pytest.raises(NotSent):
            await call(servers, "probe.pid")
        assert not task.done()


async def test_a_call_is_lost_when_its_http_connection_drops(web: Web) -> None:
    async with Servers({"probe": web.config}) as servers:
        async with hanging(servers) as task:
            web.drop_connections()
            with pytest.raises(Lost):
                await task
        assert (await call(servers, "probe.pid")).status == "completed"


@pytest.mark.parametrize("sessions", [False, True])
async def test_a_web_server_that_was_away_is_used_again(sessions: bool) -> None:
    async with running(Web(sessions=sessions)) as web, Servers({"probe": web.config}) as servers:
        assert (await call(servers, "probe.pid")).status == "completed"
        await web.stop()
        with pytest.raises(NotSent):
            await call(servers, "probe.pid")
        await web.start()
        assert (await call(servers, "probe.pid")).status == "completed"


async def test_a_call_that_a_restarted_server_refuses_for_its_session_is_not_sent() -> None:
    """Streamable HTTP up to 2025-11-25: 404 for an MCP session that the server does not know."""
    async with running(Web(sessions=True)) as web, Servers({"probe": web.config}) as servers:
        assert (await call(servers, "probe.pid")).status == "completed"
        await web.stop()
        await web.start()
        with pytest.raises(NotSent):
            await call(servers, "probe.pid")
        assert (await call(servers, "probe.pid")).status == "completed"


async def test_leaving_the_scope_ends_the_process_and_loses_the_calls() -> None:
    """A server whose input ends answers what it has in hand with an error: that is no outcome."""
    async with Servers({"probe": OVER_STDIO}, patience=STARTING) as servers:
        pid = (await call(servers, "probe.pid")).result["result"]
        reports = Reports()
        task = asyncio.create_task(call(servers, "probe.hang", progress=reports))
        await until(lambda: reports.values)
    with pytest.raises(Lost):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
