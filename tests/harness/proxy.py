"""A TCP proxy between a service and its broker: it cuts, freezes, refuses, and drops single messages on command."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from tests.harness.wire import LIMIT, Message, read_command


class Link:
    """One client's connection."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.up = asyncio.Event()
        self.down = asyncio.Event()
        self.up.set()
        self.down.set()

    def cut(self) -> None:
        """Break it, whatever is on its way."""
        self.up.set()
        self.down.set()
        for writer in (self.client, self.server):
            writer.transport.abort()


class Proxy:
    """Everything passes, until it is told otherwise.

    `published` holds what the clients sent, `dropped` what was kept from them. `drop` is asked for each message to
    a client whether to drop it, `before_publish` is called with each message of a client before it is passed on.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._upstream = (parts.hostname or "", parts.port or 0)
        self._server: asyncio.Server | None = None
        self._links: list[Link] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections = 0
        self.refusing = False
        self.refused = 0
        self.drop: Callable[[Message], bool] = lambda _message: False
        self.before_publish: Callable[[Message], None] = lambda _message: None
        self.dropped: list[Message] = []
        self._kept: list[tuple[Link, bytes]] = []
        self.published: list[Message] = []
        self.unsubscribed = 0

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break every connection; new ones pass."""
        links, self._links = self._links, []
        for link in links:
            link.cut()

    def freeze(self, *, up: bool = True, down: bool = True) -> None:
        """Let nothing more pass on the connections there are, without breaking them; new ones pass."""
        for link in self._links:
            if up:
                link.up.clear()
            if down:
                link.down.clear()

    def redeliver(self) -> None:
        """Send what was dropped, late and out of its order; from now on nothing is dropped."""
        self.drop = lambda _message: False
        for link, raw in self._kept:
            link.client.write(raw)
        self._kept.clear()

    def thaw(self) -> None:
        """Let everything pass again, also what was held back."""
        for link in self._links:
            link.up.set()
            link.down.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            self.refused += 1
            writer.transport.abort()
            return
        try:
            from_server, to_server = await asyncio.open_connection(*self._upstream, limit=LIMIT)
        except OSError:
            writer.transport.abort()
            return
        self.connections += 1
        link = Link(writer, to_server)
        self._links.append(link)
        for pump in (self._up(link, reader), self._down(link, from_server)):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _up(self, link: Link, reader: asyncio.StreamReader) -> None:
        while (command := await read_command(reader)) and not link.server.is_closing():
            await link.up.wait()
            if message := command.message:
                self.published.append(message)
                self.before_publish(message)
            self.unsubscribed += command.verb == b"UNSUB"
            link.server.write(command.raw)
            with contextlib.suppress(OSError):
                await link.server.drain()
            await link.up.wait()
        link.cut()

    async def _down(self, link: Link, reader: asyncio.StreamReader) -> None:
        while (command := await read_command(reader)) and not link.client.is_closing():
            await link.down.wait()
            if (message := command.message) and self.drop(message):
                self.dropped.append(message)
                self._kept.append((link, command.raw))
                continue
            link.client.write(command.raw)
            with contextlib.suppress(OSError):
                await link.client.drain()
            await link.down.wait()
        link.cut()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=LIMIT)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Break everything."""
        self.refusing = True
        if self._server:
            self._server.close()
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    """A proxy to `url` until the block ends."""
    proxy = Proxy(url)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()
