"""Feed: one topic's events as they are stored, followed once for all who read it, with nothing missing.

Joining: subscribe live; ask the leader for the topic's last sequence on the same connection, which is the barrier;
read the log in pages up to the feed's head; and when a reader is level with the head, hand it what comes live.
A live message names its predecessor on its subject: a gap shows at once, and the readers go back to the log. A
lost tail has no successor to show it, so every few seconds of traffic, after each reconnect, and every minute of
silence one request confirms the last sequence of every lane. The log is the buffer: nothing is kept for a reader.
"""

import asyncio
import logging
from collections.abc import Callable
from itertools import count

from nats.aio.subscription import Subscription

from broker.client import header
from broker.connect import Broker, Unavailable
from broker.read import last, last_of_each, read
from broker.reader import Item, Reader, Span, Stay
from contracts.subjects import Topic

__all__ = ["Feed", "Feeds", "Item", "Reader"]

logger = logging.getLogger(__name__)

VERIFY_EVERY = 5.0
RETRY = 0.1
SETTLE = 0.05
"""Seconds that a live copy may come after a read has already shown its message."""

SILENT_ROUNDS = 12
"""A feed without traffic is confirmed in one of so many rounds."""

FACT = b".fact."
TYPING = b".typing"

AT_ONCE = 64
"""Feeds that are confirmed at the same time."""


class Feed:
    """One topic. `head` is the last sequence that came live, or that the leader named when the feed began."""

    def __init__(self, broker: Broker, topic: Topic) -> None:
        self.topic = topic
        self.head = 0
        self.users = 0
        self.busy = False
        self.last_fact: int | None = None
        """The last fact that came live, where nothing is known to be missing: a guess at what is last now."""
        self.facts_seen = 0
        """How many facts came live."""
        self.asides: set[Callable[[bytes], None]] = set()
        """Called with what is told to the topic's followers and is not stored. Must not raise."""
        self._broker = broker
        self._base: int | None = None
        self._lanes: dict[bytes, int] = {}
        self._stays: dict[Reader, Stay] = {}
        self._live: dict[Reader, Stay] = {}
        self._subscription: Subscription | None = None
        self._started: asyncio.Task[None] | None = None
        self._judging: set[asyncio.Task[None]] = set()
        self._steady = asyncio.Event()
        self._steady.set()

    async def start(self) -> None:
        """Begin to follow, once. Raises Unavailable or TimeoutError while the broker is away; may be tried again."""
        started = self._started
        if started is None or (started.done() and started.exception()):
            started = self._started = asyncio.create_task(self._start(), name=f"feed-{self.topic.id}")
            started.add_done_callback(lambda done: done.cancelled() or done.exception())  # somebody may not wait
        await asyncio.shield(started)

    async def _start(self) -> None:
        if self._subscription is None:
            self._subscription = await self._broker.subscribe(self.topic.live, self._arrived)
        base = await last(self._broker, self.topic.all)
        self._base = base
        self.head = max(self.head, base)
        self._steady.set()
        for reader, stay in tuple(self._stays.items()):
            if not (stay.is_live or stay.task):
                self.follow(reader)

    async def close(self) -> None:
        """Stop following."""
        for reader in tuple(self._stays):
            self.leave(reader)
        for task in (self._started, *self._judging):
            if task:
                task.cancel()
        if self._subscription:
            await self._broker.unsubscribe(self._subscription)

    def leave(self, reader: Reader) -> None:
        """The reader gets nothing more."""
        self._live.pop(reader, None)
        stay = self._stays.pop(reader, None)
        if stay and stay.task:
            stay.task.cancel()

    async def catch_up(self, reader: Reader, upto: int | None = None) -> None:
        """Give the reader what the log holds after its position; without `upto`, until it is level with live.

        From then on it is given what comes live. Waits for room, for a replica that is behind, and for the broker.
        """
        while True:
            while reader.position < (target := self.head if upto is None else upto):
                try:
                    async for records in read(self._broker, self.topic.all, reader.position, target):
                        for record in records:
                            await reader.push(Item(record.seq, record.data))
                    reader.position = max(reader.position, target)  # what was not there has faded
                except (Unavailable, TimeoutError):
                    await asyncio.sleep(RETRY)
            if upto is not None or self._steady.is_set():
                break
            await self._steady.wait()
        if upto is None:
            stay = self._live[reader] = self._stays.setdefault(reader, Stay())
            stay.go_live(reader.position)

    def interrupted(self) -> None:
        """The connection broke: what comes live next may come without what was before it. `verify` begins anew."""
        self._steady.clear()
        self.last_fact = None
        for reader in tuple(self._live):
            self._to_the_log(reader)

    def _arrived(self, subject: bytes, _reply: bytes, data: bytes, headers: bytes) -> None:
        if subject.endswith(TYPING):
            for heard in tuple(self.asides):
                heard(data)
            return
        seq = int(header(headers, b"Nats-Sequence") or 0)
        before = int(header(headers, b"Nats-Last-Sequence") or 0)
        covered = self._covered(subject)
        if seq <= covered:
            return
        self._lanes[subject] = seq
        self.busy = True
        if FACT in subject:
            self.last_fact = seq
            self.facts_seen += 1
        if self._base is not None and (seq < self.head or before > covered):
            self._gap(subject, covered, seq if seq < self.head else before)
        self.head = max(self.head, seq)
        if not self._live:
            return
        item = Item(seq, data)
        for reader in tuple(self._live):
            if reader.position < seq and reader in self._live and not reader.deliver(item):
                reader.rewind()

    def _covered(self, live_subject: bytes) -> int:
        return max(self._base or 0, self._lanes.get(live_subject, 0))

    def follow(self, reader: Reader) -> None:
        """Give the reader what the log holds after its position, in the background, then what comes live."""
        stay = self._to_the_log(reader)
        if stay.task:
            stay.task.cancel()
        task = stay.task = asyncio.create_task(self.catch_up(reader), name=f"catch-up-{self.topic.id}")
        task.add_done_callback(lambda done: self._followed(reader, stay, done))

    def _followed(self, reader: Reader, stay: Stay, done: asyncio.Task[None]) -> None:
        if stay.task is not done:
            return  # it left, or follows anew
        stay.task = None
        if done.cancelled() or not (error := done.exception()):
            return
        self.leave(reader)
        if not isinstance(error, ConnectionError):
            logger.error("a reader failed", exc_info=error, extra={"topic": self.topic.id})
            reader.lost()

    def _to_the_log(self, reader: Reader) -> Stay:
        self._live.pop(reader, None)
        stay = self._stays.setdefault(reader, Stay())
        stay.go_back(reader.position)
        return stay

    def _gap(self, lane: bytes, covered: int, upto: int) -> None:
        """Something of a lane after `covered` and up to `upto` did not come live: back to the log.

        Who took something live in between may have passed it: that is judged when it is known what was missed.
        """
        logger.warning("a live message was missed", extra={"topic": self.topic.id, "covered": covered})
        self.last_fact = None
        doubtful: dict[Reader, tuple[Stay, list[Span]]] = {}
        for reader, stay in tuple(self._stays.items()):
            if spans := stay.taken_live(reader.position, covered, upto):
                doubtful[reader] = (stay, spans)
            if stay.is_live:
                self._to_the_log(reader)
                if not spans:
                    self.follow(reader)
        if doubtful:
            subject = lane.decode().replace("live.", "log.", 1)
            task = asyncio.create_task(self._judge(doubtful, subject, covered, upto), name=f"judge-{self.topic.id}")
            self._judging.add(task)
            task.add_done_callback(self._judging.discard)

    async def _judge(
        self, doubtful: dict[Reader, tuple[Stay, list[Span]]], subject: str, covered: int, upto: int
    ) -> None:
        missed = await self._sequences(subject, covered, upto)
        for reader, (stay, spans) in doubtful.items():
            if self._stays.get(reader) is not stay:
                continue  # it left
            if any(low < seq <= high for low, high in spans for seq in missed):
                self.leave(reader)
                reader.lost()
            elif not (stay.is_live or stay.task):
                self.follow(reader)

    async def _sequences(self, subject: str, after: int, upto: int) -> list[int]:
        while True:
            try:
                pages = [records async for records in read(self._broker, subject, after, upto)]
            except (Unavailable, TimeoutError):
                await asyncio.sleep(RETRY)
            else:
                return [record.seq for records in pages for record in records]

    async def verify(self) -> None:
        """Confirm that every lane's last message came. Raises Unavailable or TimeoutError."""
        if self._base is None:
            return
        if not self._steady.is_set():
            await self._start()
        self.busy = False
        tip = await last(self._broker, self.topic.all) if self._broker.is_replicated else 0
        records = await last_of_each(self._broker, self.topic.all)
        confirmed = max((record.seq for record in records), default=0)
        if confirmed < tip:
            raise Unavailable("a replica is behind")
        lanes = {_live(record.subject): record.seq for record in records}
        if any(seq > self._covered(lane) for lane, seq in lanes.items()):
            await asyncio.sleep(SETTLE)
        for lane, seq in lanes.items():
            covered = self._covered(lane)
            if seq > covered:
                self._lanes[lane] = seq
                self._gap(lane, covered, seq)
                self.head = max(self.head, seq)
        for stay in self._stays.values():
            stay.confirm(confirmed)


def _live(subject: str) -> bytes:
    return subject.replace("log.", "live.", 1).encode()


class Feeds:
    """The feeds of a process: one a topic, as long as somebody reads it."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._feeds: dict[Topic, Feed] = {}
        self._all = asyncio.Event()
        broker.interrupted.append(self._interrupted)
        broker.reconnected.append(self._all.set)

    def _interrupted(self) -> None:
        for feed in self._feeds.values():
            feed.interrupted()

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
        for number in count():
            try:
                async with asyncio.timeout(VERIFY_EVERY):
                    await self._all.wait()
            except TimeoutError:
                pass
            every = self._all.is_set()
            self._all.clear()
            due = [
                feed
                for place, feed in enumerate(self._feeds.values())
                if every or feed.busy or (place + number) % SILENT_ROUNDS == 0
            ]
            for start in range(0, len(due), AT_ONCE):
                if not all(await asyncio.gather(*map(_verified, due[start : start + AT_ONCE]))):
                    self._all.set()
                    await asyncio.sleep(RETRY)
                    break


async def _verified(feed: Feed) -> bool:
    try:
        await feed.verify()
    except (Unavailable, TimeoutError):
        return False
    return True
