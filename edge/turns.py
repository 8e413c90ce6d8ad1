"""Turns: what becomes of one message, for a caller without a socket: the finished answer, or its events as SSE."""

import asyncio
from collections.abc import Callable
from math import inf
from typing import Any

import msgspec
from msgspec import Struct, field

from broker.feed import Feed, Item
from broker.read import last
from contracts import events
from contracts.subjects import Topic
from edge.desk import Desk
from edge.outbox import Outbox
from edge.pages import cursor_at
from edge.spelling import SSE
from edge.sse import EventStream

WAIT = 60.0
"""Seconds that a caller is kept waiting for an answer."""


class Outcome(Struct):
    """What is known of a turn. `answers` are the finished ones; `asked`: the calls that people are asked about."""

    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    end: events.TurnEnd | None = None
    asked: set[str] = field(default_factory=set)


class TurnReader:
    """A reader of a session's feed that heeds one turn. `taken` is called with each event of it, in order.

    With an outbox, what finds no room there is read from the log again.
    """

    def __init__(self, feed: Feed, message_id: str, position: int, outbox: Outbox | None = None) -> None:
        self.position = self.sent = position
        self.outcome = Outcome()
        self.taken: Callable[[Item], None] = lambda _item: None
        self.written: Callable[[int], None] = lambda _seq: None
        self._feed = feed
        self._outbox = outbox
        self._message_id = message_id
        self._of_turn = {message_id}
        self._end_seq: float = inf

    def deliver(self, item: Item) -> bool:
        """Take a live event at once, or refuse it for want of room."""
        if self._outbox and not self._outbox.has_room:
            return False
        self._take(item)
        return True

    async def push(self, item: Item) -> None:
        """Take an event of the log when there is room. Raises ConnectionError when the client is gone."""
        if self._outbox:
            await self._outbox.room()
        self._take(item)

    def rewind(self) -> None:
        """There was no room: back to what was written."""
        if self._outbox:
            self._outbox.drop_frames_of([self])
        self.position = self.sent
        self._feed.follow(self)

    def lost(self) -> None:
        """Something came out of order: what is left of the turn is read again."""
        self._feed.follow(self)

    def was_sent(self, seq: int) -> None:
        """The outbox wrote the event at `seq`."""
        self.sent = seq
        self.written(seq)

    @property
    def end_seq(self) -> float:
        """Where the turn ended; infinite before."""
        return self._end_seq

    def _take(self, item: Item) -> None:
        self.position = max(self.position, item.seq)
        if not item.visible or item.seq > self._end_seq:
            return
        fields = msgspec.json.decode(item.data)
        ids = {fields[name] for name in ("reply_to", "message_id", "tool_call_id") if fields.get(name)}
        if not ids & self._of_turn:
            return
        self._of_turn |= ids  # its answers and calls; what names only them belongs to it as well
        outcome = self.outcome
        match event := events.decode(item.data):
            case events.StreamEnd(message_id=message_id):
                outcome.answers[message_id] = {"message_id": message_id, "role": "assistant", **_answer(fields)}
            case events.ToolApprovalRequest(tool_call_id=call_id):
                outcome.asked.add(call_id)
            case events.ToolApproval(tool_call_id=call_id) | events.ToolResult(tool_call_id=call_id):
                outcome.asked.discard(call_id)
            case events.TurnEnd(reply_to=self._message_id):
                outcome.end, self._end_seq = event, item.seq
        self.taken(item)


def _answer(fields: dict[str, Any]) -> dict[str, Any]:
    names = ("content", "thinking", "reply_to", "finish_reason", "timestamp", "usage")
    return {name: fields[name] for name in names if name in fields}


async def wait_for(desk: Desk, topic: Topic, message_id: str, after: int) -> Outcome:
    """What became of a message that is stored after `after`: when its turn has ended, asks a person, or time is up."""
    settled = asyncio.Event()
    feed = await desk.feeds.acquire(topic)
    reader = TurnReader(feed, message_id, after)
    await feed.catch_up(reader, upto=await last(desk.broker, topic.all))  # an approval may be decided long since

    def taken(_item: Item) -> None:
        if reader.outcome.end or reader.outcome.asked:
            settled.set()

    reader.taken = taken
    waits = [asyncio.ensure_future(event.wait()) for event in (settled, desk.stop)]
    try:
        if not (reader.outcome.end or reader.outcome.asked):
            feed.follow(reader)
            await asyncio.wait(waits, timeout=WAIT, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        feed.leave(reader)
        await desk.feeds.release(feed)
    return reader.outcome


async def stream_turn(connection: EventStream, topic: Topic, message_id: str, after: int, topics: int) -> None:
    """Have the turn's events written, and the stream ended with its `turn_end`."""
    desk, outbox = connection.desk, connection.outbox
    feed = await desk.feeds.acquire(topic)
    reader = TurnReader(feed, message_id, after, outbox)

    def taken(item: Item) -> None:
        outbox.put(SSE.event(item.data, cursor_at(desk, topics, item.seq, after).encode()), reader, item.seq)

    def written(seq: int) -> None:
        if seq >= reader.end_seq:
            connection.body.close()

    async def ended() -> None:
        feed.leave(reader)
        await desk.feeds.release(feed)

    reader.taken, reader.written = taken, written
    connection.cleanups.append(ended)
    feed.follow(reader)
