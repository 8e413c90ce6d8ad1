"""Joining: what a connection is sent before the live events: a snapshot, or a replay from its cursor."""

from typing import Literal

import msgspec

from broker.connect import Broker
from broker.feed import Feed, Feeds
from contracts.cursor import Cursor
from contracts.frames import ReplayComplete, ResumeGap, ServerFrame
from contracts.subjects import Topic
from edge import snapshot
from edge.sessions import Session
from edge.watch import Watch

FROM_THE_START = "0"
Gap = Literal["expired", "foreign", "future", "lost"]


def topics_of(tenant: str, session: Session) -> list[Topic]:
    """The topics of a session's connection, in the order in which a cursor names them."""
    topics = [
        Topic.session(tenant, session.session_id),
        Topic.user(tenant, session.user_id),
        Topic.everybody(tenant),
    ]
    if session.project_id:
        topics.append(Topic.project(tenant, session.project_id))
    return topics


async def join(broker: Broker, watch: Watch, topic: Topic, after: str | None) -> None:
    """Send a snapshot, or what came after the cursor, then `replay_complete`; then follow live.

    A cursor that cannot be honoured is answered with `resume_gap` and a snapshot, never with silence.
    """
    if after is None:
        await start_over(broker, watch, topic)
        return
    positions = await _positions(broker, watch, after)
    if isinstance(positions, str):
        await start_over(broker, watch, topic, positions)
        return
    watch.start_from(positions)
    for reader in watch.readers:
        await reader.feed.catch_up(reader, upto=reader.feed.head)
    _send(watch, ReplayComplete(session_id=topic.id, cursor=watch.cursor, replayed=watch.frames_taken))
    watch.follow()


async def start_over(broker: Broker, watch: Watch, topic: Topic, gap: Gap | None = None) -> None:
    """Send a snapshot of the session and follow live from there; the other topics from where they are now."""
    watch.leave()
    if gap:
        _send(watch, ResumeGap(session_id=topic.id, reason=gap))
    view, active, upto = await snapshot.take(broker, topic)
    watch.start_from((upto, *(reader.feed.head for reader in watch.readers[1:])))
    _send(watch, view.frame(topic, watch.cursor, active))
    _send(watch, ReplayComplete(session_id=topic.id, cursor=watch.cursor, replayed=0))
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


async def _positions(broker: Broker, watch: Watch, after: str) -> tuple[int, ...] | Gap:
    if after == FROM_THE_START:
        return (0,) * len(watch.readers)
    try:
        cursor = Cursor.parse(after)
    except ValueError:
        return "foreign"
    if cursor.epoch != watch.epoch or len(cursor.positions) != len(watch.readers):
        return "foreign"
    if any(position > reader.feed.head for position, reader in zip(cursor.positions, watch.readers, strict=True)):
        log = await broker.look_at_log()
        if max(cursor.positions) > log.last_seq:
            return "future"
    first = broker.log_info.first_seq if broker.log_info else 0
    if cursor.positions[0] < first - 1:
        return "expired"
    return cursor.positions


def _send(watch: Watch, frame: ServerFrame) -> None:
    watch.outbox.put(watch.encode(msgspec.json.encode(frame)))
