"""Consuming: a delivery is its holder's until it is settled, and somebody else's when the holder is gone."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from broker import connect as connecting
from broker.connect import Broker
from broker.consume import consume
from broker.delivery import Delivery
from tests.broker.conftest import Connect
from tests.broker.holders import (
    CONSUMER,
    Holders,
    ack,
    consuming,
    drop,
    is_asking,
    is_delivered,
    is_settled,
    state,
    store_messages,
    wait,
)
from tests.harness.nats_server import NatsServer
from tests.harness.proxy import Proxy
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

ACK_WAIT = 0.4


@pytest.fixture(autouse=True)
async def nats(nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> NatsServer:
    """A delivery comes again soon, and a connection too."""
    monkeypatch.setattr(connecting, "RECONNECT_WAIT", (0.01, 0.02))
    await nats.provision(ack_wait=ACK_WAIT)
    return nats


@pytest.fixture
async def other(service: Connect) -> AsyncIterator[Broker]:
    """Another agent runner's connection."""
    async with service("agent_runner") as broker:
        yield broker


def _signs_of_life(proxy: Proxy) -> int:
    return sum(message.data == b"+WPI" for message in proxy.published)


async def test_who_begins_says_so_when_deliveries_may_come(service: Connect, edge: Broker) -> None:
    begun = asyncio.Event()
    async with service("agent_runner") as broker, consuming(broker, ack, begun=begun.set) as holders:
        assert not begun.is_set()
        await begun.wait()
        await store_messages(edge)
        await until(lambda: holders.deliveries)


async def test_a_delivery_stays_with_its_holder_for_as_long_as_that_takes(
    service: Connect, proxy: Proxy, edge: Broker, other: Broker
) -> None:
    async with service("agent_runner", proxy) as broker, consuming(broker, wait) as holders:
        await store_messages(edge, 3)
        await until(lambda: len(holders.deliveries) == 3)
        async with consuming(other, wait) as others:
            await until(lambda: _signs_of_life(proxy) > 3 * 3 * 3)
            assert not others.deliveries
    assert holders.seqs == [1, 2, 3]


async def test_a_delivery_that_is_acknowledged_does_not_come_again(agent: Broker, edge: Broker) -> None:
    async with consuming(agent, ack) as holders:
        await store_messages(edge, 20)
        await until(lambda: is_settled(agent))
    assert holders.seqs == list(range(1, 21))
    assert (await state(agent))["num_redelivered"] == 0


async def test_a_delivery_that_is_dropped_comes_again(agent: Broker, edge: Broker, other: Broker) -> None:
    async with consuming(agent, drop) as holders:
        await store_messages(edge)
        await until(lambda: holders.deliveries)
    async with consuming(other, ack) as others:
        await until(lambda: others.deliveries)
        assert others.deliveries[0].delivered == 2
        await until(lambda: is_settled(other))


async def test_a_delivery_that_is_handed_over_comes_to_somebody_at_once(
    agent: Broker, edge: Broker, nats: NatsServer
) -> None:
    await nats.provision(ack_wait=600)

    async def hand_over(delivery: Delivery) -> None:
        await (delivery.nak(0.01) if delivery.delivered == 1 else delivery.ack())

    async with consuming(agent, hand_over) as holders:
        await store_messages(edge)
        await until(lambda: is_settled(agent))
    assert [delivery.delivered for delivery in holders.deliveries] == [1, 2]


async def test_a_holder_that_raises_drops_its_delivery_and_nobody_elses(agent: Broker, edge: Broker) -> None:
    async def fail_first(delivery: Delivery) -> None:
        if delivery.seq == 1 and delivery.delivered == 1:
            raise ValueError
        await delivery.ack()

    async with consuming(agent, fail_first) as holders:
        await store_messages(edge, 3)
        await until(lambda: is_settled(agent))
    assert sorted(holders.seqs) == [1, 1, 2, 3]


async def test_a_large_messageis_delivered(agent: Broker, edge: Broker) -> None:
    async with consuming(agent, ack) as holders:
        await store_messages(edge, 1, b"x" * 4_000_000)
        await until(lambda: is_settled(agent))
    assert len(holders.deliveries[0].data) == 4_000_000


async def test_whoever_is_told_to_stop_lets_go(agent: Broker, edge: Broker, other: Broker, nats: NatsServer) -> None:
    await nats.provision(ack_wait=600)
    async with consuming(agent, wait) as holders:
        await store_messages(edge, 3)
        await until(lambda: len(holders.deliveries) == 3)
    async with consuming(other, ack) as others:
        await until(lambda: is_settled(other))
    assert sorted(others.seqs) == [1, 2, 3]


async def test_what_is_on_its_way_at_a_stop_is_handed_over(
    service: Connect, proxy: Proxy, edge: Broker, other: Broker, nats: NatsServer
) -> None:
    """Dropped, it would come again only after `ack_wait`."""
    await nats.provision(ack_wait=600)
    async with service("agent_runner", proxy) as broker, consuming(broker, wait) as holders:
        await until(lambda: is_asking(broker))
        proxy.freeze(up=False)
        await store_messages(edge, 20)
        await until(lambda: is_delivered(other))
        holders.stop.set()
        await until(lambda: proxy.unsubscribed)
        proxy.thaw()
        async with consuming(other, ack) as others:
            await until(lambda: is_settled(other))
    assert sorted(others.seqs) == list(range(1, 21))


async def test_a_stop_is_heeded_while_the_broker_is_away(agent: Broker, nats: NatsServer) -> None:
    await nats.kill()
    await until(lambda: not agent.connected)
    stop = asyncio.Event()
    consumed = asyncio.create_task(consume(agent, CONSUMER, drop, stop))
    await asyncio.sleep(0)
    stop.set()
    async with asyncio.timeout(5):
        await consumed


async def test_what_a_cancelled_process_held_comes_to_another(agent: Broker, edge: Broker, other: Broker) -> None:
    """FACTS P13: cancelling loses nothing for good, and leaves nothing behind that still takes deliveries."""
    holders = Holders(wait)
    consumed = asyncio.create_task(consume(agent, CONSUMER, holders.hold, holders.stop))
    await store_messages(edge, 3)
    await until(lambda: len(holders.deliveries) == 3)
    consumed.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await consumed
    async with consuming(other, ack) as others:
        await store_messages(edge, 3)
        await until(lambda: is_settled(other))
    assert sorted(others.seqs) == [1, 2, 3, 4, 5, 6]
    assert not agent.lost.is_set()


async def test_a_pull_that_still_stands_from_before_a_reconnect_adds_nothing(
    service: Connect, proxy: Proxy, edge: Broker
) -> None:
    async with service("agent_runner", proxy) as broker, consuming(broker, wait, most=2) as holders:
        await until(lambda: is_asking(broker))
        for number in range(2, 5):
            proxy.cut()
            await until(lambda: proxy.connections >= number and broker.connected)  # noqa: B023 - awaited here
            await until(lambda: is_asking(broker))
        await store_messages(edge, 8)
        await until(lambda: len(holders.deliveries) == 2)
        await until(lambda: _signs_of_life(proxy) > 8)
        assert holders.most_at_once == 2


async def test_two_holders_of_one_message_may_both_acknowledge_it(
    service: Connect, proxy: Proxy, edge: Broker, other: Broker
) -> None:
    """FACTS 1.5: an acknowledgement is no fence; what decides is the log."""
    go = asyncio.Event()

    async def wait_and_ack(delivery: Delivery) -> None:
        await go.wait()
        await delivery.ack()

    async with service("agent_runner", proxy) as broker, consuming(broker, wait_and_ack) as holders:
        await store_messages(edge)
        await until(lambda: holders.deliveries)
        proxy.freeze()
        async with consuming(other, wait_and_ack) as others:
            await until(lambda: others.deliveries)
            go.set()
            proxy.thaw()
            await until(lambda: is_settled(other))
    assert others.deliveries[0].delivered > 1
    assert set(others.seqs) == set(holders.seqs) == {1}


async def test_what_comes_again_to_who_has_it_still_gets_no_second_holder(
    service: Connect, proxy: Proxy, edge: Broker
) -> None:
    go = asyncio.Event()

    async def wait_and_ack(delivery: Delivery) -> None:
        await go.wait()
        await delivery.ack()

    async with service("agent_runner", proxy) as broker, consuming(broker, wait_and_ack) as holders:
        await store_messages(edge)
        await until(lambda: holders.deliveries)
        proxy.freeze(down=False)
        await until(lambda: holders.deliveries[0].delivered > 1)
        proxy.thaw()
        go.set()
        await until(lambda: is_settled(broker))
    assert holders.seqs == [1]


async def test_what_came_while_the_process_slept_is_left_to_others(
    service: Connect, proxy: Proxy, edge: Broker, other: Broker
) -> None:
    """Paused for longer than `ack_wait`, it finds what somebody else has by now; what comes then is its own."""
    async with service("agent_runner", proxy) as broker, consuming(broker, ack, most=1) as holders:
        await store_messages(edge)
        await until(lambda: is_settled(broker))
        await until(lambda: is_asking(broker))
        proxy.freeze(up=False)
        await store_messages(edge)  # it is on its way
        time.sleep(1.5 * ACK_WAIT)  # noqa: ASYNC251 - the whole process sleeps
        await store_messages(edge)
        proxy.thaw()
        await until(lambda: is_settled(other))
    assert sorted((delivery.seq, delivery.delivered) for delivery in holders.deliveries) == [(1, 1), (2, 2), (3, 1)]


async def test_none_of_many_messages_is_lost_on_a_bad_line(service: Connect, proxy: Proxy, edge: Broker) -> None:
    async with AsyncExitStack() as stack:
        processes = []
        for _ in range(2):
            broker = await stack.enter_async_context(service("agent_runner", proxy))
            processes.append(await stack.enter_async_context(consuming(broker, ack)))
        for number in range(200):
            edge.publish("log.acme.session.s1.fact.message", b"x")
            if number % 25 == 20:
                await until(lambda: proxy.connections > number // 25)  # noqa: B023 - awaited here
                proxy.cut()
        await until(lambda: {seq for holders in processes for seq in holders.seqs} == set(range(1, 201)))
        await until(lambda: broker.connected)
        await until(lambda: is_settled(broker), within=10)
