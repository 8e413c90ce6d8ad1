"""The NATS client of every service: nats-py with messages handed over in the order of the wire.

nats-py gives each subscription a queue and a task of its own: two subscriptions may run out of order, a full
queue drops messages, and every message waits for another turn of the event loop. Here a subscription
may have a synchronous callback instead, called by the reader itself. What is too slow then shows as TCP
back-pressure; the server cuts a connection that falls too far behind, and a reconnect is noticed. A publish
likewise goes to the socket at once, or fails at once: it never waits for a connection to come back.
"""

import logging
from collections.abc import Callable

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import MaxPayloadError, OutboundBufferLimitError

logger = logging.getLogger(__name__)

Callback = Callable[[bytes, bytes, bytes, bytes], None]
"""Called with subject, reply, payload and raw headers. It must not raise."""


class DirectClient(Client):
    """nats-py's client with direct subscriptions beside its own."""

    def __init__(self) -> None:
        super().__init__()
        self._direct: dict[int, Callback] = {}
        self.broken: Callable[[], None] | None = None
        self.settled = False
        """Whether the subscriptions of this connection are made again: a reply could be lost before."""

    async def subscribe_direct(self, subject: str, callback: Callback) -> Subscription:
        """Call `callback` for every message, in the order in which they come over the connection."""
        subscription = await self.subscribe(subject)
        self._direct[subscription._id] = callback
        return subscription

    def publish_now(self, subject: str, payload: bytes, reply: str = "", headers: bytes = b"") -> None:
        """Write a message to the socket, in order with everything else.

        Raises OutboundBufferLimitError where there is no connection, and MaxPayloadError for what
        the server would end the connection for: headers count there, and nats-py does not count them.
        """
        size = len(headers) + len(payload)
        if not (self.is_connected and self.settled):
            raise OutboundBufferLimitError
        if size > self.max_payload:
            raise MaxPayloadError
        to = f"{subject} {reply}".encode()
        if headers:
            command = b"HPUB %b %d %d\r\n%b%b\r\n" % (to, len(headers), size, headers, payload)
        else:
            command = b"PUB %b %d\r\n%b\r\n" % (to, size, payload)
        if self._pending:  # nats-py's own commands wait to be flushed: keep behind them
            self._pending.append(command)
            self._pending_data_size += len(command)
        else:
            self._transport.write(command)

    async def unsubscribe_direct(self, subscription: Subscription) -> None:
        """Stop. A message that is already on its way is dropped."""
        self._direct.pop(subscription._id, None)
        if not self.is_closed:
            await subscription.unsubscribe()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        callback = self._direct.get(sid)
        if callback is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        try:
            callback(subject, reply, data, headers)
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

