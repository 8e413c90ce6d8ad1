"""The HTTP protocol class: uvicorn's, with bounds for a client that sends slowly, or never, or without end.

uvicorn bounds neither the time that a request takes to arrive nor the size of its head.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

ARRIVAL = 20.0
"""Seconds that a request has to arrive, body included, from its first byte; the first from the connection's start."""

HEAD_BYTES = 32 * 1024
"""Bytes of a request's line and headers, and of whatever else comes that is no body; a token takes a few hundred."""

MOST_WAITING = 32
"""Requests of a connection that may wait for the answers to those before them."""

HIGH_WATER = 64 * 1024
"""Bytes that the transport may hold before a response waits."""


class BoundedHttp(HttpToolsProtocol):
    """One HTTP connection. `scope["extensions"]["millrace.http"]` is it, for a response that is to be cut off."""

    _deadline: asyncio.TimerHandle | None = None
    _arriving = False
    _head = 0
    _in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first request has to come soon."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more is expected."""
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse it; an endless head ends the connection, and so do endless trailers."""
        if self._deadline is None and not self._arriving:
            self._expect()
        self._in_body = False
        super().data_received(data)
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        if self._deadline:
            self._head = 0 if self._in_body else self._head + len(data)
            if self._head > HEAD_BYTES:
                self.send_400_response("The request's head is too large.")

    def send_400_response(self, msg: str) -> None:
        """Refuse what came; in the middle of another answer the connection just ends."""
        if self.pipeline or (self.cycle and self.cycle.response_started and not self.cycle.response_complete):
            self.abort()
        else:
            super().send_400_response(msg)

    def on_message_begin(self) -> None:
        """A request begins, or what follows the last one in the same packet."""
        super().on_message_begin()
        self._arriving, self._head = False, 0
        if self._deadline is None:
            self._expect()

    def on_headers_complete(self) -> None:
        """The application sees the request."""
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES:
            raise ValueError("the request's head is too large")  # answered with 400
        if len(self.pipeline) >= MOST_WAITING:
            raise ValueError("too many requests at once")
        self._arriving = True
        extensions: dict[str, Any] = {"millrace.http": self}
        self.scope["extensions"] = extensions
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Its size is for the application to judge."""
        self._in_body = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is there as a whole."""
        self._arrived()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """From here on the WebSocket's protocol class bounds what comes."""
        self._arrived()
        super().handle_websocket_upgrade()

    def abort(self) -> None:
        """Cut the connection off; what was not sent yet is dropped, and the application is told."""
        self.transport.abort()

    @property
    def buffered(self) -> int:
        """Bytes that the transport still holds, beside what the kernel does."""
        return self.transport.get_write_buffer_size()

    def _expect(self) -> None:
        self._deadline = self.loop.call_later(ARRIVAL, self._too_slow)

    def _arrived(self) -> None:
        self._arriving = False
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        self.transport.abort()
