"""The WebSocket protocol class: uvicorn's, with what a fan-out needs.

A frame is encoded once and written to the transport of each socket, without a task or a queue in between, as
long as the transport has room. `heard` is when the client last gave a sign of life, pongs included.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

HIGH_WATER = 64 * 1024
"""Bytes that the transport may hold before it counts as full."""


def text_frame(payload: bytes) -> bytes:
    """One unmasked, unfragmented text frame (RFC 6455, 5.2)."""
    length = len(payload)
    if length < 126:
        return bytes((0x81, length)) + payload
    if length < 65536:
        return b"\x81\x7e" + length.to_bytes(2, "big") + payload
    return b"\x81\x7f" + length.to_bytes(8, "big") + payload


class EdgeWebSocket(WebSocketsSansIOProtocol):
    """One WebSocket. Found by the application in `scope["extensions"]["millrace.socket"]`."""

    on_room: Callable[[], None] | None = None
    heard: float = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound what the transport holds."""
        super().connection_made(transport)
        self.heard = self.loop.time()
        self.transport.set_write_buffer_limits(high=HIGH_WATER)

    def handle_connect(self, event: Request) -> None:
        """Hand this protocol to the application."""
        super().handle_connect(event)
        if scope := getattr(self, "scope", None):
            extensions: dict[str, Any] = scope["extensions"]
            extensions["millrace.socket"] = self

    def data_received(self, data: bytes) -> None:
        """Whatever comes is a sign of life."""
        self.heard = self.loop.time()
        super().data_received(data)

    def resume_writing(self) -> None:
        """There is room again."""
        super().resume_writing()
        if self.on_room:
            self.on_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for room any more."""
        super().connection_lost(exc)
        if self.on_room:
            self.on_room()

    @property
    def has_room(self) -> bool:
        """Whether the transport takes more at once."""
        return self.writable.is_set()

    @property
    def is_open(self) -> bool:
        """Whether frames may still be written."""
        return self.handshake_complete and not (self.close_sent or self.disconnected or self.transport.is_closing())

    def write_frame(self, frame: bytes) -> None:
        """Write an encoded frame; nothing happens on a socket that is closing."""
        if self.is_open:
            self.transport.write(frame)
