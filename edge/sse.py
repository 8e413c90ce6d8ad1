"""SSE: a session as server-sent events (WIRE 3): a response that stays open, and its connection."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from litestar import Response as LitestarResponse
from litestar.types import Receive, Scope, Send

from contracts.errors import Code, MillraceError
from edge.connection import GOING_AWAY, Connection
from edge.desk import Desk
from edge.failures import error_frame
from edge.handshake import Arrival
from edge.http import BoundedHttp
from edge.outbox import LIMIT
from edge.principal import Principal
from edge.spelling import SSE, Spelling

HEARTBEAT = 15.0
"""Seconds between comments, which keep proxies from ending a stream that is silent."""


GRACE = 2.0
"""Seconds that a client has to take what is left of a stream that ends."""


class Body:
    """The body of a streamed response, as a sink. What the transport does not take yet waits here, bounded."""

    on_room: Callable[[], None] | None = None

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._bytes = 0
        self._ready = asyncio.Event()
        self._open = True

    @property
    def has_room(self) -> bool:
        """Whether more is taken at once."""
        return self._bytes < LIMIT // 4

    @property
    def is_open(self) -> bool:
        """Whether anything is taken at all."""
        return self._open

    def write_frame(self, frame: bytes) -> None:
        """Write one event."""
        if self._open:
            self._chunks.append(frame)
            self._bytes += len(frame)
            self._ready.set()

    def close(self) -> None:
        """End the body when all is written."""
        self._open = False
        self._ready.set()
        if self.on_room:
            self.on_room()

    async def chunks(self) -> AsyncIterator[bytes]:
        """What is written, as it comes, until it is closed."""
        while self._open or self._chunks:
            await self._ready.wait()
            self._ready.clear()
            chunks, self._chunks, self._bytes = self._chunks, [], 0
            if chunks:
                yield b"".join(chunks)
            if self.on_room:
                self.on_room()


class EventStream(Connection):
    """A connection that only listens."""

    transport = "sse"

    def __init__(self, desk: Desk, principal: Principal, arrival: Arrival, spelling: Spelling = SSE) -> None:
        self.body = Body()
        self.ended = asyncio.Event()
        self.http: BoundedHttp | None = None
        super().__init__(desk, principal, self.body, spelling, device=arrival.device)

    @property
    def heartbeat_interval(self) -> float:
        """Seconds between comments."""
        return min(HEARTBEAT, self.desk.settings.heartbeat_interval)

    def goodbye(self, reconnect_after: float) -> None:
        """The edge stops: have EventSource wait that long before it comes back, and end the stream cleanly."""
        self.outbox.put(b"retry: %d\n\n" % (1000 * reconnect_after))
        super().goodbye(reconnect_after)

    def hang_up(self, code: int, reason: str) -> None:
        """Say why, and end the stream."""
        if code != GOING_AWAY and reason in Code.__members__.values():
            session_id = next(iter(self.subscriptions), None)
            self.send(error_frame(MillraceError(Code(reason)), session_id, None))
        self.body.close()
        self.desk.spawn(self._cut_off())

    async def _cut_off(self) -> None:
        """Cut a client off that does not take what is left: the response would never end."""
        try:
            async with asyncio.timeout(GRACE):
                await self.ended.wait()
        except TimeoutError:
            if self.http:
                self.http.abort()


class StreamResponse(LitestarResponse[bytes]):
    """The response that a stream is. What it holds is given back however it ends, also before it begins."""

    def __init__(self, connection: EventStream) -> None:
        super().__init__(b"")
        self._connection = connection
        connection.__enter__()

    def to_asgi_response(self, *_: Any, headers: dict[str, str] | None = None, **__: Any) -> Any:
        """The ASGI application that sends it."""
        told = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no", **(headers or {})}
        told["content-type"] = "text/event-stream; charset=utf-8"
        self._encoded = [(name.lower().encode(), value.encode()) for name, value in told.items()]
        return self._send

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = self._connection
        extensions: dict[str, Any] = scope.get("extensions") or {}
        connection.http = extensions.get("millrace.http")
        gone = asyncio.create_task(self._gone(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self._encoded})
            async for chunk in connection.body.chunks():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()
            connection.ended.set()
            connection.body.close()
            connection.__exit__()
            connection.desk.spawn(connection.end())

    async def _gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._connection.body.close()
