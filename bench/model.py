"""A model server that never finishes: chat completions over HTTP, in the process of the client that cancels."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

PIECES = 5
"""What is said before it falls silent, or goes on."""

INTERVAL = 0.01
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Request(asyncio.Protocol):
    """One connection, with one request. `left`: when its client closed it, on the monotonic clock, in ns."""

    def __init__(self, server: "ModelServer") -> None:
        self.left: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._server = server
        self._received = b""
        self._said = 0
        self._next: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the request."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer, once the request is whole."""
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        if found and length and len(body) >= int(length[1]):
            self._received = b""
            self._server.latest = self
            self._transport.write(HEAD)
            while self._said < PIECES:
                self._say()
            if self._server.goes_on:
                self._go_on()

    def eof_received(self) -> None:
        """The client has left."""
        self._leave()

    def connection_lost(self, _error: Exception | None) -> None:
        """Likewise."""
        self._leave()

    def _leave(self) -> None:
        if not self.left.done():
            self.left.set_result(time.monotonic_ns())
        if self._next:
            self._next.cancel()

    def _go_on(self) -> None:
        self._say()
        self._next = asyncio.get_running_loop().call_later(INTERVAL, self._go_on)

    def _say(self) -> None:
        delta = {"content": f"{self._said} {time.monotonic_ns()}\n"}
        self._said += 1
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "bench"}
        event = b"data: %b\n\n" % json.dumps(chunk | {"choices": [{"index": 0, "delta": delta}]}).encode()
        self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))


class ModelServer:
    """The server. After PIECES pieces it says one every INTERVAL if it `goes_on`, and nothing otherwise."""

    def __init__(self) -> None:
        self.goes_on = False
        self.latest: Request | None = None


@asynccontextmanager
async def model_server(port: int) -> AsyncIterator[ModelServer]:
    """A server until the block ends."""
    server = ModelServer()
    listener = await asyncio.get_running_loop().create_server(lambda: Request(server), "127.0.0.1", port)
    try:
        yield server
    finally:
        listener.close()
