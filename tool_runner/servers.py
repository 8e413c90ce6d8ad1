"""The tool servers: MCP connections, supervised and restarted. Knows neither NATS nor rules.

`NotSent` means that the tool certainly did not run, `Lost` that nobody knows, and an `Outcome` that
the call is over. Elicitation and sampling are not supported: a tool that asks for them fails.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from math import isfinite
from types import TracebackType
from typing import Any, Self

import anyio
from mcp import Client, MCPError
from mcp.types import CONNECTION_CLOSED, ToolAnnotations
from msgspec import Struct

from contracts.config import ToolServer
from contracts.errors import Code
from tool_runner.outcome import TEXT_CHARACTERS, Lost, NotSent, Outcome, failed, not_found, outcome_of
from tool_runner.transport import CONNECT_LIMIT, begin_sending, open_transport

PATIENCE = 10.0  # how long a caller waits for a server that is connecting
FIRST_PAUSE = 0.1
LISTED_EVERY = 60.0  # seconds between looks at a server's tools: not every server tells that they changed
LONGEST_PAUSE = 10.0  # between connections; after one that lived longer it is short again
IDEMPOTENCY_KEY = "millrace/idempotencyKey"

Progress = Callable[[float, float | None, str | None], Awaitable[None]]

logger = logging.getLogger(__name__)


class Tool(Struct, frozen=True):
    """A tool as its server describes it. A hint that the server leaves out has MCP's default."""

    name: str  # "server.tool"
    description: str
    input_schema: dict[str, Any]
    read_only: bool = False
    destructive: bool = True
    idempotent: bool = False


Told = Callable[[str, Mapping[str, Tool]], None]
"""Hears which tools a server lists."""


class Servers:
    """The tool servers of one process: each connected, listed and restarted by tasks of its own.

    A server that is down delays the callers of its own tools and nobody else. Leaving the scope
    ends the servers' processes; a call that is still in flight then raises `Lost`.
    """

    def __init__(
        self, servers: Mapping[str, ToolServer], *, patience: float = PATIENCE, told: Told = lambda _name, _tools: None
    ) -> None:
        self._servers = {name: _Server(name, server, patience, told) for name, server in servers.items()}
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
            return not_found(tool)
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
        if not isfinite(progress):
            return  # nothing that JSON holds
        total = total if total is not None and isfinite(total) else None
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

    def __init__(self, name: str, config: ToolServer, patience: float, told: Told) -> None:
        self._told = told
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
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter

    async def _own(self, link: _Link) -> None:
        """Enter and leave the MCP client in one task, as anyio demands. Always retires the link."""
        try:
            async with asyncio.timeout(CONNECT_LIMIT) as limit:
                transport = open_transport(self._config, lambda: self._retire(link))
                async with Client(transport, cache=None) as link.client:
                    link.tools = await _listing(self.name, link.client)
                    limit.reschedule(None)
                    self._use(link)
                    await self._list_until_retired(link)
                    logger.warning("tool server lost", extra={"server": self.name})
                    await link.idle.wait()
        except Exception:
            logger.warning("tool server failed", exc_info=True, extra={"server": self.name})
        finally:
            self._retire(link)

    def _use(self, link: _Link) -> None:
        if not link.retired.is_set():
            link.since = anyio.current_time()
            self.link = link
            self._told(self.name, link.tools)
            self._connected.set()
            logger.info("tool server connected", extra={"server": self.name})

    async def _list_until_retired(self, link: _Link) -> None:
        while not link.retired.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(LISTED_EVERY):
                    await link.retired.wait()
                    return
            try:
                async with asyncio.timeout(CONNECT_LIMIT):
                    link.tools = await _listing(self.name, link.client)
            except Exception:  # whether the server is lost, its calls find out
                logger.info("tools could not be listed", exc_info=True, extra={"server": self.name})
            else:
                self._told(self.name, link.tools)

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
                    self._told(self.name, link.tools)
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
            return not_found(tool)
        sending = begin_sending()
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
                return failed(Code.TOOL_TIMEOUT, f"the tool took longer than {seconds:g} s")
            except MCPError as error:
                # A server that is being stopped answers with this code too: it is never an outcome.
                if error.code != CONNECTION_CLOSED:
                    return failed(Code.TOOL_ERROR, error.error.message)
                self._retire(link)
                if sending.handed_over:
                    raise Lost(f"the tool server {self.name} was lost") from error
                raise NotSent(f"the tool server {self.name} cannot be reached") from error
            except (RuntimeError, ValueError) as error:  # a result that breaks the tool's schema
                return failed(Code.TOOL_ERROR, str(error))
        return outcome_of(result)


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
