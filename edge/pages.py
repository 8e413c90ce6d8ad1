"""Pages: the log events of a session's topics as JSON, from a cursor that any transport takes (WIRE 3)."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from broker.connect import Broker
from broker.read import Record, read
from contracts import events
from contracts.cursor import Cursor, base36
from contracts.frames import ResumeGap
from contracts.subjects import Topic
from edge import join, snapshot
from edge.desk import Desk
from edge.outbox import Outbox
from edge.principal import Principal
from edge.sessions import Session
from edge.spelling import WEBSOCKET
from edge.sse import Body
from edge.watch import Watch

DEFAULT, MOST = 100, 1000
"""Events of a page: unless the client says otherwise, and at most."""

MOST_BYTES = 2 << 20
"""Bytes of events after which a page ends, however few they are."""


async def events_page(
    desk: Desk, principal: Principal, session: Session, after: str | None, limit: int
) -> dict[str, Any]:
    """At most `limit` events after the cursor, topic by topic, the cursor behind them, and whether there are more.

    Without a cursor from the beginning. One that cannot be honoured gives a `resume_gap` and a `snapshot` instead.
    """
    topics = join.topics_of(principal, session)
    feeds = await join.acquire(desk.feeds, topics)
    try:
        watch = Watch(desk.epoch, feeds, Outbox(Body()), WEBSOCKET)
        positions = await join.positions_of(desk.broker, watch, after or join.FROM_THE_START)
        heads = [feed.head for feed in feeds]
    finally:
        for feed in feeds:
            await desk.feeds.release(feed)
    if isinstance(positions, str):
        return await _snapshot(desk, topics[0], positions, heads)
    return await _page(desk, topics, list(positions), heads, limit)


async def _page(desk: Desk, topics: list[Topic], positions: list[int], heads: list[int], limit: int) -> dict[str, Any]:
    found: list[msgspec.Raw] = []
    size = 0
    more = False
    for index, topic in enumerate(topics):
        async for record in _records(desk.broker, topic, positions[index], heads[index]):
            if len(found) == limit or size > MOST_BYTES:
                more = True
                break
            positions[index] = record.seq
            if _is_visible(record.data):
                cursor = str(Cursor(desk.epoch, tuple(positions)))
                found.append(msgspec.Raw(b'%b,"cursor":"%b"}' % (record.data[:-1], cursor.encode())))
                size += len(record.data)
        if more:
            break
        positions[index] = max(positions[index], heads[index])  # what is not there has faded
    return {"events": found, "cursor": str(Cursor(desk.epoch, tuple(positions))), "more": more}


async def _records(broker: Broker, topic: Topic, after: int, upto: int) -> AsyncIterator[Record]:
    """All of a topic's, up to `upto` at least, whatever replica answers."""
    async for records in read(broker, topic.all, after, upto):
        for record in records:
            yield record


async def _snapshot(desk: Desk, topic: Topic, gap: join.Gap, heads: list[int]) -> dict[str, Any]:
    view, active, upto = await snapshot.take(desk.broker, topic)
    cursor = str(Cursor(desk.epoch, (upto, *heads[1:])))
    gap_frame = ResumeGap(session_id=topic.id, reason=gap)
    return {"events": [gap_frame, view.frame(topic, cursor, active)], "cursor": cursor, "more": False}


def _is_visible(stored: bytes) -> bool:
    try:
        return events.type_of(stored) not in events.INTERNAL
    except ValueError:  # no event
        return False


def cursor_at(desk: Desk, topics: int, seq: int, others: int | None = None) -> str:
    """A cursor from which everything follows that was stored after `seq`; in topics beside the session after `others`.

    Who was sent only the session's events goes on from there and misses nothing that the others were told meanwhile.
    """
    return ".".join([desk.epoch, base36(seq), *[base36(seq if others is None else others)] * (topics - 1)])
