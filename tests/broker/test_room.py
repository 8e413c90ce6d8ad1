"""Room: how many work at once in a process with a limit, beside those that only wait."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from broker.connect import Broker
from broker.delivery import Delivery
from tests.broker.conftest import Connect
from tests.broker.holders import ack, consuming, is_asking, is_delivered, is_settled, store_messages, wait
from tests.harness.nats_server import NatsServer
from tests.harness.proxy import Proxy
from tests.harness.wait import until

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
async def nats(nats: NatsServer) -> NatsServer:
    """What is dropped, instead of handed over, does not come again."""
    await nats.provision(ack_wait=600)
    return nats


@pytest.fixture
async def other(service: Connect) -> AsyncIterator[Broker]:
    """Another agent runner's connection."""
    async with service("agent_runner") as broker:
        yield broker


class Resting:
    """Holders that rest until they are told to go on, and then work until they are told to stop."""

    def __init__(self) -> None:
        self.resting: dict[int, asyncio.Event] = {}
        self.working: list[int] = []

    async def hold(self, delivery: Delivery) -> None:
        """Rest, go on, and work."""
        delivery.rest(True)
        told = self.resting[delivery.seq] = asyncio.Event()
        if not delivery.stopping:
            await told.wait()
        await delivery.go_on()
        if not delivery.stopping:
            self.working.append(delivery.seq)
        await wait(delivery)


async def test_at_most_that_many_are_held_at_once(agent: Broker, edge: Broker) -> None:
    waiting: list[asyncio.Event] = []

    async def wait_and_ack(delivery: Delivery) -> None:
        waiting.append(asyncio.Event())
        await waiting[-1].wait()
        await delivery.ack()

    async with consuming(agent, wait_and_ack, most=3) as holders:
        await store_messages(edge, 20)
        for number in range(20):
            await until(lambda: len(waiting) > number)  # noqa: B023 - awaited here
            waiting[number].set()
        await until(lambda: is_settled(agent))
    assert holders.most_at_once == 3
    assert sorted(holders.seqs) == list(range(1, 21))


async def test_who_only_waits_is_not_counted_and_goes_on_where_there_is_room(
    agent: Broker, edge: Broker, other: Broker
) -> None:
    """Our choice: a turn that waits for a person keeps nobody from computing; of three that go on, one may."""
    own = Resting()
    async with consuming(agent, own.hold, most=1) as holders:
        await store_messages(edge, 3)
        await until(lambda: len(own.resting) == 3)
        await until(lambda: is_asking(agent))
        for told in own.resting.values():
            told.set()
        async with consuming(other, wait, most=1) as others:
            await until(lambda: others.deliveries)
            async with consuming(agent, ack) as third:
                await until(lambda: third.deliveries)
        assert len(own.working) == 1
        assert sorted(holders.seqs) == [1, 2, 3]
        assert {*own.working, others.seqs[0], third.seqs[0]} == {1, 2, 3}


async def test_nothing_new_comes_to_who_goes_on(agent: Broker, edge: Broker, other: Broker) -> None:
    """What came to a process that computes, over a request made before, would lie there."""
    own = Resting()
    async with consuming(agent, own.hold, most=1) as holders:
        await store_messages(edge)
        await until(lambda: own.resting)
        await until(lambda: is_asking(agent))
        own.resting[1].set()
        await until(lambda: own.working)
        await store_messages(edge)
        async with consuming(other, wait, most=1) as others:
            await until(lambda: others.deliveries)
    assert (holders.seqs, others.seqs, others.deliveries[0].delivered) == ([1], [2], 1)


async def test_who_goes_on_is_let_when_the_process_stops(agent: Broker, edge: Broker, other: Broker) -> None:
    own = Resting()
    async with consuming(agent, own.hold, most=1) as holders:
        await store_messages(edge)
        await until(lambda: own.resting)
        holders.stop.set()
        own.resting[1].set()
        async with consuming(other, ack) as others:
            await until(lambda: is_settled(other))
    assert others.seqs == [1]


async def test_a_stop_hands_over_what_is_on_its_way_over_a_request_that_is_recalled(
    service: Connect, proxy: Proxy, edge: Broker, other: Broker
) -> None:
    """Dropped, it would come again only after `ack_wait`."""
    own = Resting()
    async with service("agent_runner", proxy) as broker, consuming(broker, own.hold, most=1) as holders:
        await store_messages(edge)
        await until(lambda: own.resting)
        await until(lambda: is_asking(broker))
        proxy.freeze(up=False)
        await store_messages(edge)
        await until(lambda: is_delivered(other))
        own.resting[1].set()
        await until(lambda: proxy.unsubscribed)
        holders.stop.set()
        await asyncio.sleep(0)  # it is heeded before anything comes
        proxy.thaw()
        async with consuming(other, ack) as others:
            await until(lambda: is_settled(other))
    assert sorted(others.seqs) == [1, 2]


async def test_there_is_room_when_one_rests(agent: Broker, edge: Broker) -> None:
    async def asks_no_more() -> bool:
        return not await is_asking(agent)

    async def rest_when_nothing_is_asked_for(delivery: Delivery) -> None:
        await until(asks_no_more)
        delivery.rest(True)
        await wait(delivery)

    async with consuming(agent, rest_when_nothing_is_asked_for, most=1) as holders:
        await store_messages(edge, 5)
        await until(lambda: holders.most_at_once == 5)
