"""The tool servers: MCP connections, supervised and restarted. Knows neither NATS nor rules.

`NotSent` means that the tool certainly did not run, `Lost` that nobody knows, and an `Outcome` that
the call is over. Elicitation and sampling are not supported: a tool that asks for them fails.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Literal, Self

import anyio
import httpx2
import msgspec
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CONNECTION_CLOSED, CallToolResult, TextContent, ToolAnnotations
from msgspec import Struct

from contracts.config import ToolServer
from contracts.errors import Code

RESULT_BYTES = 256 * 1024
SSE_EVENT_BYTES = 16 * 1024 * 1024  # a result must be read before it can be called too large
TEXT_CHARACTERS = 4096  # of an error or a progress message
PATIENCE = 10.0  # how long a caller waits for a server that is connecting
CONNECT_LIMIT = 30.0
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0  # between connections; after one that lived longer it is short again
IDEMPOTENCY_KEY = "millrace/idempotencyKey"

Progress = Callable[[float, float | None, str | None], Awaitable[None]]

logger = logging.getLogger(__name__)


class NotSent(Exception):
    """The server could not be reached and the tool did not run: the call may be tried again."""


class Lost(Exception):
    """The connection was lost after the call was sent. Whether the tool ran is unknown."""


class Tool(Struct, frozen=True):
    """A tool as its server describes it. A hint that the server leaves out has MCP's default."""

    name: str  # "server.tool"
    description: str
    input_schema: dict[str, Any]
    read_only: bool = False
    destructive: bool = True
    idempotent: bool = False


class Outcome(Struct, frozen=True):
    """How a call ended, as far as the tool is concerned. `result` can be encoded as JSON."""

    status: Literal["completed", "failed"]
    result: Any = None
    error: str | None = None
    code: Code | None = None


class Servers:
    """The tool servers of one process: each connected, listed and restarted by tasks of its own.

    A server that is down delays the callers of its own tools and nobody else. Leaving the scope
    ends the servers' processes; a call that is still in flight then raises `Lost`.
    """

    def __init__(self, servers: Mapping[str, ToolServer], *, patience: float = PATIENCE) -> None:
        self._servers = {name: _Server(name, server, patience) for name, server in servers.items()}
        self._group = asyncio.TaskGroup()
        self._supervisors: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        for name, server in self._servers.items():
            supervisor = self._group.create_task(server.supervise(), name=f"tool server {name}")
            self._supervisors.append(supervisor)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for supervisor in self._supervisors:
            supervisor.cancel()
        await self._group.__aexit__(kind, error, trace)

    def ready(self, name: str) -> bool:
        """Whether that server is connected; over HTTP, as far as the last call knows."""
        server = self._servers.get(name)
        return server is not None and server.link is not None

    def tools(self) -> tuple[Tool, ...]:
        """Every tool of the servers that are connected, as last listed."""
        links = [server.link for server in self._servers.values() if server.link is not None]
        return tuple(tool for link in links for tool in link.tools.values())

    async def tool(self, name: str) -> Tool | None:
        """The tool, or None if there is no such server or tool.

        Waits for a server that is connecting, and raises `NotSent` when that takes too long. A tool
        that is not in the list is looked for once more in a fresh one.
        """
        server = self._servers.get(name.partition(".")[0])
        return (await server.find(name))[1] if server else None

    async def call(  # noqa: PLR0913 - each one is part of the call
        self,
        tool: str,
        arguments: dict[str, Any],
        *,
        timeout: float,  # noqa: ASYNC109 - it is the tool's, and gives an Outcome
        progress: Progress,
        idempotency_key: str,
        meta: Mapping[str, Any] | None = None,
    ) -> Outcome:
        """Call the tool and wait until the call is over. Raises `NotSent` or `Lost`.

        The tool has `timeout` seconds from when its server is connected; then it is cancelled, and
        so it is when the caller is. `progress` is called with one report at a time, and not after
        the call is over; where it is too slow, it gets the newest. What it raises cancels the tool
        and is raised. `meta` gets the current trace context, if there is one, and the key.
        """
        server = self._servers.get(tool.partition(".")[0])
        if server is None:
            return _not_found(tool)
        relay = _Relay()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(relay.run(progress), name=f"progress of {tool}")
                try:
                    marks = {**(meta or {}), IDEMPOTENCY_KEY: idempotency_key}
                    return await server.call(tool, arguments, timeout, relay, marks)
                finally:
                    relay.end()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None


class _Relay:
    """Hands the newest progress report on, one at a time."""

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self._latest: tuple[float, float | None, str | None] | None = None
        self._over = False

    async def report(self, progress: float, total: float | None, message: str | None) -> None:
        self._latest = (progress, total, message and message[:TEXT_CHARACTERS])
        self._news.set()

    def end(self) -> None:
        self._over = True
        self._news.set()

    async def run(self, progress: Progress) -> None:
        while not self._over or self._latest:
            await self._news.wait()
            self._news.clear()
            latest, self._latest = self._latest, None
            if latest:
                await progress(*latest)


class _Link:
    """One MCP connection. A retired one takes no new calls, and closes when it has none left."""

    client: Client

    def __init__(self) -> None:
        self.tools: dict[str, Tool] = {}
        self.since: float | None = None
        self.retired = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self._calls = 0

    @contextmanager
    def busy(self) -> Iterator[None]:
        self._calls += 1
        self.idle.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self.idle.set()


class _Server:
    """One tool server: its supervisor and the connection in use."""

    def __init__(self, name: str, config: ToolServer, patience: float) -> None:
        self.name = name
        self.link: _Link | None = None
        self._config = config
        self._patience = patience
        self._connected = asyncio.Event()

    async def supervise(self) -> None:
        """Keep one connection in use until cancelled: when one is retired, open the next."""
        failures = 0
        async with asyncio.TaskGroup() as owners:
            while True:
                link = _Link()
                owners.create_task(self._own(link), name=f"connection to {self.name}")
                await link.retired.wait()
                calm = link.since is not None and anyio.current_time() - link.since > LONGEST_PAUSE
                failures = 0 if calm else failures
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**failures)
                failures = min(failures + 1, 16)
                await asyncio.sleep(pause * random.uniform(0.5, 1))

    async def _own(self, link: _Link) -> None:
        """Enter and leave the MCP client in one task, as anyio demands. Always retires the link."""
        try:
            async with asyncio.timeout(CONNECT_LIMIT) as limit:
                transport = _watched(self._transport(), lambda: self._retire(link))
                async with Client(transport, cache=None) as link.client:
                    link.tools = await _listing(self.name, link.client)
                    limit.reschedule(None)
                    self._use(link)
                    await link.retired.wait()
                    logger.warning("tool server lost", extra={"server": self.name})
                    await link.idle.wait()
        except Exception:
            logger.warning("tool server failed", exc_info=True, extra={"server": self.name})
        finally:
            self._retire(link)

    def _transport(self) -> AbstractAsyncContextManager[Any]:
        if self._config.command:
            command, *args = self._config.command
            env = self._config.env
            return stdio_client(StdioServerParameters(command=command, args=args, env=env))
        return _http(self._config.url or "")

    def _use(self, link: _Link) -> None:
        if not link.retired.is_set():
            link.since = anyio.current_time()
            self.link = link
            self._connected.set()
            logger.info("tool server connected", extra={"server": self.name})

    def _retire(self, link: _Link) -> None:
        link.retired.set()
        if self.link is link:
            self.link = None
            self._connected.clear()

    async def find(self, tool: str) -> tuple[_Link, Tool | None]:
        """The connection in use, and the tool if the server has it. Raises NotSent."""
        link = None
        try:
            async with asyncio.timeout(self._patience):
                while (link := self.link) is None:
                    await self._connected.wait()
                if tool not in link.tools:
                    link.tools = await _listing(self.name, link.client)
        except (TimeoutError, MCPError, ValueError) as error:
            if link:
                self._retire(link)
            raise NotSent(f"the tool server {self.name} cannot be reached") from error
        return link, link.tools.get(tool)

    async def call(
        self,
        tool: str,
        arguments: dict[str, Any],
        seconds: float,
        relay: _Relay,
        meta: dict[str, Any],
    ) -> Outcome:
        link, known = await self.find(tool)
        if known is None:
            return _not_found(tool)
        sending = _Sending()
        _sending.set(sending)
        marks: Any = meta
        with link.busy():
            try:
                async with asyncio.timeout(seconds):
                    result = await link.client.call_tool(
                        tool.partition(".")[2],
                        arguments,
                        progress_callback=relay.report,
                        meta=marks,
                    )
            except TimeoutError:
                return _failed(Code.TOOL_TIMEOUT, f"the tool took longer than {seconds:g} s")
            except MCPError as error:
                # A server that is being stopped answers with this code too: it is never an outcome.
                if error.code != CONNECTION_CLOSED:
                    return _failed(Code.TOOL_ERROR, error.error.message)
                self._retire(link)
                if sending.handed_over:
                    raise Lost(f"the tool server {self.name} was lost") from error
                raise NotSent(f"the tool server {self.name} cannot be reached") from error
            except (RuntimeError, ValueError) as error:  # a result that breaks the tool's schema
                return _failed(Code.TOOL_ERROR, str(error))
        return _outcome(result)


class _Sending(Struct):
    """How many messages of a call may have reached its server. Transports find it in the context.

    A call can take several requests: one that finds nobody does not unmake those before it.
    """

    handed_over: int = 0


_sending: ContextVar[_Sending | None] = ContextVar("sending", default=None)


@asynccontextmanager
async def _watched(
    transport: AbstractAsyncContextManager[Any], ended: Callable[[], None]
) -> AsyncIterator[tuple["_Reads", "_Writes"]]:
    """A transport that says when it ends, which an MCP client does not, and what was sent on it."""
    async with transport as (reads, writes):
        yield _Reads(reads, ended), _Writes(writes)


class _Reads(ObjectReceiveStream[Any]):
    def __init__(self, stream: ObjectReceiveStream[Any], ended: Callable[[], None]) -> None:
        self._stream = stream
        self._ended = ended

    async def receive(self) -> Any:
        try:
            return await self._stream.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
            self._ended()
            raise

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Writes(ObjectSendStream[Any]):
    def __init__(self, stream: ObjectSendStream[Any]) -> None:
        self._stream = stream

    async def send(self, item: Any) -> None:
        sending = _sending.get() or _Sending()
        sending.handed_over += 1
        try:
            await self._stream.send(item)
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            sending.handed_over -= 1
            raise

    async def aclose(self) -> None:
        await self._stream.aclose()


@asynccontextmanager
async def _http(url: str) -> AsyncIterator[tuple[Any, Any]]:
    timeout = httpx2.Timeout(CONNECT_LIMIT, read=None, pool=None)  # a call has its own
    transport = _Http(limits=httpx2.Limits(max_connections=None))
    async with (
        httpx2.AsyncClient(transport=transport, timeout=timeout) as client,
        streamable_http_client(
            url, http_client=client, max_sse_event_size=SSE_EVENT_BYTES
        ) as streams,
    ):
        yield streams


class _Http(httpx2.AsyncHTTPTransport):
    """Answers a request that failed: in mcp 2.3 it would end every other call on the connection."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            response = await super().handle_async_request(request)
            if response.status_code >= 500 or "json" in response.headers.get("content-type", ""):
                await response.aread()
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            return _closed(sent=False)
        except httpx2.TransportError:
            return _closed(sent=True)
        if response.status_code == 404 and "mcp-session-id" in request.headers:
            await response.aclose()  # the server has restarted and asks for a new MCP session
            return _closed(sent=False)
        if response.status_code >= 500 and b'"jsonrpc"' not in response.content:
            return _closed(sent=True)  # a gateway's answer; nobody knows what became of the call
        return response


def _closed(*, sent: bool) -> httpx2.Response:
    if not sent and (sending := _sending.get()):
        sending.handed_over -= 1
    error = {"code": CONNECTION_CLOSED, "message": "Connection closed"}
    return httpx2.Response(503, json={"jsonrpc": "2.0", "id": None, "error": error})


async def _listing(server: str, client: Client) -> dict[str, Tool]:
    tools: dict[str, Tool] = {}
    cursor: str | None = None
    while True:
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            hints = tool.annotations or ToolAnnotations()
            name = f"{server}.{tool.name}"
            tools[name] = Tool(
                name,
                tool.description or "",
                tool.input_schema,
                read_only=hints.read_only_hint is True,
                destructive=hints.destructive_hint is not False,
                idempotent=hints.idempotent_hint is True,
            )
        if (cursor := page.next_cursor) is None:
            return tools


def _outcome(result: CallToolResult) -> Outcome:
    texts = [block.text for block in result.content if isinstance(block, TextContent)]
    if result.is_error:
        return _failed(Code.TOOL_ERROR, "\n".join(texts) or "the tool failed and does not say why")
    value: Any = result.structured_content
    if value is None and len(texts) == len(result.content) == 1:
        value = texts[0]
    elif value is None:
        value = [
            block.model_dump(mode="json", by_alias=True, exclude_none=True)
            for block in result.content
        ]
    size = len(msgspec.json.encode(value))
    if size > RESULT_BYTES:
        return _failed(Code.TOOL_ERROR, f"the result has {size} bytes; {RESULT_BYTES} are allowed")
    return Outcome("completed", value)


def _failed(code: Code, text: str) -> Outcome:
    return Outcome("failed", error=text[:TEXT_CHARACTERS], code=code)


def _not_found(tool: str) -> Outcome:
    return _failed(Code.TOOL_NOT_FOUND, f"there is no tool {tool}")
