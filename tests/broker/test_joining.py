"""Joining at any moment, while anything happens: everything from there on, once and in order."""

import asyncio
import random
from collections.abc import Callable

import pytest

from broker import feed as feeding
from broker.connect import Broker, Unavailable
from broker.feed import Feed, Feeds
from broker.read import last
from tests.broker.readers import STATUS, TOPIC, Recorder, live_seq, store, verifying
from tests.harness.proxy import Proxy
from tests.harness.wait import until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("impatient")]

LANES = (TOPIC.fact("agent"), TOPIC.fact("call"), TOPIC.delta)
EVENTS = 300


class Client(Recorder):
    """A reader that starts over when it is told to, at what is last then."""

    def __init__(self, feed: Feed, position: int, room: int, broker: Broker) -> None:
        super().__init__(feed, position, room)
        self._broker = broker
        self._starting: asyncio.Task[None] | None = None

    def lost(self) -> None:
        super().lost()
        self._starting = asyncio.create_task(self._start_over())

    async def _start_over(self) -> None:
        while True:
            try:
                self.start_over(await last(self._broker, TOPIC.all))
            except (Unavailable, TimeoutError):
                await asyncio.sleep(0.01)
            else:
                return

    @property
    def is_right(self) -> bool:
        """Whether it has everything from where it began to where it is."""
        return self.everything == list(range(self.start + 1, self.start + 1 + len(self.everything)))


class Crowd:
    """Readers that come, are slow, and go."""

    def __init__(self, seed: int, feeds: Feeds, reading: Broker) -> None:
        self.chance = random.Random(seed)
        self.clients: list[Client] = []
        self.gone: list[Client] = []
        self._feeds = feeds
        self._reading = reading

    @property
    def connected(self) -> bool:
        return self._reading.connected

    async def join(self) -> None:
        try:
            feed = await self._feeds.acquire(TOPIC)
        except (Unavailable, TimeoutError):
            return
        room = self.chance.choice([1, 3, 10, 1000])
        client = Client(feed, self.chance.randint(0, feed.head), room, self._reading)
        feed.follow(client)
        self.clients.append(client)

    async def leave(self) -> None:
        client = self.clients.pop(self.chance.randrange(len(self.clients)))
        client.feed.leave(client)
        self.gone.append(client)
        await self._feeds.release(client.feed)

    async def stir(self) -> None:
        """Something happens."""
        for client in self.clients:
            if self.chance.random() < 0.3:
                client.send()
        if self.chance.random() < 0.15:
            await self.join()
        if len(self.clients) > 3 and self.chance.random() < 0.05:
            await self.leave()

    async def follow_to(self, seq: int) -> None:
        """Nobody is slow any more; wait until everybody is there."""
        for client in self.clients:
            client.room = 2 * EVENTS
            client.send()
        await until(lambda: all(client.position == seq for client in self.clients), within=20)


async def _write(agent: Broker, crowd: Crowd, cut: Callable[[], None] | None = None) -> None:
    for number in range(EVENTS - 1):
        agent.publish(crowd.chance.choice(LANES), STATUS)
        if crowd.chance.random() < 0.3:
            await asyncio.sleep(crowd.chance.choice([0, 0, 0.001]))
        if cut and number % 75 == 40:
            cut()
            await asyncio.sleep(crowd.chance.choice([0, 0.01, 0.03]))
        await crowd.stir()
    await store(agent)


@pytest.fixture
def crowd(seed: int, feeds: Feeds, reading: Broker) -> Crowd:
    return Crowd(seed, feeds, reading)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("fault", ["none", "cuts"])
async def test_nobody_misses_anything_or_sees_it_twice(
    crowd: Crowd, fault: str, feeds: Feeds, agent: Broker, proxy: Proxy
) -> None:
    """Also while the edge's connection breaks, and nobody has to start over."""
    async with verifying(feeds):
        await _write(agent, crowd, proxy.cut if fault == "cuts" else None)
        await until(lambda: crowd.connected)
        await crowd.join()
        await crowd.follow_to(EVENTS)
    assert len(crowd.clients) > 3
    assert proxy.connections > 1 or fault == "none"
    for client in crowd.clients + crowd.gone:
        assert client.is_right
        assert client.times_lost == 0


@pytest.mark.parametrize("seed", range(6))
async def test_whoever_misses_something_is_told(
    crowd: Crowd, feeds: Feeds, agent: Broker, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where live messages are lost without a sign, a reader has everything, or has started over and has it since."""
    monkeypatch.setattr(feeding, "VERIFY_EVERY", 0.02)
    proxy.drop = lambda message: live_seq(message) > 0 and (not proxy.dropped or crowd.chance.random() < 0.03)
    async with verifying(feeds):
        await _write(agent, crowd)
        proxy.drop = lambda _message: False
        for subject in LANES:
            await store(agent, subject)
        await crowd.follow_to(EVENTS + len(LANES))
        for client in crowd.clients:
            await until(lambda: client.is_right)  # noqa: B023 - awaited here
    assert proxy.dropped
    assert len(crowd.clients) > 3
