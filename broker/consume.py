"""Consuming: deliveries of a durable consumer, each handed to one holder and kept alive until it lets go.

One standing pull request at a time. A delivery belongs to its holder from the moment it comes: it is kept
alive with `in_progress` and only the holder settles it. To drop one is to settle nothing: it comes again,
to somebody, after `ack_wait`.
"""

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Coroutine

import msgspec
from nats.aio.subscription import Subscription

from broker import points
from broker.client import header, status
from broker.connect import Broker, Unavailable
from contracts import streams
from contracts.subjects import parse

logger = logging.getLogger(__name__)

BATCH = 256
EXPIRES = 30.0
HEARTBEAT = 5.0
BACKOFF = 0.25
BARRIER = 1.0
IDLE_HEARTBEAT = 100
BEATS = 2000
"""Times a second that this process tells that it holds what only waits: 10,000 are kept for 15 s at a time."""

BURST = 256
"""Words to the broker in one turn of the event loop."""

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
        self.wake: Callable[[], None] | None = None
        """Tells the holder to look: the process is to stop, or the broker was away."""
        self.held = True
        self.kept_until = 0.0
        self._resting = False
        self._broker = broker
        self._reply = reply

    @property
    def follows(self) -> int | None:
        """The last fact of its topic before it, where it was stored on the condition that nothing else came between."""
        check = header(self.headers, b"Nats-Expected-Last-Subject-Sequence-Subject")
        if check is None or check.decode() != parse(self.subject)[0].facts:
            return None
        return int(header(self.headers, b"Nats-Expected-Last-Subject-Sequence") or 0)

    async def ack(self) -> None:
        """Nothing is left to do for it. A lost ack only brings it back to somebody who sees the same."""
        await self._settle("ack", b"+ACK")

    async def nak(self, delay: float = 0) -> None:
        """Hand it to somebody else, now or after `delay` seconds."""
        await self._settle("nak", b'-NAK {"delay": %d}' % int(delay * NANOSECONDS) if delay else b"-NAK")

    def keep(self, seconds: float | None = None) -> None:
        """Keep it for another `ack_wait`, or that long.

        A nak with a delay sets the time when it comes again and nothing else, and may be said any number of times.
        """
        if self.held:
            self._say(b"+WPI" if seconds is None else b'-NAK {"delay": %d}' % int(seconds * NANOSECONDS))

    @property
    def resting(self) -> bool:
        """Whether its holder only waits, so that it may be kept for longer at a time where there are many."""
        return self._resting

    def rest(self, resting: bool) -> None:
        """Say whether the holder only waits. Who goes on is taken over as fast as anybody again, should it die."""
        if self._resting and not resting and self.kept_until:
            self.kept_until = 0.0
            self.keep()
        self._resting = resting

    def renew(self, again: "Delivery") -> None:
        """It came again while its holder has it still: the broker was away, or had not heard from the holder."""
        self.delivered, self._reply, self.kept_until = again.delivered, again._reply, 0.0

    def drop(self) -> None:
        """Settle nothing."""
        self.held = False

    def stop(self) -> None:
        """Tell the holder to let go."""
        self.stopping = True
        if self.wake:
            self.wake()

    async def _settle(self, name: str, word: bytes) -> None:
        if self.held:
            self.held = False
            points.reach(f"settle:{name}", "before")
            self._say(word)
            points.reach(f"settle:{name}", "after")

    def _say(self, word: bytes) -> None:
        try:
            self._broker.publish(self._reply, word)
        except Unavailable as error:
            logger.info("a delivery could not be answered", extra={"sequence": self.seq, "reason": str(error)})


Holder = Callable[[Delivery], Awaitable[None]]


class _Pulse:
    """Whether this process has slept (paused, or starved) for `ack_wait`: somebody else has by now what was on its way.

    To hold such a delivery would take a turn away from a holder who is at it.
    """

    def __init__(self) -> None:
        self.ack_wait = float("inf")
        self._beat = time.monotonic()
        self._drowsy_until = 0.0

    def beat(self) -> None:
        """This process runs."""
        now = time.monotonic()
        if now - self._beat > self.ack_wait:
            self._drowsy_until = now + self.ack_wait / 3
        self._beat = now

    @property
    def is_drowsy(self) -> bool:
        """Whether what comes now may have come while it slept."""
        self.beat()
        return self._beat < self._drowsy_until


class _Held:
    """What this process holds."""

    def __init__(self) -> None:
        self.deliveries: set[Delivery] = set()
        self._latest: dict[int, Delivery] = {}

    def add(self, delivery: Delivery) -> bool:
        """Whether it needs a holder; not where one has the same message still, who would only be overtaken."""
        latest = self._latest.get(delivery.seq)
        if latest and latest.held:
            latest.renew(delivery)
            return False
        self.deliveries.add(delivery)
        self._latest[delivery.seq] = delivery
        return True

    def look_again(self) -> None:
        """The broker was away: every holder may have missed something."""
        for delivery in self.deliveries:
            if delivery.wake:
                delivery.wake()

    def remove(self, delivery: Delivery) -> None:
        """Its holder has let go."""
        delivery.drop()
        self.deliveries.discard(delivery)
        if self._latest.get(delivery.seq) is delivery:
            del self._latest[delivery.seq]


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
        except (Unavailable, TimeoutError, msgspec.DecodeError) as error:
            logger.warning("waiting for the consumer", extra={"consumer": durable, "reason": str(error)})
            await asyncio.sleep(BACKOFF)


class _Pull:
    """The standing pull request: deliveries in, and when to ask again.

    A request that may still stand in the broker when another is made, after a reconnect or a missing heartbeat, is
    ended by giving up the subject that it delivers to.
    """

    def __init__(self, broker: Broker, stream: str, durable: str, take: Callable[[Delivery], None]) -> None:
        self._broker = broker
        self._consumer = f"{stream}.{durable}"
        self._take = take
        self._reply = ""
        self._subscription: Subscription | None = None
        self._left = 0
        self._heard = 0.0
        self._failed = False
        self._may_stand = False
        self.over = asyncio.Event()
        self.over.set()
        broker.reconnected.append(self._broken)

    def _broken(self) -> None:
        self._may_stand = True
        self.over.set()

    def _arrived(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        self._heard = time.monotonic()
        if not reply and (code := status(headers)):
            if code != IDLE_HEARTBEAT and subject.decode() == self._reply:
                self._failed = code not in (404, 408)
                self.over.set()
            return
        self._left -= 1
        if self._left <= 0:
            self.over.set()
        self._take(Delivery(self._broker, subject.decode(errors="replace"), reply.decode(), data, headers))

    async def open(self) -> None:
        """Listen. Deliveries keep their own subject, so they need a subscription of their own."""
        self._may_stand = False
        self._reply = self._broker.inbox(f"pull.{os.urandom(8).hex()}")
        self._subscription = await self._broker.subscribe(self._reply, self._arrived)

    async def ask(self, messages: int) -> None:
        """Ask for that many messages; after a failure, not at once."""
        if self._failed:
            await asyncio.sleep(BACKOFF)
        if self._may_stand:
            await self._leave()
            await self.open()
        self._failed, self._left, self._heard = False, messages, time.monotonic()
        self.over.clear()
        request = {
            "batch": messages,
            "expires": int(EXPIRES * NANOSECONDS),
            "idle_heartbeat": int(HEARTBEAT * NANOSECONDS),
        }
        try:
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._consumer}"
            self._broker.publish(subject, msgspec.json.encode(request), self._reply)
        except Unavailable:
            self._failed = True
            self.over.set()

    async def ended(self) -> None:
        """Return when the request is used up, refused, or its heartbeat is missing."""
        while not self.over.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT):
                    await self.over.wait()
            if time.monotonic() - self._heard > 2 * HEARTBEAT:
                self._broken()

    async def close(self) -> None:
        """Ask for nothing more, and take what is on its way already."""
        self._broker.reconnected.remove(self._broken)
        await self._leave()

    async def _leave(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        try:
            await self._broker.end(subscription)
            with contextlib.suppress(Unavailable, TimeoutError):  # the answer comes behind what is on its way
                await self._broker.request(f"$JS.API.CONSUMER.INFO.{self._consumer}", timeout=BARRIER)
        finally:
            await self._broker.unsubscribe(subscription)


async def consume(
    broker: Broker, consumer: streams.Consumer, hold: Holder, stop: asyncio.Event, *, most: int | None = None
) -> None:
    """Hand each delivery to `hold` until `stop` is set, then wait for the holders to let go.

    At most `most` are held at once (no limit by default: who waits costs next to nothing). A holder that raises
    drops its delivery.
    """
    holding, freed, pulse = _Held(), asyncio.Event(), _Pulse()
    held = holding.deliveries

    async def run(delivery: Delivery) -> None:
        try:
            if most is not None and len(held) > most:
                await delivery.nak()
            else:
                await hold(delivery)
        except Exception:
            logger.exception("a holder failed", extra={"consumer": consumer.durable, "sequence": delivery.seq})
        finally:
            holding.remove(delivery)
            freed.set()

    async with asyncio.TaskGroup() as tasks:

        def take(delivery: Delivery) -> None:
            if pulse.is_drowsy or not holding.add(delivery):
                return
            if stop.is_set():
                delivery.stop()
            tasks.create_task(run(delivery), name=f"hold-{delivery.seq}")

        alive = tasks.create_task(_keep_alive(broker, consumer, held, pulse), name="keep-alive")
        pull = _Pull(broker, consumer.stream, consumer.durable, take)
        broker.reconnected.append(holding.look_again)
        stopped = tasks.create_task(stop.wait(), name="stop")
        try:
            await pull.open()
            while not stop.is_set():
                await _first(stopped, _next(pull, lambda: BATCH if most is None else most - len(held), freed))
        finally:
            broker.reconnected.remove(holding.look_again)
            await pull.close()
        for delivery in tuple(held):
            delivery.stop()
        while held:
            freed.clear()
            await freed.wait()
        alive.cancel()


async def _next(pull: _Pull, room: Callable[[], int], freed: asyncio.Event) -> None:
    """Wait for the standing request to end; make one; or wait until there is room for one."""
    if not pull.over.is_set():
        await pull.ended()
    elif room() > 0:
        await pull.ask(min(room(), BATCH))
    else:
        freed.clear()
        await freed.wait()


async def _first(stopped: asyncio.Task[bool], work: Coroutine[None, None, None]) -> None:
    """Do `work`, or as much of it as there is time for before the stop."""
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait([stopped, working], return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not working.cancel():
            working.result()


async def _keep_alive(broker: Broker, consumer: streams.Consumer, held: set[Delivery], pulse: _Pulse) -> None:
    """Keep what is held. Where thousands only wait, those are kept for longer at a time, at BEATS a second in all."""
    pulse.ack_wait = await ack_wait(broker, consumer.stream, consumer.durable)
    beat = pulse.ack_wait / 3
    while True:
        await asyncio.sleep(beat)
        pulse.beat()
        if not broker.connected:
            continue
        now, resting = time.monotonic(), sum(delivery.resting for delivery in held)
        long = 3 * resting / BEATS
        due = [delivery for delivery in held if now > delivery.kept_until]
        for number, delivery in enumerate(due, 1):
            if delivery.resting and long > pulse.ack_wait:
                delivery.keep(long)
                # a third of the time, or less: so those that came together do not stay together
                delivery.kept_until = now + random.uniform(long / 4, long / 2)  # noqa: S311 - jitter
            else:
                delivery.keep()
            if number % BURST == 0:
                await asyncio.sleep(0)
