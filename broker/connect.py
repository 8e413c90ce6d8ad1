"""The connection of one service to the broker: requests, subscriptions, the broker's clock.

nats-py's reconnection is used, with the settings that FACTS of its behaviour ask for: nothing is buffered while
disconnected (a publish fails at once instead of appearing later), a half-open connection is noticed within
seconds, reconnecting never ends and is spread by jitter. A connection that is closed for good, deaf, or not
being made any more sets `lost`: the process exits and its supervisor starts it anew.
"""

import asyncio
import contextlib
import logging
import os
import random
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import msgspec
import nats.errors
from nats.aio.subscription import Subscription

from broker import log_info
from broker.client import Callback, DirectClient, status
from broker.log_info import LogInfo
from contracts import streams

logger = logging.getLogger(__name__)

PING_INTERVAL = 2
RECONNECT_WAIT = (0.05, 0.5)
WATCH_EVERY = 2.0
MISSES = 5
ASK_AGAIN = 1.0
"""Seconds after which a process that starts asks again: brokers that elect a leader forget what they were asked."""

REPLY_WITHIN = 5.0

_DENIED = re.compile(r'permissions violation for publish to "(.+)"')
"""What the server says of a publish that is not permitted; nats-py gives it in lower case."""


class Unavailable(Exception):
    """The broker did not answer: it is away, has no leader, or the request was not permitted."""


class Rejected(Unavailable):
    """The broker will not take this, however often it is tried: too large, malformed or not permitted."""


class Reply(msgspec.Struct, frozen=True):
    """The answer to a request."""

    data: bytes
    headers: bytes


class _Asked(msgspec.Struct):
    """A request under way."""

    subject: str
    answer: asyncio.Future[Any]
    heard: Callback

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


LOOKING = 64
"""Holders of one process that look at the same time."""


class Broker:
    """One service's connection. Made by `connect`."""

    def __init__(self, client: DirectClient, inbox: str) -> None:
        self.client = client
        self.lost = asyncio.Event()
        self.log_info: LogInfo | None = None
        self.interrupted: list[Callable[[], None]] = []
        self.reconnected: list[Callable[[], None]] = []
        self.holds = 0
        """How many holders there are."""
        self.looks = asyncio.Semaphore(LOOKING)
        """Who may look what is new: a thousand that are woken at once would overflow what goes out."""
        self._inbox = f"{inbox}.{os.urandom(8).hex()}"
        self._asked: dict[bytes, _Asked] = {}
        self._numbers = count()
        self._clock_offset = 0.0
        client.broken = self.lost.set

    @property
    def connected(self) -> bool:
        """Whether a request could be sent now."""
        return self.client.is_usable

    @property
    def is_replicated(self) -> bool:
        """Whether a replica that is behind the leader may answer a read."""
        return self.log_info is None or self.log_info.replicas > 1

    @property
    def max_event_bytes(self) -> int:
        """The largest event that this server takes, with room for its headers."""
        return min(streams.MAX_EVENT_BYTES, self.client.max_payload - 64 * 1024)

    def now(self) -> float:
        """The broker's time, Unix seconds; a service's own clock may be wrong."""
        return time.monotonic() + self._clock_offset

    def inbox(self, name: str) -> str:
        """A subject of this connection alone, to be subscribed to; `name` has two tokens or more."""
        return f"{self._inbox}.{name}"

    def publish(self, subject: str, payload: bytes, reply: str = "", headers: bytes = b"") -> None:
        """Put a message on the wire, or raise Unavailable where it certainly was not sent."""
        try:
            self.client.publish_now(subject, payload, reply, headers)
        except nats.errors.MaxPayloadError as error:
            raise Rejected(f"too large: {len(payload)} bytes for {subject}") from error
        except (nats.errors.Error, OSError) as error:
            raise Unavailable(str(error) or type(error).__name__) from error

    def converse(
        self, subject: str, payload: bytes, heard: Callback, *, headers: bytes = b"", timeout: float = REPLY_WITHIN
    ) -> asyncio.Future[Any]:
        """Send a request whose replies go to `heard` until that settles the returned future.

        The future fails with TimeoutError where the outcome is unknown (nothing came in time, or the connection
        broke) and with Rejected where the request is not permitted. Raises Unavailable where it was not sent.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        key = b"%d" % next(self._numbers)
        self.publish(subject, payload, f"{self._inbox}.{key.decode()}", headers)
        self._asked[key] = asked = _Asked(subject, answer, heard)
        timer = loop.call_later(timeout, asked.fail, TimeoutError(f"no answer from {subject}"))

        def ended(_answer: asyncio.Future[Any]) -> None:
            timer.cancel()
            del self._asked[key]
            if not answer.cancelled():
                answer.exception()  # nobody may be waiting any more

        answer.add_done_callback(ended)
        return answer

    def ask(
        self, subject: str, payload: bytes = b"", headers: bytes = b"", *, timeout: float = REPLY_WITHIN
    ) -> asyncio.Future[Reply]:
        """Send a request; the first reply. The future fails as `request` does; Unavailable may also be raised here."""

        def heard(_subject: bytes, _reply: bytes, data: bytes, raw: bytes) -> None:
            if raw and status(raw) == 503:
                answer.set_exception(Unavailable(f"nobody listens to {subject}"))
            else:
                answer.set_result(Reply(data, raw))

        answer = self.converse(subject, payload, heard, headers=headers, timeout=timeout)
        return answer

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        headers: bytes = b"",
        timeout: float = REPLY_WITHIN,  # noqa: ASYNC109
    ) -> Reply:
        """The first reply. Raises Unavailable where nobody listens, and TimeoutError where the outcome is unknown."""
        return await self.ask(subject, payload, headers, timeout=timeout)

    def disconnected(self) -> None:
        """The connection broke: whoever waits for a reply need not wait longer to know that it may never come."""
        for asked in tuple(self._asked.values()):
            asked.fail(TimeoutError("the connection broke"))
        self._tell(self.interrupted)

    def has_reconnected(self) -> None:
        """Subscriptions are made again, and what was missed is missed: tell whoever wants to know."""
        self._tell(self.reconnected)

    def _tell(self, callbacks: list[Callable[[], None]]) -> None:
        for callback in tuple(callbacks):
            try:
                callback()
            except Exception:
                logger.exception("a callback failed")
                self.lost.set()

    def complained(self, text: str) -> None:
        """The broker reported an error: whoever asked for what is not permitted need not wait to hear nothing."""
        if denied := _DENIED.search(text):
            for asked in tuple(self._asked.values()):
                if asked.subject.lower() == denied[1]:
                    asked.fail(Rejected(f"not permitted: {asked.subject}"))

    async def subscribe(self, subject: str, callback: Callback) -> Subscription:
        """Call `callback` for each message in order. It must be quick and must not raise."""
        return await self.client.subscribe_direct(subject, callback)

    async def end(self, subscription: Subscription) -> None:
        """Have nothing more sent; what is on its way still comes, until `unsubscribe`."""
        with contextlib.suppress(nats.errors.Error):
            await self.client.end_direct(subscription)

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription."""
        with contextlib.suppress(nats.errors.Error):
            await self.client.unsubscribe_direct(subscription)

    async def look_at_log(self, *, within: float | None = None) -> LogInfo:
        """Ask the leader what the log holds, and set the clock by its answer."""
        sent = time.monotonic()
        reply = await self.request(f"$JS.API.STREAM.INFO.{streams.LOG}", timeout=within or REPLY_WITHIN)
        try:
            self.log_info = info = log_info.decode(reply.data)
        except msgspec.DecodeError as error:
            raise Unavailable(f"no log: {reply.data[:200]!r}") from error
        self._clock_offset = info.time - (sent + time.monotonic()) / 2
        return info

    def _dispatch(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        asked = self._asked.get(subject[len(self._inbox) + 1 :])
        if asked and not asked.answer.done():
            asked.heard(subject, reply, data, headers)

    async def _watch(self) -> None:
        """Notice a connection that looks alive and is deaf, or that nothing is making again."""
        misses = 0
        try:
            while misses < MISSES:
                await asyncio.sleep(WATCH_EVERY)
                if self.connected:
                    misses = 0 if await self._hears() else misses + 1
                elif self.client.is_stuck:
                    misses += 1
        finally:
            self.lost.set()

    async def _hears(self) -> bool:
        try:
            await self.look_at_log()
        except TimeoutError:
            return not self.connected  # a connection that broke meanwhile is not deaf
        except Unavailable:
            pass
        return True

    async def start(self) -> None:
        """Listen for replies and read the log's epoch; waits until there is a log."""
        await self.client.subscribe_direct(f"{self._inbox}.*", self._dispatch)
        while not self.lost.is_set():
            try:
                await self.look_at_log(within=ASK_AGAIN)
            except (Unavailable, TimeoutError) as error:
                logger.warning("waiting for the log", extra={"reason": str(error)})
                await asyncio.sleep(random.uniform(*RECONNECT_WAIT))  # noqa: S311 - jitter
            else:
                return


@asynccontextmanager
async def connect(url: str, name: str, *, seed_file: str = "") -> AsyncIterator[Broker]:
    """A connection for service `name`, open until the block ends. Waits for a broker that is not there yet."""
    client = DirectClient()
    broker: Broker = Broker(client, streams.inbox(name))

    async def on_error(error: Exception) -> None:
        reason = str(error) or type(error).__name__
        logger.warning("broker connection error", extra={"reason": reason})
        broker.complained(reason)

    async def on_disconnect() -> None:
        client.settled = False
        broker.disconnected()

    async def on_reconnect() -> None:
        client.settled = True
        broker.has_reconnected()

    async def on_close() -> None:
        broker.lost.set()

    options: dict[str, Any] = {"nkeys_seed": seed_file} if seed_file else {}
    watch: asyncio.Task[None] | None = None
    try:
        await client.connect(
            url.split(","),
            name=f"millrace-{name}",
            inbox_prefix=streams.inbox(name),
            error_cb=on_error,
            disconnected_cb=on_disconnect,
            reconnected_cb=on_reconnect,
            closed_cb=on_close,
            pending_size=0,
            ping_interval=PING_INTERVAL,
            max_outstanding_pings=2,
            max_reconnect_attempts=-1,
            reconnect_time_wait=random.uniform(*RECONNECT_WAIT),  # type: ignore[arg-type]  # noqa: S311 - jitter
            connect_timeout=2,
            **options,
        )
        client.settled = True
        await broker.start()
        watch = asyncio.create_task(broker._watch(), name="broker-watch")
        yield broker
    finally:
        if watch:
            watch.cancel()
        await client.close()
