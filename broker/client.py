"""The NATS client of every service: nats-py with messages handed over in the order of the wire.

nats-py gives each subscription a queue and a task of its own: two subscriptions may run out of order, a full
queue drops messages, and every message waits for another turn of the event loop. Here a subscription
may have a synchronous callback instead, called by the reader itself. What is too slow then shows as TCP
back-pressure; the server cuts a connection that falls too far behind, and a reconnect is noticed. Whatever is
written likewise goes to the socket at once, in the order of the calls; a publish without a connection fails
at once: it never waits for one to come back.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import ParseResult

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.errors import MaxPayloadError, OutboundBufferLimitError

logger = logging.getLogger(__name__)

CLOSE_WITHIN = 1.0
"""Seconds that a peer is given to take what is still to be written when a connection ends."""

ANSWER_WITHIN = 5
"""Seconds that a new connection is given to answer a ping."""

Callback = Callable[[bytes, bytes, bytes, bytes], None]
"""Called with subject, reply, payload and raw headers (empty without). It must not raise."""


class Wire(TcpTransport):
    """nats-py's TCP connection, of which no call fails or hangs because the peer is gone: the reader finds that out."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._unwritten: list[bytes] = []

    def __bool__(self) -> bool:
        return True  # nats-py would replace a transport that is not connected yet

    @property
    def is_open(self) -> bool:
        """Whether what is written may arrive."""
        writer = self._io_writer
        return writer is not None and not writer.is_closing()

    def write(self, payload: bytes) -> None:
        """Write, or drop what a broken connection does not take; uvloop would raise RuntimeError.

        What is written in one turn of the event loop goes out in one piece: a system call costs both ends more than
        the message does.
        """
        if not self._unwritten:
            asyncio.get_running_loop().call_soon(self._write_all)
        self._unwritten.append(payload)

    def _write_all(self) -> None:
        unwritten, self._unwritten = self._unwritten, []
        if unwritten and self.is_open:
            super().write(b"".join(unwritten))  # type: ignore[no-untyped-call]

    async def drain(self) -> None:
        """Wait until the connection takes more."""
        self._write_all()
        await super().drain()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Close when all is written."""
        self._write_all()
        super().close()  # type: ignore[no-untyped-call]

    def writelines(self, payload: list[bytes]) -> None:
        """Write one after the other."""
        self.write(b"".join(payload))

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: float) -> None:
        """Connect; nats-py does it with wait_for, which may swallow a cancellation until Python 3.12."""
        async with asyncio.timeout(connect_timeout):
            reader, writer = await asyncio.open_connection(uri.hostname, uri.port, limit=buffer_size)
        self._bare_io_reader = self._io_reader = reader
        self._bare_io_writer = self._io_writer = writer

    async def wait_closed(self) -> None:
        """Wait until all is written and the connection is closed, but not for a peer that takes nothing."""
        if self._io_writer is None:
            return
        # a task of its own: several wait for one future, which is cancelled with the first of them
        closing = asyncio.ensure_future(self._io_writer.wait_closed())
        _, late = await asyncio.wait([closing], timeout=CLOSE_WITHIN)
        if late:
            self._io_writer.transport.abort()
        elif not closing.cancelled():
            closing.exception()  # it is closed, however that came

    def abort(self) -> None:
        """Close at once, if it is not closed."""
        if self._io_writer and self.is_open:
            self._io_writer.transport.abort()


class DirectClient(Client):
    """nats-py's client with direct subscriptions beside its own."""

    def __init__(self) -> None:
        super().__init__()
        self._transport: Wire = Wire()
        self._direct: dict[int, Callback] = {}
        self._ended = False
        self.broken: Callable[[], None] | None = None
        self.settled = False
        """Whether the subscriptions of this connection are made again: a reply could be lost before."""

    @property
    def is_usable(self) -> bool:
        """Whether a publish would go to the socket, and a reply to it be received."""
        return self.settled and self.is_connected and self._transport.is_open

    @property
    def is_stuck(self) -> bool:
        """Whether there is no connection, and nothing that is making one."""
        reconnecting = self._reconnection_task
        return not self.is_connected and (reconnecting is None or reconnecting.done())

    async def subscribe_direct(self, subject: str, callback: Callback) -> Subscription:
        """Call `callback` for every message, in the order in which they come over the connection."""
        subscription = await self.subscribe(subject)  # does not give way: no message comes before the next line
        self._direct[subscription._id] = callback
        return subscription

    def publish_now(self, subject: str, payload: bytes, reply: str = "", headers: bytes = b"") -> None:
        """Write a message to the socket, in order with everything else.

        Raises OutboundBufferLimitError where there is no connection, and MaxPayloadError for what
        the server would end the connection for: headers count there, and nats-py does not count them.
        """
        size = len(headers) + len(payload)
        if not self.is_usable:
            raise OutboundBufferLimitError
        if size > self.max_payload:
            raise MaxPayloadError
        to = f"{subject} {reply}".encode()
        if headers:
            self._transport.write(b"HPUB %b %d %d\r\n%b%b\r\n" % (to, len(headers), size, headers, payload))
        else:
            self._transport.write(b"PUB %b %d\r\n%b\r\n" % (to, size, payload))

    async def end_direct(self, subscription: Subscription) -> None:
        """Have nothing more sent. What is already on its way still comes, until `unsubscribe_direct`."""
        if not self.is_closed:
            await subscription.unsubscribe()

    async def unsubscribe_direct(self, subscription: Subscription) -> None:
        """Stop. A message that is already on its way is dropped."""
        self._direct.pop(subscription._id, None)
        if subscription._id in self._subs:
            await self.end_direct(subscription)

    async def close(self) -> None:
        """Close for good, also a connection whose peer takes nothing any more."""
        self._ended = True
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(2 * CLOSE_WITHIN):
                await super().close()
        self._transport.abort()

    async def flush(self, timeout: float = 0) -> None:  # noqa: ASYNC109 - nats-py's signature
        """Wait for the answer to a ping. Raises nats-py's FlushTimeoutError."""
        await super().flush(timeout or ANSWER_WITHIN)  # type: ignore[arg-type] # any number will do

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        # nats-py leaves this to a task, behind everything that is written directly, and forgets it at a disconnect
        if self.is_connected:
            if self._pending:
                self._transport.writelines(self._pending)
            self._pending, self._pending_data_size = [], 0

    async def _connect_to_server(self, s: Any) -> None:
        # a connection that was made and did not answer in time: two readers would share one parser
        for task in (self._reading_task, self._ping_interval_task, self._flusher_task):
            if task is not None:
                task.cancel()
        self._transport.abort()
        self._ps.reset()
        if self._ended:  # and a cancellation was swallowed on the way here
            raise asyncio.CancelledError
        await super()._connect_to_server(s)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        callback = self._direct.get(sid)
        if callback is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        try:
            callback(subject, reply, data, headers or b"")
        except Exception:  # an exception here would end nats-py's read loop and leave a deaf connection
            logger.exception("a subscription's callback failed")
            if self.broken:
                self.broken()


def header_block(headers: dict[str, str]) -> bytes:
    """Headers as they stand on the wire. Values are ours: a line break in one is an error of ours."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if lines.count("\n") != len(headers):
        raise ValueError("a header has a line break")
    return b"NATS/1.0\r\n" + lines.encode() + b"\r\n"


def header(headers: bytes, name: bytes) -> bytes | None:
    """The last value of a header in a raw header block; the server's own come after the publisher's."""
    start = headers.rfind(b"\r\n" + name + b": ")
    if start < 0:
        return None
    start += len(name) + 4
    return headers[start : headers.index(b"\r\n", start)]


def status(headers: bytes) -> int:
    """The status of a message that is only that (`NATS/1.0 404 …`), or 0."""
    return int(headers[9:12]) if headers[8:9] == b" " else 0
