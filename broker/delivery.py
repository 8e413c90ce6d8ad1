"""Deliveries: a message that was handed to this process, and all of them that it holds."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from broker import points
from broker.client import header
from broker.connect import Broker, Unavailable
from contracts.subjects import parse

logger = logging.getLogger(__name__)

BATCH = 256
"""How many are asked for at a time."""

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
        self.rested: Callable[[], None] | None = None
        """Tells whoever counts that the holder only waits now."""
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
        if resting and self.rested:
            self.rested()

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


class Held:
    """What this process holds, of one consumer. At most `most` beside those that rest, if there is a limit."""

    def __init__(self, most: int | None = None) -> None:
        self.deliveries: set[Delivery] = set()
        self.freed = asyncio.Event()
        """Somebody let go, or rests."""
        self._most = most
        self._latest: dict[int, Delivery] = {}

    def add(self, delivery: Delivery) -> bool:
        """Whether it needs a holder; not where one has the same message still, who would only be overtaken."""
        latest = self._latest.get(delivery.seq)
        if latest and latest.held:
            latest.renew(delivery)
            return False
        if self._most is not None:
            delivery.rested = self.freed.set
        self.deliveries.add(delivery)
        self._latest[delivery.seq] = delivery
        return True

    @property
    def room(self) -> int:
        """How many more may come; negative where one that rested has gone on and another came meanwhile."""
        if self._most is None:
            return BATCH
        return min(BATCH, self._most - sum(not delivery.resting for delivery in self.deliveries))

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
        self.freed.set()

    async def wait_for_room(self) -> None:
        """Until somebody lets go, or rests."""
        self.freed.clear()
        await self.freed.wait()

    async def stop(self) -> None:
        """Tell every holder to let go, and wait until they have."""
        for delivery in tuple(self.deliveries):
            delivery.stop()
        while self.deliveries:
            await self.wait_for_room()
