"""The ways in which a client follows one session: its socket, a socket for many, or server-sent events and REST."""

import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import httpx
from httpx_sse import EventSource
from websockets.asyncio.client import ClientConnection, connect

from tests.harness.client import socket_url
from tests.harness.history import Frame

OPEN_TIMEOUT = 2.0
PING = 1.0
"""Seconds between a socket's pings: a paused edge is left after two of them."""

SILENCE = 20.0
"""Seconds after which a stream that says nothing is given up; a comment comes every 15."""

Answered = Callable[[Frame], Awaitable[None]]

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Nothing here is asked over TLS; httpx would read every authority's certificate for each client, for 30 ms or more."""


class Transport(Protocol):
    """An open connection. `kind` is its name; `frames` ends or raises when it does."""

    kind: str

    def frames(self) -> AsyncGenerator[Frame]:
        """What the server sends."""

    async def send(self, frame: Frame) -> None:
        """Send a frame, or what does the same."""

    def abort(self) -> None:
        """Lose the connection."""


class Socket:
    """The session's own socket."""

    kind = "socket"

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def frames(self) -> AsyncGenerator[Frame]:
        """What the server sends."""
        async for data in self._connection:
            yield json.loads(data)

    async def send(self, frame: Frame) -> None:
        """As it is."""
        await self._connection.send(json.dumps(frame))

    def abort(self) -> None:
        """Lose the connection."""
        self._connection.transport.abort()


class Many(Socket):
    """A socket for many sessions, of which this is one."""

    kind = "many"

    def __init__(self, connection: ClientConnection, session_id: str, after: str | None) -> None:
        super().__init__(connection)
        self._session_id = session_id
        self._subscribe = {"type": "subscribe"} | ({"after": after} if after else {})

    async def frames(self) -> AsyncGenerator[Frame]:
        """What the server sends; ends where the session cannot be followed."""
        async for frame in super().frames():
            yield frame
            if frame["type"] == "replay_complete" and "session_id" not in frame:
                await self.send(self._subscribe)
            elif frame["type"] == "unsubscribed":
                return

    async def send(self, frame: Frame) -> None:
        """Of this session."""
        await super().send({"session_id": self._session_id, **frame})


class Stream:
    """Server-sent events, and REST for what the client says."""

    kind = "stream"

    def __init__(self, response: httpx.Response, url: str, headers: dict[str, str], answered: Answered) -> None:
        self._response = response
        self._url = url
        self._headers = headers
        self._answered = answered

    async def frames(self) -> AsyncGenerator[Frame]:
        """What the server sends."""
        self._response.raise_for_status()
        async for event in EventSource(self._response).aiter_sse():
            if event.data:
                yield json.loads(event.data)

    async def send(self, frame: Frame) -> None:
        """By a request; what it is answered with is as a socket would have told it."""
        paths = {"message": "/messages", "cancel": "/cancel"}
        path = paths.get(frame["type"]) or f"/approvals/{frame['tool_call_id']}"
        body = {name: value for name, value in frame.items() if name not in ("type", "request_id", "tool_call_id")}
        about = {"request_id": frame["request_id"]} if "request_id" in frame else {}
        try:
            # a client of its own: the stream may end meanwhile
            async with httpx.AsyncClient(
                headers=self._headers, timeout=OPEN_TIMEOUT, trust_env=False, verify=NO_TLS
            ) as client:
                answer = await client.post(self._url + path, json=body)
            said: Frame = answer.json()
        except (httpx.HTTPError, ValueError):
            await self._answered({"type": "error", "code": "unknown", **about})
            return
        if not answer.is_success:
            await self._answered({"type": "error", "code": said["code"], **about})
        elif frame["type"] == "message":
            await self._answered({"type": "message_accepted", **said})

    def abort(self) -> None:
        """Lose the connection."""
        stream = self._response.extensions["network_stream"]
        stream.get_extra_info("socket").shutdown(2)


def opened(
    kind: str, edge: str, who: tuple[str, str], after: str | None, answered: Answered
) -> AbstractAsyncContextManager[Transport]:
    """A connection of that kind to `who`: the session and the token."""
    return _streaming(edge, who, after, answered) if kind == Stream.kind else _socket(kind, edge, who, after)


@asynccontextmanager
async def _socket(kind: str, edge: str, who: tuple[str, str], after: str | None) -> AsyncIterator[Transport]:
    session_id, token = who
    url = socket_url(edge, session_id, token, after)
    if kind == Many.kind:
        url = url.replace(f"/sessions/{session_id}/ws", "/ws")
    async with connect(
        url,
        compression=None,
        max_size=None,
        open_timeout=OPEN_TIMEOUT,
        close_timeout=0.2,
        ping_interval=PING,
        ping_timeout=PING,
    ) as connection:
        yield Many(connection, session_id, after) if kind == Many.kind else Socket(connection)


@asynccontextmanager
async def _streaming(
    edge: str, who: tuple[str, str], after: str | None, answered: Answered
) -> AsyncIterator[Transport]:
    session_id, token = who
    url = f"{edge}/api/v1/sessions/{session_id}"
    headers = {"authorization": f"Bearer {token}"}
    timeout = httpx.Timeout(OPEN_TIMEOUT, read=SILENCE)
    last = {"last-event-id": after} if after else {}
    async with (
        httpx.AsyncClient(headers=headers, timeout=timeout, trust_env=False, verify=NO_TLS) as client,
        client.stream("GET", f"{url}/events", headers={"accept": "text/event-stream"} | last) as response,
    ):
        yield Stream(response, url, headers, answered)
