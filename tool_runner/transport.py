"""The transport of one MCP connection: stdio or streamable HTTP, watched for its end.

It also counts what a call hands over: that decides whether the tool certainly did not run.
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import Any

import anyio
import httpx2
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from mcp import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp.types import CONNECTION_CLOSED, INTERNAL_ERROR, ErrorData, JSONRPCError
from msgspec import Struct
from pydantic import ValidationError

from contracts.config import ToolServer

CONNECT_LIMIT = 30.0
SSE_EVENT_BYTES = 16 * 1024 * 1024  # a result must be read before it can be called too large


class Sending(Struct):
    """How many messages of a call may have reached its server. Transports find it in the context.

    A call can take several requests: one that finds nobody does not unmake those before it.
    """

    handed_over: int = 0


_sending: ContextVar[Sending | None] = ContextVar("sending", default=None)


def begin_sending() -> Sending:
    """The count of what is sent in the current context from here on."""
    sending = Sending()
    _sending.set(sending)
    return sending


def open_transport(
    server: ToolServer, ended: Callable[[], None]
) -> AbstractAsyncContextManager[tuple["_Reads", "_Writes"]]:
    """The way to a server, to be entered. Calls `ended` when the connection ends."""
    return _watched(_plain(server), ended)


def _plain(server: ToolServer) -> AbstractAsyncContextManager[Any]:
    if server.command:
        command, *args = server.command
        return stdio_client(StdioServerParameters(command=command, args=args, env=server.env))
    return _http(server.url or "")


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
            item = await self._stream.receive()
            return (_unreadable(item) or item) if isinstance(item, ValidationError) else item
        except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
            self._ended()
            raise

    async def aclose(self) -> None:
        await self._stream.aclose()


def _unreadable(error: ValidationError) -> SessionMessage | None:
    """What to tell the call whose answer it is: else it would wait until its time is up. None for what is no answer."""
    for found in error.errors(include_url=False, include_context=False):
        told = found["input"]
        try:
            answer = json.loads(told) if isinstance(told, str) and not found["loc"] else told
        except (ValueError, RecursionError):
            continue
        if _is_answer(answer):
            problem = ErrorData(code=INTERNAL_ERROR, message="the server's answer cannot be read")
            return SessionMessage(JSONRPCError(jsonrpc="2.0", id=answer["id"], error=problem))
    return None


def _is_answer(line: object) -> bool:
    """Not a line of a log, which may have an `id`, too."""
    return (
        isinstance(line, dict)
        and line.get("jsonrpc") == "2.0"
        and type(line.get("id")) in (int, str)
        and ("result" in line or "error" in line)
    )


class _Writes(ObjectSendStream[Any]):
    def __init__(self, stream: ObjectSendStream[Any]) -> None:
        self._stream = stream

    async def send(self, item: Any) -> None:
        sending = _sending.get() or Sending()
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
        streamable_http_client(url, http_client=client, max_sse_event_size=SSE_EVENT_BYTES) as streams,
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
