"""A real HTTP server that streams what a script says: what the servers of all models have in common."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum
from typing import Any

from msgspec import Struct, field


class Step(Enum):
    """What a reply may do beside sending bytes."""

    STALL = "send nothing until `Request.resume`, or until the client leaves"
    CUT = "drop the connection"
    END = "end the body properly, though the answer is not whole"


class Reply(Struct, frozen=True):
    """An answer to one request: a body whose parts are sent one by one, and its status."""

    body: tuple[bytes | Step, ...]
    status: int = 200
    content_type: str = "text/event-stream"
    headers: dict[str, str] = {}

    @classmethod
    def error(cls, status: int, body: object, **headers: str) -> "Reply":
        """A refusal in JSON. Headers are written `retry_after="3"`."""
        named = {name.replace("_", "-").title(): value for name, value in headers.items()}
        return cls((json.dumps(body).encode(),), status, "application/json", named)


class Request(Struct):
    """A request that came. `closed_early`: the client left before it had the whole reply."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    closed_early: bool = False
    resume: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def messages(self) -> list[tuple[str, Any]]:
        """What the model was shown: role and content."""
        return [(message["role"], message.get("content")) for message in self.body["messages"]]


class ModelServer:
    """The server. Requests get the scripted replies in the order they come, then `default`."""

    def __init__(self, default: Reply) -> None:
        self.base_url = ""
        self.requests: list[Request] = []
        self.default = default
        self._replies: deque[Reply] = deque()
        self._connections: set[asyncio.Task[None]] = set()

    def script(self, *replies: Reply) -> None:
        """Answer the next requests like this."""
        self._replies.extend(replies)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection: one request and its reply."""
        task = asyncio.current_task()
        assert task
        self._connections.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                request = await _read(reader)
                self.requests.append(request)
                reply = self._replies.popleft() if self._replies else self.default
                await _send(request, reply, reader, writer)
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def close(self) -> None:
        """End the connections that are still open."""
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *fields = head.rstrip().split("\r\n")
    headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(line.split()[1], headers, json.loads(body or b"{}"))


async def _send(request: Request, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    left = asyncio.create_task(reader.read(1))
    try:
        fields = {"Content-Type": reply.content_type} | reply.headers
        fields |= {"Transfer-Encoding": "chunked", "Connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        writer.write(f"HTTP/1.1 {reply.status} Scripted\r\n{head}\r\n".encode())
        for step in reply.body:
            if left.done():
                request.closed_early = True
            if left.done() or step is Step.CUT:
                return
            if step is Step.END:
                break
            if step is Step.STALL:
                await _either(left, request.resume)
                request.resume.clear()
                request.closed_early = left.done()
            else:
                writer.write(b"%x\r\n%b\r\n" % (len(step), step))
                await writer.drain()
        writer.write(b"0\r\n\r\n")
        writer.close()
        await writer.wait_closed()
    finally:
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)


async def _either(left: asyncio.Task[bytes], resume: asyncio.Event) -> None:
    resumed = asyncio.create_task(resume.wait())
    both: set[asyncio.Task[Any]] = {left, resumed}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        resumed.cancel()


@asynccontextmanager
async def serving(server: ModelServer) -> AsyncIterator[None]:
    """Let it listen on a free port until the block ends."""
    listener = await asyncio.start_server(server.accept, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    server.base_url = f"http://127.0.0.1:{port}/v1"
    try:
        yield
    finally:
        listener.close()
        await server.close()
        await listener.wait_closed()
