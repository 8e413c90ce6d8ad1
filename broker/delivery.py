"""Delivery: a message that was handed to this process."""

import logging
from collections.abc import Awaitable, Callable

from broker import points
from broker.client import header
from broker.connect import Broker, Unavailable
from contracts.subjects import parse

logger = logging.getLogger(__name__)

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
        self.rested: Callable[[bool], None] | None = None
        """Tells whoever counts whether the holder only waits now."""
        self.admitted: Callable[[Delivery], Awaitable[None]] | None = None
        """Waits for room to go on, where there is a limit."""
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
        if resting == self._resting:
            return
        self._resting = resting
        if not resting and self.kept_until:
            self.kept_until = 0.0
            self.keep()
        if self.rested:
            self.rested(resting)

    async def go_on(self) -> None:
        """Work again after resting. Where others have the room by now, the holder is told to stop instead."""
        if self._resting and self.admitted and not self.stopping:
            await self.admitted(self)
        else:
            self.rest(False)

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
