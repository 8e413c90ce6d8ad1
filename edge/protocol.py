"""The WebSocket protocol class: uvicorn's, with what a fan-out and slow clients need.

A frame is encoded once and written to the transport of each socket, without a task or a queue in between, as
long as the transport has room. `heard` is when the client last gave a sign of life, pongs included.
"""

import asyncio
import codecs
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from broker.settings import Settings
from contracts.config import Limits
from edge.http import BoundedHttp

HIGH_WATER = 64 * 1024
"""Bytes that the transport may hold before it counts as full."""

CLOSING = 5.0
"""Seconds that a client has to answer a close frame and to take what it was sent, before its connection is cut.
A transport that is closed first writes what it holds: to a client that reads nothing it would be open for ever."""

PIECE = 1024
"""Bytes that are parsed at once; what follows waits until the application has taken the messages in them.
Inflated, those may be a thousand times as large."""

COMPRESS_FROM = 512
"""Bytes of a frame from which on it is compressed: a smaller one gains little by itself."""

DEFLATE = ServerPerMessageDeflateFactory(
    server_no_context_takeover=True,
    server_max_window_bits=12,
    client_max_window_bits=12,
    compress_settings={"memLevel": 5},
)
"""Each message is compressed by itself, so that what many sockets are sent is compressed once. 4 KiB windows."""

_EMPTY_BLOCK = b"\x00\x00\xff\xff"

_Utf8 = codecs.getincrementaldecoder("utf-8")


def text_frame(payload: bytes, *, compressed: bool = False) -> bytes:
    """One unmasked, unfragmented text frame (RFC 6455, 5.2); `compressed` as RFC 7692, 6 says."""
    length = len(payload)
    first = 0xC1 if compressed else 0x81
    if length < 126:
        return bytes((first, length)) + payload
    if length < 65536:
        return bytes((first, 126)) + length.to_bytes(2, "big") + payload
    return bytes((first, 127)) + length.to_bytes(8, "big") + payload


@lru_cache(maxsize=128)
def compressed(frame: bytes, window_bits: int) -> bytes:
    """The same text frame, deflated by itself (RFC 7692, 7.2.1); itself where that makes it no smaller."""
    payload = frame[{126: 4, 127: 10}.get(frame[1], 2) :]
    deflate = zlib.compressobj(wbits=-window_bits, memLevel=5)
    data = deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)
    smaller = text_frame(data.removesuffix(_EMPTY_BLOCK), compressed=True)
    return smaller if len(smaller) < len(frame) else frame


def protocols(settings: Settings, limits: Limits) -> dict[str, Any]:
    """uvicorn's options for an edge: its protocol classes, and their bounds."""
    return {
        "http": BoundedHttp,
        "ws": EdgeWebSocket,
        "ws_max_size": limits.frame_bytes,
        "ws_per_message_deflate": settings.compression,
        "ws_ping_interval": settings.heartbeat_interval,
        "ws_ping_timeout": None,  # silence is judged by `heard`
    }


class Frames(ServerProtocol):
    """The library's reading of frames, where the standard is stricter or asks for more."""

    _text: codecs.IncrementalDecoder | None = None

    def recv_frame(self, frame: Frame) -> None:
        """Take a close frame in mid-message (RFC 6455, 5.4), and refuse a fragment that is no UTF-8 (8.1) at once."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._text = _Utf8() if frame.opcode is Opcode.TEXT else None
        if self._text and frame.opcode in (Opcode.TEXT, Opcode.CONT):
            self._text.decode(frame.data, frame.fin)  # what it raises closes with 1007


class EdgeWebSocket(WebSocketsSansIOProtocol):
    """One WebSocket. Found by the application in `scope["extensions"]["millrace.socket"]`."""

    on_room: Callable[[], None] | None = None
    _heard: float = 0.0
    _window_bits = 0
    _pong = b""
    _cut: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.close_timeout = CLOSING
        extensions = [DEFLATE] if self.config.ws_per_message_deflate else []
        self.conn = Frames(extensions=extensions, max_size=self.config.ws_max_size, logger=self.logger)
        self._unparsed = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Bound what the transport holds."""
        super().connection_made(transport)
        self._heard = self.loop.time()
        self.transport.set_write_buffer_limits(high=HIGH_WATER)

    def handle_connect(self, event: Request) -> None:
        """Hand this protocol to the application."""
        super().handle_connect(event)
        for extension in self.conn.extensions:
            if isinstance(extension, PerMessageDeflate):
                self._window_bits = extension.local_max_window_bits
        if scope := getattr(self, "scope", None):
            extensions: dict[str, Any] = scope["extensions"]
            extensions["millrace.socket"] = self

    def data_received(self, data: bytes) -> None:
        """Whatever comes is a sign of life."""
        self._heard = self.loop.time()
        self._unparsed += data
        self._parse()

    async def receive(self) -> Any:
        """What came, and then what follows it."""
        message = await super().receive()
        self._parse()
        return message

    async def send(self, message: Any) -> None:
        """Send; after a close, what the client says is read on until it answers that."""
        await super().send(message)
        self._parse()

    def _parse(self) -> None:
        while self._unparsed and not (self.read_paused or self.transport.is_closing()):
            piece = bytes(self._unparsed[:PIECE])
            del self._unparsed[:PIECE]
            super().data_received(piece)

    def handle_cont(self, event: Frame) -> None:
        """Keep the fragment; empty ones could come without end."""
        if event.data or event.fin:
            super().handle_cont(event)

    def handle_ping(self) -> None:
        """Answer it; while there is no room, only the last one, once there is (RFC 6455, 5.5.3)."""
        pong = b"".join(self.conn.data_to_send())
        if self.has_room:
            self.transport.write(pong)
        elif pong:
            self._pong = pong

    def resume_writing(self) -> None:
        """There is room again."""
        super().resume_writing()
        if self._pong and self.is_open:
            self.transport.write(self._pong)
        self._pong = b""
        if self.on_room:
            self.on_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for room any more."""
        super().connection_lost(exc)
        if self._cut:
            self._cut.cancel()
        if self.on_room:
            self.on_room()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """The application is done: the connection ends, soon, whether or not the client takes what is left."""
        super().on_task_complete(task)
        if not self.disconnected:
            self._cut = self.loop.call_later(CLOSING, self.abort)

    def abort(self) -> None:
        """Cut the connection off; what was not sent yet is dropped, and the application is told."""
        self.transport.abort()

    @property
    def heard(self) -> float:
        """When the client last gave a sign of life, by the loop's time; now, while it is not being listened to.

        Nothing is read between a message and the application's asking for the next one.
        """
        return self.loop.time() if self.read_paused else self._heard

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
            if self._window_bits and len(frame) >= COMPRESS_FROM:
                frame = compressed(frame, self._window_bits)
            self.transport.write(frame)
