"""A reader of a feed as a connection of the edge is one: it takes, it sends, it may have no room, it starts over."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from broker.client import header
from broker.connect import Broker
from broker.feed import Feed, Feeds, Item
from contracts.subjects import Topic
from tests.harness.proxy import Proxy
from tests.harness.wire import Message

TOPIC = Topic.session("acme", "s1")
STATUS = b'{"type":"agent_status"}'


async def store(broker: Broker, subject: str = TOPIC.delta, data: bytes = STATUS) -> None:
    """Store one event; its live copy is on its way when this returns."""
    await broker.request(subject, data)


def live_seq(message: Message) -> int:
    """The place of a live message, 0 for any other."""
    if not message.subject.startswith("live."):
        return 0
    return int(header(message.headers, b"Nats-Sequence") or 0)


class Recorder:
    """Takes what fits into `room`; `sent` is what went on to the client, `taken` what is still to go."""

    def __init__(self, feed: Feed, position: int = 0, room: int = 1_000_000) -> None:
        self.feed = feed
        self.position = position
        self.room = room
        self.start = position
        self.sent: list[int] = []
        self.times_lost = 0
        self._taken: list[int] = []
        self._more_room = asyncio.Event()

    @property
    def everything(self) -> list[int]:
        """What it took and kept, in order."""
        return self.sent + self._taken

    def send(self) -> None:
        """Pass on what it took: there is room again."""
        self.sent += self._taken
        self._taken.clear()
        self._more_room.set()

    def deliver(self, item: Item) -> bool:
        if len(self._taken) >= self.room:
            return False
        self._take(item)
        return True

    async def push(self, item: Item) -> None:
        while len(self._taken) >= self.room:
            self._more_room.clear()
            await self._more_room.wait()
        self._take(item)

    def rewind(self) -> None:
        self._taken.clear()
        self.position = self.sent[-1] if self.sent else self.start
        self.feed.follow(self)

    def lost(self) -> None:
        self.times_lost += 1

    def start_over(self, position: int) -> None:
        """Forget everything; take what comes after `position`."""
        self.start = self.position = position
        self.sent.clear()
        self._taken.clear()
        self.feed.follow(self)

    def _take(self, item: Item) -> None:
        self.position = item.seq
        self._taken.append(item.seq)


@asynccontextmanager
async def verifying(feeds: Feeds) -> AsyncIterator[None]:
    """Feeds that are confirmed all the time."""
    task = asyncio.create_task(feeds.verify())
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def joined(feed: Feed, position: int = 0, room: int = 1_000_000) -> Recorder:
    """A reader that is level with what is live."""
    reader = Recorder(feed, position, room)
    async with asyncio.timeout(5):
        await feed.catch_up(reader)
    return reader


def lose(proxy: Proxy, *seqs: int) -> None:
    """Keep these live messages from the edge."""
    proxy.drop = lambda message: live_seq(message) in seqs
