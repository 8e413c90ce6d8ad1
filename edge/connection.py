"""Connection: what every open stream has in common, whatever it is spoken over.

It is authenticated once, checked every second, counted in each session that it follows, sent what it follows
through one outbox, and closed with a code. It has no task of its own while nothing happens.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Literal, Self

import msgspec

from broker import metrics
from contracts import frames
from contracts.errors import CATALOGUE, Code, MillraceError
from contracts.events import new_id, timestamp
from contracts.frames import ServerFrame
from contracts.subjects import Topic
from edge import join, sessions
from edge.desk import Desk
from edge.failures import error_frame, from_exception
from edge.outbox import Outbox, Sink
from edge.presence import Entry, Takeover
from edge.principal import Principal
from edge.spelling import Spelling
from edge.subscription import Subscription
from edge.watch import Watch

NO_SIGN_OF_LIFE, REPLACED, GOING_AWAY = 4008, 4000, 1012
Transport = Literal["websocket", "multiplex", "sse"]


class Connection:
    """One client's stream. `own`: the user's and the tenant's topics, where they come beside many sessions."""

    transport: Transport = "websocket"

    def __init__(
        self, desk: Desk, principal: Principal, sink: Sink, spelling: Spelling, *, device: str | None = None
    ) -> None:
        self.desk = desk
        self.principal = principal
        self.connection_id = new_id()
        self.spelling = spelling
        self.outbox = Outbox(sink)
        self.subscriptions: dict[str, Subscription] = {}
        self.own: Watch | None = None
        self.closing: tuple[int, str] | None = None
        self.cleanups: list[Callable[[], Awaitable[None]]] = []
        self.device = device
        self.started = desk.broker.now()
        self._quiet_since = self._now()
        self._label = metrics.ACTIVE_CONNECTIONS.labels(self.transport)

    def __enter__(self) -> Self:
        """Be looked at every second, and closed when the edge stops."""
        self.desk.connections.add(self)
        self._label.inc()
        return self

    def __exit__(self, *_: object) -> None:
        self.desk.connections.discard(self)
        self._label.dec()

    async def find(self, session_id: str) -> sessions.Session:
        """A session that the caller may follow. Raises MillraceError."""
        self.principal.require("read")
        return await sessions.find(self.desk.broker, self.principal, session_id)

    def enter(self, session: sessions.Session, takeover: Takeover | None = None) -> Subscription:
        """Take a place in a session; `follow` it next. Raises MillraceError `connection_limit` where it is full.

        Who joins somebody else's session, to approve, takes nobody's place there.
        """
        subscription = Subscription(self, session, self.own)
        subscription.entry = Entry(
            connection_id=self.connection_id,
            tenant=self.principal.tenant,
            session_id=session.session_id,
            user_id=self.principal.user_id,
            transport=self.transport,
            device=self.device,
            since=timestamp(self.started),
            started=self.started,
        )
        self.desk.presence.enter(subscription.entry, takeover if subscription.mine else None)
        self.desk.entered(subscription)
        self.subscriptions[session.session_id] = subscription
        return subscription

    async def leave(self, subscription: Subscription) -> None:
        """Follow a session no longer."""
        if self.subscriptions.get(subscription.topic.id) is subscription:
            del self.subscriptions[subscription.topic.id]
        self.desk.left(subscription)
        await subscription.leave()

    async def end(self) -> None:
        """Follow nothing more."""
        for subscription in tuple(self.subscriptions.values()):
            await self.leave(subscription)
        if self.own:
            self.own.leave()
            for reader in self.own.readers:
                await self.desk.feeds.release(reader.feed)
            self.own = None
        while self.cleanups:
            await self.cleanups.pop()()

    async def follow_topics(self, topics: list[Topic], after: str | None, part: slice = join.OWN) -> Watch:
        """Follow topics that are no session's. `part`: where a session's cursor has their positions."""
        feeds = await join.acquire(self.desk.feeds, topics)
        self.own = watch = Watch(self.desk.epoch, feeds, self.outbox, self.spelling)
        watch.on_lost = lambda: self.close(GOING_AWAY, "lost")
        await join.join_own(self.desk.broker, watch, after, part)
        return watch

    @property
    def _watches(self) -> list[Watch]:
        found = [subscription.watch for subscription in self.subscriptions.values() if subscription.watch]
        return [self.own, *found] if self.own else found

    def dropped(self, subscription: Subscription, error: MillraceError) -> None:
        """A session cannot be followed any more: one that follows only this closes."""
        self.close(CATALOGUE[error.code].close or GOING_AWAY, error.code)

    def evicted(self, subscription: Subscription, reason: str) -> None:
        """Another connection took this one's place in the session, or there are too many."""
        if reason == "replaced":
            self.close(REPLACED, reason)
        else:
            self.close(CATALOGUE[Code.CONNECTION_LIMIT].close or GOING_AWAY, Code.CONNECTION_LIMIT)

    def send(self, frame: ServerFrame) -> None:
        """Send a frame of the edge's own."""
        self.outbox.put(self.spelling.own(msgspec.json.encode(frame)))

    def fail(self, error: Exception, session_id: str | None, request_id: str | None) -> None:
        """Tell the client of a request that failed; the connection lives on."""
        known = from_exception(error)
        metrics.ERRORS.labels(known.code).inc()
        self.send(error_frame(known, session_id, request_id))

    def authorise(self) -> None:
        """Raises MillraceError where the credentials have expired or were revoked."""
        self.desk.identity.check(self.principal)

    def renew(self, principal: Principal) -> None:
        """Go on with newer credentials of the same user. Raises MillraceError where they allow too little."""
        old = self.principal
        if (principal.tenant, principal.user_id) != (old.tenant, old.user_id):
            raise MillraceError(Code.FORBIDDEN, "the token names somebody else")
        principal.require("read")
        for subscription in self.subscriptions.values():
            session = subscription.session
            project = session.project_id
            watched = project is None or principal.may_watch(project) or not old.may_watch(project)
            if not (watched and (session.user_id == principal.user_id or principal.may_join_any)):
                raise MillraceError(Code.FORBIDDEN, "the token does not allow what this connection follows")
        self.principal = principal

    @property
    def expires_at(self) -> str | None:
        """When the credentials expire."""
        return None if self.principal.expires_at is None else timestamp(self.principal.expires_at)

    def tick(self, now: float) -> None:
        """What the time has come for, every second: end what has expired, is silent, or is too slow."""
        try:
            self.authorise()
        except MillraceError as error:
            self.close(CATALOGUE[error.code].close or GOING_AWAY, error.code)
            return
        limits = self.desk.config.limits
        for subscription in self.subscriptions.values():
            subscription.tick()
        if self.lag(now) > limits.slow_seconds:
            metrics.ERRORS.labels(Code.SLOW_CONSUMER).inc()
            self.close(CATALOGUE[Code.SLOW_CONSUMER].close or GOING_AWAY, Code.SLOW_CONSUMER)
        elif now - self.heard >= self.desk.settings.heartbeat_timeout:
            self.close(NO_SIGN_OF_LIFE, "no sign of life")
        elif now - self._quiet_since >= self.heartbeat_interval:
            self._quiet_since = now
            self.heartbeat()

    def lag(self, now: float) -> float:
        """For how many seconds the client has been behind what there is."""
        return max((watch.seconds_behind(now) for watch in self._watches), default=0.0)

    @property
    def heard(self) -> float:
        """When the client last gave a sign of life, by the loop's time."""
        return self._now()

    @property
    def heartbeat_interval(self) -> float:
        """Seconds between heartbeats."""
        return self.desk.settings.heartbeat_interval

    def heartbeat(self) -> None:
        """Show that the connection is alive."""
        self.outbox.put(self.spelling.beat())

    def goodbye(self, reconnect_after: float) -> None:
        """The edge stops: say when to come back, and close."""
        self.send(frames.Reconnect(reconnect_after=round(reconnect_after, 3), reason="restarting"))
        self.close(GOING_AWAY, "restarting")

    def close(self, code: int, reason: str) -> None:
        """Close with a code, once; what waits is given a moment to be written."""
        if self.closing is None:
            self.closing = code, reason
            for watch in self._watches:
                watch.stop()
            with contextlib.suppress(ConnectionError):
                self.hang_up(code, reason)

    def hang_up(self, code: int, reason: str) -> None:
        """End the stream."""
        raise NotImplementedError

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
