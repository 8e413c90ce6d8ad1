"""Presence: the rules of `roster` with a broker and a clock."""

import asyncio
import contextlib
import heapq
import logging
import time
from collections.abc import Callable

from broker.connect import Broker, Unavailable
from contracts import subjects
from contracts.events import new_id
from edge.presence import gossip
from edge.presence.entry import Entry, Place, Takeover
from edge.presence.roster import Roster

logger = logging.getLogger(__name__)

BEAT = 1.0
"""Seconds between two beats. An edge that was killed is forgotten after three of them."""

GRACE = 0.25
"""Beats for which a session may have too many connections before the newest go: some may be just leaving."""

LAGS_TOLD = 200
"""Connections whose lag is told with a beat, those that lag most: a beat stays small whatever happens."""


class Presence:
    """Who is connected, on this edge and on every other one.

    `evicted(entry, reason)` is called where a connection of this edge must go: `replaced` by another one, or
    `connection_limit`. It counts no more when that is called. `lag(entry)`: for how many seconds a connection of
    this edge is behind. Neither may block. `limit`: connections a session may have, 0 for any number.

    The others know of a change as soon as the broker has passed it on. While the broker is away, the others'
    connections count for three beats more, and then only those of this edge.
    """

    def __init__(
        self,
        broker: Broker,
        limit: int,
        *,
        evicted: Callable[[Entry, str], None],
        lag: Callable[[Entry], float],
        beat: float = BEAT,
    ) -> None:
        self.edge_id = new_id()
        self._roster = Roster(self.edge_id, limit, beat)
        self._broker = broker
        self._evicted = evicted
        self._lag = lag
        self._every = beat
        self._is_closed = False
        self._judging: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._listening = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Listen to the other edges, and ask who is there."""
        for subject in (_ALL, _one(self.edge_id)):
            subscription = await self._broker.subscribe(subject, self._heard)
            self._listening.push_async_callback(self._broker.unsubscribe, subscription)
        self._broker.reconnected.append(self._hello)
        self._hello()

    async def run(self) -> None:
        """Show the others that this edge is alive, and forget those that are not. Runs for ever."""
        while True:
            await asyncio.sleep(self._every)
            self._beat()

    async def close(self) -> None:
        """Say goodbye: the others count this edge's connections no more. Nothing is told or heard afterwards."""
        if self._is_closed:
            return
        self._roster.close()
        self._settle()
        self._is_closed = True
        with contextlib.suppress(ValueError):  # it was never started
            self._broker.reconnected.remove(self._hello)
        for timer in self._judging.values():
            timer.cancel()
        await self._listening.aclose()

    def enter(self, entry: Entry, takeover: Takeover | None = None) -> None:
        """Take a place in a session, and evict whom it replaces, on whichever edge.

        Raises MillraceError `connection_limit` where the session is full over all edges and nobody is to make room.
        """
        self._roster.enter(entry, takeover)
        self._settle()

    def leave(self, entry: Entry) -> None:
        """Give a place back. Nothing happens where it was evicted or given back before."""
        self._roster.leave(entry)
        self._settle()

    def of_session(self, tenant: str, session_id: str) -> list[tuple[Entry, float]]:
        """Who is connected to a session, with the seconds that each is behind; oldest first."""
        return self._with_lag(self._roster.places.of_session((tenant, session_id)))

    def of_user(self, tenant: str, user_id: str) -> list[tuple[Entry, float]]:
        """Where a user is connected, with the seconds that each connection is behind; oldest first."""
        return self._with_lag(self._roster.places.of_user(tenant, user_id))

    def of_tenant(self, tenant: str) -> list[tuple[Entry, float]]:
        """Who of a tenant is connected, with the seconds that each is behind; oldest first."""
        return self._with_lag(self._roster.places.of_tenant(tenant))

    def is_connected(self, tenant: str, session_id: str) -> bool:
        """Whether anybody is connected to the session, on whichever edge."""
        return self._roster.places.has_session((tenant, session_id))

    def _with_lag(self, places: list[Place]) -> list[tuple[Entry, float]]:
        own = self.edge_id
        return [(p.entry, self._lag(p.entry) if p.edge == own else self._roster.lag(p)) for p in places]

    def _hello(self) -> None:
        """What was told meanwhile is missed: have everybody say at which version they are."""
        self._beat(hello=True)

    def _beat(self, *, hello: bool = False) -> None:
        lags = {key: lag for key, place in self._roster.own.items() if (lag := round(self._lag(place.entry), 1)) > 0}
        if len(lags) > LAGS_TOLD:
            lags = dict(heapq.nlargest(LAGS_TOLD, lags.items(), key=lambda item: item[1]))
        self._roster.beat(time.monotonic(), lags, hello=hello)
        self._settle()

    def _heard(self, _subject: bytes, _reply: bytes, data: bytes, _headers: bytes) -> None:
        if not self._is_closed and (message := gossip.decode(data)):
            self._roster.receive(message, time.monotonic())
            self._settle()

    def _settle(self) -> None:
        """Do what follows from a call of the roster."""
        roster = self._roster
        outgoing, roster.outgoing = roster.outgoing, []
        for edge, message in () if self._is_closed else outgoing:
            with contextlib.suppress(Unavailable):  # whoever misses it sees that by the version
                self._broker.publish(_one(edge) if edge else _ALL, gossip.encode(message))
        evictions, roster.evictions = roster.evictions, []
        for entry, reason in evictions:
            try:
                self._evicted(entry, reason)
            except Exception:
                logger.exception("an eviction failed", extra={"connection_id": entry.connection_id})
        suspects, roster.suspects = roster.suspects, set()
        for session in suspects - self._judging.keys():
            loop = asyncio.get_running_loop()
            self._judging[session] = loop.call_later(GRACE * self._every, self._judge, session)

    def _judge(self, session: tuple[str, str]) -> None:
        del self._judging[session]
        self._roster.judge(session)
        self._settle()


_ALL = subjects.edges("presence")


def _one(edge: str) -> str:
    """Where one edge alone listens."""
    return subjects.edges(f"presence-{edge}")
