"""The connection of one service to the broker: requests, subscriptions, the broker's clock.

nats-py's reconnection is used, with the settings that FACTS of its behaviour ask for: nothing is buffered while
disconnected (a publish fails at once instead of appearing later), a half-open connection is noticed within
seconds, reconnecting never ends and is spread by jitter. A connection that is closed for good, or deaf,
sets `lost`: the process exits and its supervisor starts it anew.
"""

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import msgspec
import nats.errors
from nats.aio.subscription import Subscription

from broker.client import Callback, DirectClient, status
from contracts import streams
from contracts.events import unix_time

logger = logging.getLogger(__name__)

PING_INTERVAL = 2
RECONNECT_WAIT = (0.05, 0.5)
WATCH_EVERY = 2.0
MISSES = 5


class Unavailable(Exception):
    """The broker did not answer: it is away, has no leader, or the request was not permitted."""


class Reply(msgspec.Struct, frozen=True):
    """The answer to a request."""

    data: bytes
    headers: bytes


class LogInfo(msgspec.Struct, frozen=True):
    """What the leader says of the log."""

    epoch: str
    first_seq: int
    last_seq: int
    bytes: int
    max_bytes: int
    replicas: int


class _StreamInfo(msgspec.Struct):
    class _Config(msgspec.Struct):
        max_bytes: int
        num_replicas: int = 1
        metadata: dict[str, str] = {}

    class _State(msgspec.Struct):
        bytes: int
        first_seq: int
        last_seq: int

    config: _Config
    state: _State
    ts: str


_stream_info = msgspec.json.Decoder(_StreamInfo)


class Broker:
    """One service's connection. Made by `connect`."""

    def __init__(self, client: DirectClient, inbox: str) -> None:
        self.client = client
        self.lost = asyncio.Event()
        self.log_info: LogInfo | None = None
        self.reconnected: list[Callable[[], None]] = []
        self._inbox = f"{inbox}.{os.urandom(8).hex()}"
        self._waiting: dict[bytes, Callback] = {}
        self._pending: set[asyncio.Future[Reply]] = set()
        self._numbers = count()
        self._clock_offset = 0.0
        client.broken = self.lost.set

    @property
    def connected(self) -> bool:
        """Whether a request could be sent now."""
        return self.client.is_connected and self.client.settled

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

    def expect(self, callback: Callback) -> tuple[str, bytes]:
        """A reply subject whose messages go to `callback` until `forget` is called with the key."""
        key = b"%d" % next(self._numbers)
        self._waiting[key] = callback
        return f"{self._inbox}.{key.decode()}", key

    def forget(self, key: bytes) -> None:
        """Drop what still comes to a reply subject."""
        self._waiting.pop(key, None)

    def publish(self, subject: str, payload: bytes, reply: str = "", headers: bytes = b"") -> None:
        """Put a message on the wire, or raise Unavailable where it certainly was not sent."""
        try:
            self.client.publish_now(subject, payload, reply, headers)
        except (nats.errors.Error, OSError) as error:
            raise Unavailable(str(error) or type(error).__name__) from error

    def ask(self, subject: str, payload: bytes = b"", headers: bytes = b"") -> asyncio.Future[Reply]:
        """Send a request; the first reply. Cancel it to wait no longer. Raises Unavailable where it was not sent."""
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def arrived(_subject: bytes, _reply: bytes, data: bytes, raw: bytes) -> None:
            if answer.done():
                return
            if raw and status(raw) == 503:
                answer.set_exception(Unavailable(f"nobody listens to {subject}"))
            else:
                answer.set_result(Reply(data, raw or b""))

        reply, key = self.expect(arrived)
        try:
            self.publish(subject, payload, reply, headers)
        except Unavailable:
            self.forget(key)
            raise
        self._pending.add(answer)

        def ended(_answer: asyncio.Future[Reply]) -> None:
            self.forget(key)
            self._pending.discard(answer)

        answer.add_done_callback(ended)
        return answer

    async def request(
        self, subject: str, payload: bytes = b"", *, headers: bytes = b"", timeout: float = 5.0
    ) -> Reply:
        """The first reply. Raises Unavailable where nobody listens, and TimeoutError where the outcome is unknown."""
        async with asyncio.timeout(timeout):
            return await self.ask(subject, payload, headers)

    def disconnected(self) -> None:
        """The connection broke: whoever waits for a reply need not wait longer to know that it may never come."""
        for answer in tuple(self._pending):
            if not answer.done():
                answer.set_exception(TimeoutError("the connection broke"))

    async def subscribe(self, subject: str, callback: Callback) -> Subscription:
        """Call `callback` for each message in order. It must be quick and must not raise."""
        return await self.client.subscribe_direct(subject, callback)

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription."""
        with contextlib.suppress(nats.errors.Error):
            await self.client.unsubscribe_direct(subscription)

    async def look_at_log(self) -> LogInfo:
        """Ask the leader what the log holds, and set the clock by its answer."""
        sent = time.monotonic()
        reply = await self.request(f"$JS.API.STREAM.INFO.{streams.LOG}")
        try:
            info = _stream_info.decode(reply.data)
        except msgspec.ValidationError as error:
            raise Unavailable(f"no log: {reply.data[:200]!r}") from error
        self._clock_offset = unix_time(info.ts) - (sent + time.monotonic()) / 2
        self.log_info = LogInfo(
            info.config.metadata.get("epoch", "0"),
            info.state.first_seq,
            info.state.last_seq,
            info.state.bytes,
            info.config.max_bytes,
            info.config.num_replicas,
        )
        return self.log_info

    def _dispatch(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        callback = self._waiting.get(subject[len(self._inbox) + 1 :])
        if callback:
            callback(subject, reply, data, headers)

    async def _watch(self) -> None:
        """Notice a connection that looks alive and is deaf."""
        misses = 0
        while misses < MISSES:
            await asyncio.sleep(WATCH_EVERY)
            if not self.connected:
                continue
            try:
                await self.look_at_log()
                misses = 0
            except TimeoutError:
                misses += 1
            except Unavailable:
                continue
        self.lost.set()

    async def start(self) -> None:
        """Listen for replies and read the log's epoch; waits until there is a log."""
        await self.client.subscribe_direct(f"{self._inbox}.*", self._dispatch)
        while not self.lost.is_set():
            try:
                await self.look_at_log()
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
        logger.warning("broker connection error", extra={"reason": str(error) or type(error).__name__})

    async def on_disconnect() -> None:
        client.settled = False
        broker.disconnected()

    async def on_reconnect() -> None:
        client.settled = True
        for callback in broker.reconnected:
            callback()

    async def on_close() -> None:
        broker.lost.set()

    options: dict[str, Any] = {"nkeys_seed": seed_file} if seed_file else {}
    await client.connect(
        url,
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
        reconnect_time_wait=random.uniform(*RECONNECT_WAIT),  # noqa: S311 - jitter
        connect_timeout=2,
        **options,
    )
    client.settled = True
    watch: asyncio.Task[None] | None = None
    try:
        await broker.start()
        watch = asyncio.create_task(broker._watch(), name="broker-watch")
        yield broker
    finally:
        if watch:
            watch.cancel()
        await client.close()
