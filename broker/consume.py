"""Consuming: deliveries of a durable consumer, each handed to one holder and kept alive until it lets go.

One standing pull request at a time. A delivery belongs to its holder from the moment it comes: it is kept
alive with `in_progress` and only the holder settles it. To drop one is to settle nothing: it comes again,
to somebody, after `ack_wait`.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import msgspec
from nats.aio.subscription import Subscription

from broker.client import status
from broker.connect import Broker, Unavailable
from contracts import streams

logger = logging.getLogger(__name__)

BATCH = 256
EXPIRES = 30.0
HEARTBEAT = 5.0
BACKOFF = 0.25
IDLE_HEARTBEAT = 100
NANOSECONDS = 1_000_000_000


class Delivery:
    """A message that the broker handed to this process, to hold until it is settled or dropped."""

    def __init__(self, broker: Broker, subject: str, reply: str, data: bytes, headers: bytes) -> None:
        self.subject = subject
        self.data = data
        self.headers = headers
        tokens = reply.split(".")
        self.seq = int(tokens[-4])
        self.delivered = int(tokens[-5])
        self.stored_at = int(tokens[-2]) / NANOSECONDS
        self.stopping = False
        self.on_stop: Callable[[], None] | None = None
        self.held = True
        self._broker = broker
        self._reply = reply

    async def ack(self) -> None:
        """Nothing is left to do for it. A lost ack only brings it back to somebody who sees the same."""
        await self._settle(b"+ACK")

    async def nak(self, delay: float = 0) -> None:
        """Hand it to somebody else, now or after `delay` seconds."""
        await self._settle(b'-NAK {"delay": %d}' % int(delay * NANOSECONDS) if delay else b"-NAK")

    async def in_progress(self) -> None:
        """Keep it for another `ack_wait`."""
        if self.held:
            await self._say(b"+WPI")

    def drop(self) -> None:
        """Settle nothing."""
        self.held = False

    def stop(self) -> None:
        """Tell the holder to let go."""
        self.stopping = True
        if self.on_stop:
            self.on_stop()

    async def _settle(self, word: bytes) -> None:
        if self.held:
            self.held = False
            await self._say(word)

    async def _say(self, word: bytes) -> None:
        try:
            self._broker.publish(self._reply, word)
        except Unavailable as error:
            logger.info("a delivery could not be answered", extra={"sequence": self.seq, "reason": str(error)})


Holder = Callable[[Delivery], Awaitable[None]]


class _ConsumerInfo(msgspec.Struct):
    class _Config(msgspec.Struct):
        ack_wait: int

    config: _Config


async def ack_wait(broker: Broker, stream: str, durable: str) -> float:
    """How long a delivery stays with a silent holder, in seconds, as the broker has it. Waits for the consumer."""
    while True:
        try:
            reply = await broker.request(f"$JS.API.CONSUMER.INFO.{stream}.{durable}")
            return msgspec.json.decode(reply.data, type=_ConsumerInfo).config.ack_wait / NANOSECONDS
        except (Unavailable, TimeoutError, msgspec.ValidationError) as error:
            logger.warning("waiting for the consumer", extra={"consumer": durable, "reason": str(error)})
            await asyncio.sleep(BACKOFF)


class _Pull:
    """The standing pull request: deliveries in, and when to ask again."""

    def __init__(self, broker: Broker, stream: str, durable: str, take: Callable[[Delivery], None]) -> None:
        self._broker = broker
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._take = take
        self._reply = broker.inbox(f"pull.{stream}.{durable}")
        self._subscription: Subscription | None = None
        self._left = 0
        self._heard = 0.0
        self._failed = False
        self.over = asyncio.Event()
        self.over.set()
        broker.reconnected.append(self.over.set)

    def _arrived(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        self._heard = time.monotonic()
        if headers and not reply and (code := status(headers)):
            if code != IDLE_HEARTBEAT:
                self._failed = code not in (404, 408)
                self.over.set()
            return
        self._left -= 1
        if self._left <= 0:
            self.over.set()
        self._take(Delivery(self._broker, subject.decode(), reply.decode(), data, headers or b""))

    async def open(self) -> None:
        """Listen. Deliveries keep their own subject, so they need a subscription of their own."""
        self._subscription = await self._broker.subscribe(self._reply, self._arrived)

    async def ask(self, messages: int) -> None:
        """Ask for that many messages; after a failure, not at once."""
        if self._failed:
            await asyncio.sleep(BACKOFF)
        self._failed, self._left, self._heard = False, messages, time.monotonic()
        self.over.clear()
        request = {
            "batch": messages,
            "expires": int(EXPIRES * NANOSECONDS),
            "idle_heartbeat": int(HEARTBEAT * NANOSECONDS),
        }
        try:
            self._broker.publish(self._subject, msgspec.json.encode(request), self._reply)
        except Unavailable:
            self._failed = True
            self.over.set()

    async def ended(self) -> None:
        """Return when the request is used up, refused, or its heartbeat is missing."""
        while not self.over.is_set():
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await self.over.wait()
            except TimeoutError:
                if time.monotonic() - self._heard > 2 * HEARTBEAT:
                    self.over.set()

    async def close(self) -> None:
        """Take nothing more."""
        self._broker.reconnected.remove(self.over.set)
        if self._subscription:
            await self._broker.unsubscribe(self._subscription)


async def consume(
    broker: Broker, consumer: streams.Consumer, hold: Holder, stop: asyncio.Event, *, most: int | None = None
) -> None:
    """Hand each delivery to `hold` until `stop` is set, then wait for the holders to let go.

    At most `most` are held at once (no limit by default: who waits costs next to nothing). A holder that raises
    drops its delivery.
    """
    wait = await ack_wait(broker, consumer.stream, consumer.durable)
    held: set[Delivery] = set()
    freed = asyncio.Event()

    async def run(delivery: Delivery) -> None:
        try:
            await hold(delivery)
        except Exception:
            logger.exception("a holder failed", extra={"consumer": consumer.durable, "sequence": delivery.seq})
        finally:
            delivery.drop()
            held.discard(delivery)
            freed.set()

    async with asyncio.TaskGroup() as tasks:

        def take(delivery: Delivery) -> None:
            held.add(delivery)
            tasks.create_task(run(delivery), name=f"hold-{delivery.seq}")

        alive = tasks.create_task(_keep_alive(held, wait / 3), name="keep-alive")
        pull = _Pull(broker, consumer.stream, consumer.durable, take)
        await pull.open()
        stopped = tasks.create_task(stop.wait(), name="stop")
        while not stop.is_set():
            free = BATCH if most is None else most - len(held)
            if not pull.over.is_set():
                waiting = asyncio.ensure_future(pull.ended())
            elif free > 0:
                waiting = asyncio.ensure_future(pull.ask(min(free, BATCH)))
            else:
                freed.clear()
                waiting = asyncio.ensure_future(freed.wait())
            await asyncio.wait([stopped, waiting], return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                waiting.cancel()
        await pull.close()
        for delivery in tuple(held):
            delivery.stop()
        while held:
            freed.clear()
            await freed.wait()
        alive.cancel()


async def _keep_alive(held: set[Delivery], every: float) -> None:
    while True:
        await asyncio.sleep(every)
        for delivery in tuple(held):
            await delivery.in_progress()
