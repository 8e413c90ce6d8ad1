"""Folded: the states that holders leave behind, and a holder's beginning from one of them.

In this process for the next holder of a topic, and now and then beside the log for those of other processes.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Generic

from broker.connect import Broker
from broker.delivery import Delivery
from broker.hold import KEEP_AFTER, F, Hold
from broker.kept import epoch, keep, load
from contracts.subjects import Topic, parse

logger = logging.getLogger(__name__)

KEPT_BYTES = 2 * 1024 * 1024
"""The largest fold that is kept. What makes one larger is an open turn, which ends, or a very large prompt."""

Again = Callable[[bytes, str], tuple[F, int] | None]
"""A kept fold and how far it goes, from what was kept and the log's epoch."""

Kept = Callable[[F, str, int], bytes]
"""What is to be kept of a fold, with the log's epoch, every fact up to a sequence taken in."""


class Folded(Generic[F]):
    """States that holders left behind, so that the next one of a topic need not fold from its beginning.

    A state is always a prefix of its topic, folded; one holder has it at a time. Those that were left longest ago are
    forgotten where all together take more than `most` bytes, by their own estimate.
    """

    def __init__(
        self, empty: Callable[[], F], most: int, *, again: Again[F] | None = None, kept: Kept[F] | None = None
    ) -> None:
        self.again = again
        self._kept = kept
        self._empty = empty
        self._most = most
        self._states: dict[Topic, tuple[int, F, int, int]] = {}
        self._weight = 0

    def take(self, topic: Topic) -> tuple[int, F, int]:
        """A state, the sequence up to which it holds, and how many facts nobody has kept. It is the caller's now."""
        found = self._forget(topic)
        return found[:3] if found else (0, self._empty(), 0)

    def keep(self, broker: Broker, topic: Topic, seq: int, state: F, behind: int = 0) -> None:
        """Leave a state for the next holder, unless there is one that is further; beside the log, too, now and then."""
        if self._kept and behind >= KEEP_AFTER:
            behind = 0
            try:
                payload = self._kept(state, epoch(broker), seq)
            except (OverflowError, TypeError, ValueError) as error:
                logger.debug("a fold cannot be kept", extra={"topic": topic.id, "reason": str(error)})
            else:
                if len(payload) <= KEPT_BYTES:
                    keep(broker, topic.turns_state, payload)
        if seq >= self._states.get(topic, (0,))[0]:
            self._forget(topic)
            weight = state.weight
            self._states[topic] = (seq, state, behind, weight)
            self._weight += weight
        while self._weight > self._most:
            self._forget(next(iter(self._states)))

    def _forget(self, topic: Topic) -> tuple[int, F, int, int] | None:
        found = self._states.pop(topic, None)
        if found:
            self._weight -= found[3]
        return found

    async def begin(self, broker: Broker, topic: Topic) -> tuple[F, int] | None:
        """A fold that was kept beside the log, and how far it goes."""
        stored = await load(broker, topic.turns_state) if self.again else None
        return self.again(stored, epoch(broker)) if stored and self.again else None


@asynccontextmanager
async def holding(broker: Broker, delivery: Delivery, folded: Folded[F]) -> AsyncIterator[Hold[F]]:
    """Hold a delivery whose topic's live facts wake the holder.

    The state is folded to the leader's last fact, or, at a first delivery, up to what is delivered.
    """
    topic = parse(delivery.subject)[0]
    seq, state, behind = folded.take(topic)
    begin = partial(folded.begin, broker, topic) if folded.again else None
    hold = Hold(broker, delivery, topic, state, seq, begin)
    delivery.wake = hold.news.set
    subscription = await broker.subscribe(topic.live_facts, hold.wake)
    broker.holds += 1
    try:
        if not hold.knows_all_before():
            await hold.look()
        yield hold
    finally:
        broker.holds -= 1
        folded.keep(broker, topic, hold.seq, hold.state, behind + hold.number)
        await broker.unsubscribe(subscription)
