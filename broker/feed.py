"""Feed: one topic's events as they are stored, followed once for all who read it, with nothing missing.

Joining: subscribe live; ask the leader for the topic's last sequence on the same connection, which is the barrier;
read the log in pages up to the feed's head; and when a reader is level with the head, hand it what comes live.
A live message names its predecessor on its subject: a gap shows at once, and the readers go back to the log. A
lost tail has no successor to show it, so every few seconds of traffic, and after each reconnect, one request confirms
the last sequence of every lane. The log is the buffer: nothing is kept for a reader here.
"""

import asyncio
import logging
from typing import Protocol

from nats.aio.subscription import Subscription

from broker.client import header
from broker.connect import Broker, Unavailable
from broker.read import last, last_of_each, page, read
from contracts import events
from contracts.subjects import Topic

logger = logging.getLogger(__name__)

VERIFY_EVERY = 5.0
RETRY = 0.1
SETTLE = 0.05
"""Seconds that a live copy may come after a read has already shown its message."""


class Item:
    """One stored event. `visible`: clients receive it. `frames` is the readers' to share what they make of it."""

    __slots__ = ("data", "frames", "seq", "visible")

    def __init__(self, seq: int, data: bytes) -> None:
        self.seq = seq
        self.data = data
        self.visible = data.startswith(b'{"type":"stream_delta"') or events.type_of(data) not in events.INTERNAL
        self.frames: dict[tuple[str, str], bytes] = {}


class Reader(Protocol):
    """Somebody who reads a feed. `position`: the last sequence taken."""

    position: int

    def deliver(self, item: Item) -> bool:
        """Take a live event, at once; False where there is no room: the reader goes back to the log."""

    async def push(self, item: Item) -> None:
        """Take an event from the log, waiting for room."""

    def rewind(self) -> None:
        """There was no room: set `position` back to what was sent, and have the feed followed from there."""

    def lost(self) -> None:
        """Something between what was taken cannot be given in order any more: start over. It is not followed."""


class Feed:
    """One topic. `head` is the last sequence that came live, or that the leader named when the feed began."""

    def __init__(self, broker: Broker, topic: Topic) -> None:
        self.topic = topic
        self.head = 0
        self.users = 0
        self.busy = False
        self._broker = broker
        self._base: int | None = None
        self._lanes: dict[bytes, int] = {}
        self._live: set[Reader] = set()
        self._subscription: Subscription | None = None
        self._started: asyncio.Task[None] | None = None
        self._following: dict[Reader, asyncio.Task[None]] = {}
        self._resuming: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to follow, once. Raises Unavailable or TimeoutError while the broker is away; may be tried again."""
        if self._started is None or (self._started.done() and self._started.exception()):
            self._started = asyncio.create_task(self._start(), name=f"feed-{self.topic.id}")
        await asyncio.shield(self._started)

    async def _start(self) -> None:
        if self._subscription is None:
            self._subscription = await self._broker.subscribe(self.topic.live, self._arrived)
        base = await last(self._broker, self.topic.all)
        self._base = base
        self.head = max(self.head, base)

    async def close(self) -> None:
        """Stop following."""
        for task in (*self._following.values(), *self._resuming):
            task.cancel()
        if self._subscription:
            await self._broker.unsubscribe(self._subscription)

    def leave(self, reader: Reader) -> None:
        """The reader gets nothing more."""
        self._live.discard(reader)
        if task := self._following.pop(reader, None):
            task.cancel()

    async def catch_up(self, reader: Reader, upto: int | None = None) -> None:
        """Give the reader what the log holds after its position; without `upto`, until it is level with live.

        From then on it is given what comes live. Waits for room, for a replica that is behind, and for the broker.
        """
        while reader.position < (target := self.head if upto is None else upto):
            try:
                async for records in read(self._broker, self.topic.all, reader.position, target):
                    for record in records:
                        await reader.push(Item(record.seq, record.data))
                reader.position = max(reader.position, target)  # what was not there has faded
            except (Unavailable, TimeoutError):
                await asyncio.sleep(RETRY)
        if upto is None:
            self._live.add(reader)

    def _arrived(self, subject: bytes, _reply: bytes, data: bytes, headers: bytes) -> None:
        seq = int(header(headers, b"Nats-Sequence") or 0)
        before = int(header(headers, b"Nats-Last-Sequence") or 0)
        covered = self._covered(subject)
        if seq <= covered:
            return
        self._lanes[subject] = seq
        self.busy = True
        if self._base is not None and (seq < self.head or before > covered):
            self._gap(covered, subject)
        self.head = max(self.head, seq)
        if not self._live:
            return
        item = Item(seq, data)
        for reader in tuple(self._live):
            if not reader.deliver(item):
                reader.rewind()

    def _covered(self, live_subject: bytes) -> int:
        return max(self._base or 0, self._lanes.get(live_subject, 0))

    def follow(self, reader: Reader) -> None:
        """Give the reader what the log holds after its position, in the background, then what comes live."""
        self.leave(reader)
        task = asyncio.create_task(self.catch_up(reader), name=f"catch-up-{self.topic.id}")
        self._following[reader] = task
        task.add_done_callback(lambda done: self._followed(reader, done))

    def _followed(self, reader: Reader, done: asyncio.Task[None]) -> None:
        if self._following.get(reader) is done:
            del self._following[reader]
        if not done.cancelled() and (error := done.exception()) and not isinstance(error, ConnectionError):
            logger.error("a reader failed", exc_info=error, extra={"topic": self.topic.id})

    def _gap(self, covered: int, subject: bytes) -> None:
        """Something of `subject` after `covered` did not come live: back to the log, whoever is not past it."""
        logger.warning("a live message was missed", extra={"topic": self.topic.id, "covered": covered})
        readers, self._live = self._live, set()
        resume = self._resume(readers, covered, subject.decode().replace("live.", "log.", 1))
        task = asyncio.create_task(resume, name=f"resume-{self.topic.id}")
        self._resuming.add(task)
        task.add_done_callback(self._resuming.discard)

    async def _resume(self, readers: set[Reader], covered: int, subject: str) -> None:
        while True:
            try:
                records, _ = await page(self._broker, subject, covered, messages=1)
                break
            except (Unavailable, TimeoutError):
                await asyncio.sleep(RETRY)
        missing = records[0].seq if records else self.head + 1
        for reader in readers:
            if reader.position >= missing:
                reader.lost()
            else:
                self.follow(reader)

    async def verify(self) -> None:
        """Confirm that every lane's last message came. Raises Unavailable or TimeoutError."""
        self.busy = False
        for final in (False, True):
            missed = [
                record
                for record in await last_of_each(self._broker, self.topic.all)
                if record.seq > self._covered(_live(record.subject))
            ]
            if not missed:
                return
            if not final:
                await asyncio.sleep(SETTLE)
        for record in missed:
            lane = _live(record.subject)
            covered = self._covered(lane)
            if record.seq > covered:
                self._lanes[lane] = record.seq
                self._gap(covered, lane)
                self.head = max(self.head, record.seq)


def _live(subject: str) -> bytes:
    return subject.replace("log.", "live.", 1).encode()


class Feeds:
    """The feeds of a process: one a topic, as long as somebody reads it."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._feeds: dict[Topic, Feed] = {}
        self._all = asyncio.Event()
        broker.reconnected.append(self._all.set)

    async def acquire(self, topic: Topic) -> Feed:
        """The topic's feed, started. Give it back with `release`."""
        feed = self._feeds.get(topic)
        if feed is None:
            feed = self._feeds[topic] = Feed(self._broker, topic)
        feed.users += 1
        try:
            await feed.start()
        except BaseException:
            await self.release(feed)
            raise
        return feed

    async def release(self, feed: Feed) -> None:
        """Give a feed back; the last one ends it."""
        feed.users -= 1
        if feed.users == 0:
            del self._feeds[feed.topic]
            await feed.close()

    async def verify(self) -> None:
        """Confirm the feeds that had traffic every few seconds, and all of them after a reconnect. Runs for ever."""
        while True:
            try:
                async with asyncio.timeout(VERIFY_EVERY):
                    await self._all.wait()
            except TimeoutError:
                pass
            every = self._all.is_set()
            self._all.clear()
            for feed in tuple(self._feeds.values()):
                if every or feed.busy:
                    try:
                        await feed.verify()
                    except (Unavailable, TimeoutError):
                        self._all.set()
                        await asyncio.sleep(RETRY)
