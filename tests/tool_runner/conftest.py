"""Real MCP servers over stdio and over streamable HTTP, and calls to their tools."""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import BaseModel

from contracts.config import ToolServer
from tests.harness.wait import until
from tool_runner.outcome import Outcome
from tool_runner.servers import Servers

IMPORT = "from tests.tool_runner.conftest import probe"
OVER_STDIO = ToolServer(command=(sys.executable, "-c", f"{IMPORT}; probe().run('stdio')"))
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
