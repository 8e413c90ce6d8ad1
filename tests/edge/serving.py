"""A raw ASGI application, served with the edge's protocol classes and bounds."""

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from broker.serve import listen, serving
from broker.settings import Settings
from contracts.config import Limits
from edge.protocol import EdgeWebSocket, protocols

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]


@asynccontextmanager
async def served(app: App, *, compression: bool = False, frame_bytes: int = 64 * 1024) -> AsyncIterator[int]:
    """The port, as long as the block lasts."""
    options = protocols(Settings(compression=compression), Limits(frame_bytes=frame_bytes))
    listener = listen("127.0.0.1", 0)
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what is broken here is broken on purpose
    async with serving(app, listener, **options):
        yield listener.getsockname()[1]


async def echo(_scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Say what is said."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        said = {name: message[name] for name in ("text", "bytes") if message.get(name) is not None}
        await send({"type": "websocket.send", **said})


def masked(first: int, payload: bytes) -> bytes:
    """A client's frame whose first byte is that; the mask is zero, which leaves the payload as it is."""
    length = len(payload)
    if length < 126:
        return bytes((first, 0x80 | length)) + bytes(4) + payload
    return bytes((first, 0x80 | 126)) + length.to_bytes(2, "big") + bytes(4) + payload


def deflated(payload: bytes) -> bytes:
    """The payload as a message by itself has it (RFC 7692, 7.2.1)."""
    deflate = zlib.compressobj(wbits=-12)
    return (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


class Held:
    """An application that accepts sockets and holds them until it is told to let go."""

    def __init__(self) -> None:
        self.sockets: list[EdgeWebSocket] = []
        self.let_go = asyncio.Event()
        self.ended = 0

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Never ask for a client's frames: a handler that only sends."""
        await receive()
        await send({"type": "websocket.accept"})
        self.sockets.append(scope["extensions"]["millrace.socket"])
        await self.let_go.wait()
        await send({"type": "websocket.close", "code": 1012, "reason": "restarting"})
        self.ended += 1
