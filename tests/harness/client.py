"""A client of the edge: plain HTTP and the `websockets` library. It speaks frames and knows nothing of the code."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

WITHIN = 15.0
"""Seconds that anything expected may take, here and everywhere else in the pipeline tests."""

Frame = dict[str, Any]


class Response:
    """An HTTP response."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.body = body

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


async def http(
    method: str, url: str, body: object = None, *, token: str | None = None, accept: str = "application/json"
) -> Response:
    """One HTTP request."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method)  # noqa: S310 - our own address
    request.add_header("Content-Type", "application/json")
    request.add_header("Accept", accept)
    if token:
        request.add_header("Authorization", f"Bearer {token}")

    def send() -> Response:
        try:
            with urllib.request.urlopen(request, timeout=WITHIN) as response:  # noqa: S310
                return Response(response.status, response.read())
        except urllib.error.HTTPError as error:
            return Response(error.code, error.read())

    return await asyncio.to_thread(send)


async def new_session(edge: str, token: str, **fields: object) -> str:
    """Create a session; its id."""
    response = await http("POST", f"{edge}/api/v1/sessions", fields, token=token)
    assert response.status in (200, 201), response.body
    session_id: str = response.json["session_id"]
    return session_id


class Client:
    """One connection to a session. Keeps every frame it was sent, and the cursor of the last log event."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.frames: list[Frame] = []
        self.cursor: str | None = None

    async def send(self, type_: str, **fields: object) -> None:
        """Send a frame."""
        await self.connection.send(json.dumps({"type": type_, **fields}))

    async def say(self, content: object, **fields: object) -> None:
        """Send a message; anything that is not text is a script's program."""
        text = content if isinstance(content, str) else json.dumps(content)
        await self.send("message", content=text, **fields)

    async def receive(self) -> Frame:
        """The next frame."""
        async with asyncio.timeout(WITHIN):
            return self._take(await self.connection.recv())

    def _take(self, data: str | bytes) -> Frame:
        frame: Frame = json.loads(data)
        self.frames.append(frame)
        if frame["type"] in ("snapshot", "replay_complete") or ("id" in frame and "cursor" in frame):
            self.cursor = frame["cursor"]
        return frame

    async def until(self, type_: str, where: Callable[[Frame], bool] = lambda _frame: True) -> Frame:
        """The next frame of that type for which `where` holds; those before it are kept in `frames`."""
        while True:
            frame = await self.receive()
            if frame["type"] == type_ and where(frame):
                return frame

    async def closed(self) -> int:
        """Read until the server closes; the close code."""
        async with asyncio.timeout(WITHIN):
            with suppress(ConnectionClosed):
                while True:
                    self._take(await self.connection.recv())
        assert self.connection.close_code is not None
        return self.connection.close_code

    def of(self, *types: str) -> list[Frame]:
        """The frames of these types, in order."""
        return [frame for frame in self.frames if frame["type"] in types]

    @property
    def events(self) -> list[Frame]:
        """The log events, in order."""
        return [frame for frame in self.frames if "id" in frame and "cursor" in frame]


def socket_url(edge: str, session_id: str, token: str | None, after: str | None = None, **query: str) -> str:
    """The address of a session's socket."""
    parts = {"token": token, "after": after, **query}
    text = "&".join(f"{name}={value}" for name, value in parts.items() if value is not None)
    return f"{edge.replace('http', 'ws', 1)}/api/v1/sessions/{session_id}/ws?{text}"


@asynccontextmanager
async def open_socket(
    edge: str, session_id: str, token: str | None, after: str | None = None, **query: str
) -> AsyncIterator[Client]:
    """A connection to a session; nothing is read yet."""
    url = socket_url(edge, session_id, token, after, **query)
    async with connect(url, compression=None, max_size=None, open_timeout=WITHIN, close_timeout=2) as connection:
        yield Client(connection)


@asynccontextmanager
async def joined(
    edge: str, session_id: str, token: str, after: str | None = None, **query: str
) -> AsyncIterator[Client]:
    """A connection to a session that has joined: `replay_complete` is read."""
    async with open_socket(edge, session_id, token, after, **query) as client:
        await client.until("replay_complete")
        yield client


@asynccontextmanager
async def socket_at(url: str, **headers: str) -> AsyncIterator[Client]:
    """A connection to any address of an edge, with those headers."""
    address = url.replace("http", "ws", 1)
    async with connect(
        address, compression=None, max_size=None, open_timeout=WITHIN, close_timeout=2, additional_headers=headers
    ) as connection:
        yield Client(connection)
