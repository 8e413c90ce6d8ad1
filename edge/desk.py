"""Desk: what every connection and request of this edge shares, and what is done for all of them at once."""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from broker import metrics
from broker.feed import Feeds
from broker.process import Process
from contracts.subjects import Topic
from edge.identity import Identity
from edge.limits import Limiter
from edge.presence import Entry, Presence

if TYPE_CHECKING:
    from edge.connection import Connection
    from edge.subscription import Subscription

logger = logging.getLogger(__name__)

TICK = 1.0
"""Seconds between looks at every connection: what expires or is revoked ends within two of them."""

AT_ONCE = 100
"""Connections that are looked at, or closed, before others get their turn of the event loop."""

BATCH_EVERY = 0.05
"""Seconds between batches of closes: 2,000 connections are gone after one, and come back one batch after another."""

SPREAD = 10.0
"""Seconds over which the clients of a full edge are asked to come back, and fewer over less."""


class Desk:
    """The edge's broker connection, its feeds, who may come in, and who is there."""

    def __init__(self, process: Process, identity: Identity) -> None:
        self.broker = process.broker
        self.config = process.config
        self.settings = process.settings
        self.stop = process.stop
        self.identity = identity
        self.limiter = Limiter(process.config.limits)
        self.feeds = Feeds(process.broker)
        self.presence = Presence(
            process.broker, process.config.limits.connections_per_session, evicted=self._evicted, lag=self._lag
        )
        self.connections: set[Connection] = set()
        self._sessions: Counter[Topic] = Counter()
        self._subscriptions: dict[Entry, Subscription] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def epoch(self) -> str:
        """The incarnation of the log, as it stands in cursors."""
        assert self.broker.log_info
        return self.broker.log_info.epoch.replace("-", "")

    async def run(self) -> None:
        """Keep what is shared up to date, and look at every connection each second. Runs for ever."""
        await self.presence.start()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.feeds.verify(), name="verify-feeds")
            group.create_task(self.identity.run(), name="identity")
            group.create_task(self.presence.run(), name="presence")
            group.create_task(self._tick(), name="tick")

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(TICK, self.settings.heartbeat_interval / 4))
            for number, connection in enumerate(tuple(self.connections), 1):
                try:
                    connection.tick(loop.time())
                except Exception:
                    logger.exception("a connection could not be looked at")
                if number % AT_ONCE == 0:
                    await asyncio.sleep(0)

    async def drain(self) -> None:
        """Say goodbye to everybody, in batches, each with another time to come back. Takes a moment, not a minute."""
        open_now = list(self.connections)
        spread = min(SPREAD, len(open_now) / AT_ONCE)
        for start in range(0, len(open_now), AT_ONCE):
            for connection in open_now[start : start + AT_ONCE]:
                connection.goodbye(random.uniform(0, spread))  # noqa: S311 - jitter
            await asyncio.sleep(BATCH_EVERY)
        await self.presence.close()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something in the background."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            logger.error("background work failed", exc_info=error)

    def entered(self, subscription: "Subscription") -> None:
        """A connection follows a session."""
        assert subscription.entry
        self._subscriptions[subscription.entry] = subscription
        self._sessions[subscription.topic] += 1
        metrics.ACTIVE_SESSIONS.set(len(self._sessions))

    def left(self, subscription: "Subscription") -> None:
        """A connection follows a session no longer."""
        if subscription.entry is None or self._subscriptions.pop(subscription.entry, None) is None:
            return
        self.presence.leave(subscription.entry)
        self._sessions[subscription.topic] -= 1
        if not self._sessions[subscription.topic]:
            del self._sessions[subscription.topic]
        metrics.ACTIVE_SESSIONS.set(len(self._sessions))

    def _evicted(self, entry: Entry, reason: str) -> None:
        if subscription := self._subscriptions.get(entry):
            subscription.connection.evicted(subscription, reason)

    def _lag(self, entry: Entry) -> float:
        subscription = self._subscriptions.get(entry)
        return subscription.lag if subscription else 0.0

    def state_of(self, tenant: str, session_id: str, state: str) -> str:
        """The state that is told of a session: `suspended` while nobody is connected, on whichever edge."""
        return "suspended" if state == "active" and not self.presence.is_connected(tenant, session_id) else state
