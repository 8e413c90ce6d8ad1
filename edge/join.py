"""Joining: what a connection is sent before the live events: a snapshot, or a replay from its cursor."""

from typing import Literal

import msgspec

from broker.connect import Broker
from broker.feed import Feed, Feeds
from contracts.cursor import Cursor
from contracts.frames import ReplayComplete, ResumeGap, ServerFrame
from contracts.subjects import Topic
from edge import snapshot
from edge.principal import Principal
from edge.sessions import Session
from edge.watch import Watch

FROM_THE_START = "0"
OWN = slice(1, 3)
"""Where the user's and the tenant's positions stand in a session's cursor."""

Gap = Literal["expired", "foreign", "future", "lost"]


def topics_of(principal: Principal, session: Session) -> list[Topic]:
    """The topics of a session's connection, in the order in which a cursor names them.

    The user's topic is the caller's own, whosever the session is; the project's is there if the caller may watch it.
    """
    tenant = principal.tenant
    topics = [Topic.session(tenant, session.session_id), *own_topics(principal)]
    if session.project_id and principal.may_watch(session.project_id):
        topics.append(Topic.project(tenant, session.project_id))
    return topics


def own_topics(principal: Principal) -> list[Topic]:
    """What a user is told outside sessions: the user's topic and the tenant's."""
    return [Topic.user(principal.tenant, principal.user_id), Topic.everybody(principal.tenant)]


async def join(broker: Broker, watch: Watch, topic: Topic, after: str | None) -> None:
    """Send a snapshot, or what came after the cursor, then `replay_complete`; then follow live.

    A cursor that cannot be honoured is answered with `resume_gap` and a snapshot, never with silence.
    """
    if after is None:
        await start_over(broker, watch, topic)
        return
    positions = await positions_of(broker, watch, after)
    if isinstance(positions, str):
        await start_over(broker, watch, topic, positions)
        return
    watch.start_from(positions)
    for reader in watch.readers:
        await reader.feed.catch_up(reader, upto=reader.feed.head)
    send(watch, ReplayComplete(session_id=topic.id, cursor=watch.cursor, replayed=watch.frames_taken), watch.cursor)
    watch.follow()


async def start_over(broker: Broker, watch: Watch, topic: Topic, gap: Gap | None = None) -> None:
    """Send a snapshot of the session and follow live from there; the other topics from where they are now."""
    watch.stop()
    if gap:
        send(watch, ResumeGap(session_id=topic.id, reason=gap))
    view, active, upto = await snapshot.take(broker, topic)
    watch.start_from((upto, *(reader.feed.head for reader in watch.slots[1:])))
    send(watch, view.frame(topic, watch.cursor, active), watch.cursor)
    send(watch, ReplayComplete(session_id=topic.id, cursor=watch.cursor, replayed=0), watch.cursor)
    watch.follow()


async def join_own(broker: Broker, watch: Watch, after: str | None, part: slice = OWN) -> None:
    """Send what topics that are no session's were told after the cursor, `replay_complete`, then what comes live.

    Without a cursor, or with one that cannot be honoured (`resume_gap`), from now on: there is no snapshot of these.
    """
    positions: tuple[int, ...] | Gap = tuple(reader.feed.head for reader in watch.slots)
    if after is not None:
        positions = await positions_of(broker, watch, after, part)
    if isinstance(positions, str):
        send(watch, ResumeGap(reason=positions))
        positions = tuple(reader.feed.head for reader in watch.slots)
    watch.start_from(positions)
    for reader in watch.readers:
        await reader.feed.catch_up(reader, upto=reader.feed.head)
    send(watch, ReplayComplete(cursor=watch.cursor, replayed=watch.frames_taken), watch.cursor)
    watch.follow()


async def acquire(feeds: Feeds, topics: list[Topic]) -> list[Feed]:
    """The topics' feeds, all or none."""
    acquired: list[Feed] = []
    try:
        for topic in topics:
            acquired.append(await feeds.acquire(topic))
    except BaseException:
        for feed in acquired:
            await feeds.release(feed)
        raise
    return acquired


async def positions_of(broker: Broker, watch: Watch, after: str, part: slice | None = None) -> tuple[int, ...] | Gap:
    """Where each of the watch's topics is to be read from, or why the cursor cannot be honoured.

    `part` of a longer cursor is meant where the watch has fewer topics. A position that is in the cursor beyond the
    watch's topics is of a project that the caller may not watch, or no longer.
    """
    wanted = len(watch.slots)
    if after == FROM_THE_START:
        return (0,) * wanted
    try:
        cursor = Cursor.parse(after)
    except ValueError:
        return "foreign"
    positions = cursor.positions
    if part and len(positions) > wanted:
        positions = positions[part]
    if cursor.epoch != watch.epoch or not wanted <= len(positions) <= wanted + 1:
        return "foreign"
    positions = positions[:wanted]
    if any(position > reader.feed.head for position, reader in zip(positions, watch.slots, strict=True)):
        log = await broker.look_at_log()
        if max(positions) > log.last_seq:
            return "future"
    first = broker.log_info.first_seq if broker.log_info else 0
    oldest = max(positions) if part else positions[0]
    return "expired" if oldest < first - 1 else positions


def send(watch: Watch, frame: ServerFrame, cursor: str | None = None) -> None:
    """Send a frame of the edge's own. `cursor`: one from which the client may resume."""
    watch.outbox.put(watch.spelling.own(msgspec.json.encode(frame), cursor))
