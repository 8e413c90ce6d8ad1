"""Subscription: one session that a connection follows, from before it has joined until it leaves."""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import TYPE_CHECKING

import msgspec

from broker.feed import Feed, Item
from contracts import events
from contracts.errors import Code, MillraceError
from contracts.subjects import Topic
from edge import join
from edge.failures import from_exception
from edge.folds import fold
from edge.presence import Entry
from edge.sessions import Session
from edge.watch import Watch

if TYPE_CHECKING:
    from edge.connection import Connection

KEEP_EVERY = 64
"""Facts of a session that come live until its fold is kept anew, so that the next joiner reads few."""


class Subscription:
    """A session's topics on one connection. `shared`: the watch that already has the user's and the tenant's."""

    def __init__(self, connection: "Connection", session: Session, shared: Watch | None = None) -> None:
        self.connection = connection
        self.session = session
        self.topic = Topic.session(connection.principal.tenant, session.session_id)
        self.entry: Entry | None = None
        self.watch: Watch | None = None
        self._shared = shared
        self._feeds: list[Feed] = []
        self._task: asyncio.Task[None] | None = None
        self._was_lost = False

    @property
    def cursor(self) -> str:
        """How far the client was sent everything; empty before it has joined."""
        return self.watch.cursor if self.watch else ""

    @property
    def lag(self) -> float:
        """For how many seconds the client has been behind what there is."""
        return self.watch.seconds_behind(asyncio.get_running_loop().time()) if self.watch else 0.0

    @property
    def last_fact(self) -> int | None:
        """A guess at the session's last fact."""
        return self._feeds[0].last_fact if self._feeds else None

    @property
    def mine(self) -> bool:
        """Whether the caller owns the session, or may do what its owner may."""
        principal = self.connection.principal
        return self.session.user_id == principal.user_id or principal.may("admin")

    def follow(self, after: str | None) -> None:
        """Join in the background, from the cursor if there is one; then stay until `leave`."""
        self._start(self._join(after))

    async def settled(self) -> None:
        """Wait until it has joined, or could not."""
        if self._task:
            await asyncio.wait({self._task})

    async def leave(self) -> None:
        """Send nothing more of it."""
        if self._task:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self.watch:
            self.watch.leave()
        feeds, self._feeds = self._feeds, []
        for feed in feeds:
            feed.asides.discard(self._heard_typing)
            await self.connection.desk.feeds.release(feed)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        self._task = asyncio.create_task(work, name=f"join-{self.topic.id}")
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._task is task:
            self._task = None
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            if self._was_lost:
                self._lost()
            return
        if not isinstance(error, ConnectionError):  # the client is gone, which its connection finds out
            self.connection.dropped(self, from_exception(error))  # type: ignore[arg-type]

    async def _join(self, after: str | None) -> None:
        connection, desk = self.connection, self.connection.desk
        topics = join.topics_of(connection.principal, self.session)
        if self._shared:
            del topics[1:3]
        self._feeds = await join.acquire(desk.feeds, topics)
        watch = self.watch = Watch(desk.epoch, self._feeds, connection.outbox, connection.spelling, self._shared)
        watch.on_lost = self._lost
        watch.on_session = self._session_changed
        self._feeds[0].asides.add(self._heard_typing)
        await join.join(desk.broker, watch, self.topic, after)

    def _lost(self) -> None:
        self._was_lost = self._task is not None  # then it is seen to when that has ended
        if self.watch and self._task is None:
            self._start(join.start_over(self.connection.desk.broker, self.watch, self.topic, "lost"))

    def _session_changed(self, item: Item) -> None:
        event = events.decode(item.data)
        if not isinstance(event, events.SessionUpdated) or event.session_id != self.topic.id:
            return
        self.session = msgspec.structs.replace(self.session, state=event.state, title=event.title)
        if event.state == "deleted":
            self.connection.dropped(self, MillraceError(Code.SESSION_NOT_FOUND))

    def _heard_typing(self, data: bytes) -> None:
        """Somebody types, on this edge or another: `<connection id>\\n<frame>`."""
        sender, _, frame = data.partition(b"\n")
        connection = self.connection
        if sender != connection.connection_id.encode() and not connection.outbox.is_waiting:
            connection.outbox.put(connection.spelling.own(frame))

    def tick(self) -> None:
        """Have the fold kept when enough came live since it last was."""
        if self._feeds and self._feeds[0].facts_seen >= KEEP_EVERY:
            self._feeds[0].facts_seen = 0  # the feed's, so that one of its connections sees to it
            self.connection.desk.spawn(self._keep())

    async def _keep(self) -> None:
        with contextlib.suppress(Exception):  # it is a cache; the next one may succeed
            await fold(self.connection.desk.broker, self.topic)
