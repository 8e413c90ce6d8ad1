"""Spelling: how a connection writes what it sends: as WebSocket frames, or as server-sent events."""

from typing import Any, Protocol

import msgspec

from contracts.events import timestamp
from contracts.frames import Ping
from edge.dialects import written
from edge.dialects.dialect import Dialect, Spelled
from edge.protocol import text_frame


class Spelling(Protocol):
    """How frames are written. `key`: connections with the same one write the same; None where each is its own."""

    key: str | None

    def event(self, stored: bytes, cursor: bytes) -> bytes:
        """A log event, from the bytes that are stored. Nothing is written where it is empty."""

    def own(self, payload: bytes, cursor: str | None = None) -> bytes:
        """A frame of the edge's own; `cursor`: one from which the client may resume. Likewise."""

    def beat(self) -> bytes:
        """What shows that the connection is alive."""


class WebSocketFrames:
    """One text frame each."""

    key: str | None = "websocket"

    def event(self, stored: bytes, cursor: bytes) -> bytes:
        """The stored object with the cursor put in."""
        return text_frame(b'%b,"cursor":"%b"}' % (stored[:-1], cursor))

    def own(self, payload: bytes, cursor: str | None = None) -> bytes:
        """As it is."""
        return text_frame(payload)

    def beat(self) -> bytes:
        """The frame `ping`; WebSocket's own pings come beside it."""
        return text_frame(msgspec.json.encode(Ping(timestamp=timestamp())))


class ServerSentEvents:
    """One event each, without a name; its id is a cursor, and only where a client may resume from it.

    https://html.spec.whatwg.org/multipage/server-sent-events.html
    """

    key: str | None = "sse"

    def event(self, stored: bytes, cursor: bytes) -> bytes:
        """The stored object with the cursor put in."""
        return b'id: %b\ndata: %b,"cursor":"%b"}\n\n' % (cursor, stored[:-1], cursor)

    def own(self, payload: bytes, cursor: str | None = None) -> bytes:
        """As it is."""
        named = b"id: %b\n" % cursor.encode() if cursor else b""
        return b"%bdata: %b\n\n" % (named, payload)

    def beat(self) -> bytes:
        """A comment, which keeps proxies from ending a stream that is silent."""
        return b":\n\n"


class InDialect(Spelled):
    """A dialect over either."""

    def __init__(self, dialect: Dialect, transport: WebSocketFrames | ServerSentEvents) -> None:
        super().__init__(dialect, written.sse if transport is SSE else written.websocket)
        self._idle = b"" if transport is WEBSOCKET else transport.beat()

    def beat(self) -> bytes:
        """The dialect's own sign; without one, SSE's comment, or nothing beside WebSocket's pings."""
        frame = self.dialect.heartbeat(timestamp())
        return self._idle if frame is None else self.own_frame(frame)

    def own_frame(self, frame: dict[str, Any]) -> bytes:
        """A frame that is the dialect's already."""
        return self._write(msgspec.json.encode(frame), None)


WEBSOCKET = WebSocketFrames()
SSE = ServerSentEvents()
