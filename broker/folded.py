"""Folded: the folds of a process, and a holder's beginning from one of them.

In this process for the next holder of a topic, and now and then beside the log for those of other processes.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Generic

from broker.connect import Broker
from broker.delivery import Delivery
from broker.hold import KEEP_AFTER, Hold
from broker.kept import epoch, keep, load
from broker.prefix import F, Prefix
from contracts.subjects import Topic, parse

logger = logging.getLogger(__name__)

KEPT_BYTES = 2 * 1024 * 1024
"""The largest fold that is kept. What makes one larger is an open turn, which ends, or a very large prompt."""

Again = Callable[[bytes, str], tuple[F, int] | None]
"""A kept fold and how far it goes, from what was kept and the log's epoch."""

Kept = Callable[[F, str, int], bytes]
"""What is to be kept of a fold, with the log's epoch, every fact up to a sequence taken in."""


class Folded(Generic[F]):
    """The folds of a process: those that are held, one for all holders of a topic, and those that were left.

    So the next holder of a topic need not fold from its beginning. Those that were left longest ago are forgotten where
    all together take more than `most` bytes, by their own estimate.
    """

    def __init__(
        self, empty: Callable[[], F], most: int, *, again: Again[F] | None = None, kept: Kept[F] | None = None
    ) -> None:
        self.again = again
        self._kept = kept
        self._empty = empty
        self._most = most
        self._held: dict[Topic, Prefix[F]] = {}
        self._left: dict[Topic, tuple[Prefix[F], int]] = {}
        self._weight = 0

    def take(self, topic: Topic) -> Prefix[F]:
        """The fold of a topic, for one more holder."""
        prefix = self._held.get(topic) or self._forget(topic) or Prefix(self._empty())
        self._held[topic] = prefix
        prefix.holders += 1
        return prefix

    def leave(self, broker: Broker, topic: Topic, prefix: Prefix[F]) -> None:
        """One holder has let go. Keep the fold beside the log now and then, and here for the next holder."""
        if self._kept and prefix.number >= KEEP_AFTER:
            self._keep(broker, topic, prefix, self._kept)
        prefix.holders -= 1
        if prefix.holders:
            return
        del self._held[topic]
        prefix.forget_recent()
        weight = prefix.state.weight
        self._left[topic] = (prefix, weight)
        self._weight += weight
        while self._weight > self._most:
            self._forget(next(iter(self._left)))

    def _forget(self, topic: Topic) -> Prefix[F] | None:
        prefix, weight = self._left.pop(topic, (None, 0))
        self._weight -= weight
        return prefix

    @staticmethod
    def _keep(broker: Broker, topic: Topic, prefix: Prefix[F], kept: Kept[F]) -> None:
        prefix.number = 0
        try:
            payload = kept(prefix.state, epoch(broker), prefix.seq)
        except (OverflowError, TypeError, ValueError) as error:
            logger.debug("a fold cannot be kept", extra={"topic": topic.id, "reason": str(error)})
            return
        if len(payload) <= KEPT_BYTES:
            keep(broker, topic.turns_state, payload)

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
    prefix = folded.take(topic)
    try:
        begin = partial(folded.begin, broker, topic) if folded.again else None
        hold = Hold(broker, delivery, topic, prefix, begin)
        delivery.wake = hold.missed
        subscription = await broker.subscribe(topic.live_facts, hold.wake)
        broker.holds += 1
        try:
            if not hold.knows_all_before():
                await hold.look()
            yield hold
        finally:
            broker.holds -= 1
            await broker.unsubscribe(subscription)
    finally:
        folded.leave(broker, topic, prefix)
