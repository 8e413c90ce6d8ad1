"""Feeds as they come and go, and what a reader or an event that is none may do to the others: nothing."""

import asyncio
import contextlib

import pytest

from broker.connect import Broker, Unavailable
from broker.feed import Feed, Feeds, Item
from contracts.subjects import Topic
from tests.broker.readers import TOPIC, Recorder, joined, store
from tests.harness.proxy import Proxy
from tests.harness.wait import until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("impatient")]


def subscriptions(broker: Broker) -> int:
    return len(broker.client._subs)


async def test_a_feed_that_cannot_begin_leaves_nothing_behind(
    feeds: Feeds, reading: Broker, agent: Broker, proxy: Proxy
) -> None:
    before = subscriptions(reading)
    proxy.refusing = True
    proxy.cut()
    await until(lambda: not reading.connected)
    failures = await asyncio.gather(*[feeds.acquire(TOPIC) for _ in range(3)], return_exceptions=True)
    assert all(isinstance(failure, Unavailable | TimeoutError) for failure in failures)
    assert subscriptions(reading) == before
    proxy.refusing = False
    await until(lambda: reading.connected)
    await store(agent)
    reader = await joined(await feeds.acquire(TOPIC))
    await store(agent)
    await until(lambda: reader.everything == [1, 2])


async def test_whoever_acquires_and_gives_up_leaves_nothing_behind(
    feeds: Feeds, reading: Broker, agent: Broker
) -> None:
    before = subscriptions(reading)
    topics = [Topic.session("acme", f"s{number}") for number in range(3)]

    async def come_and_go(turns: int) -> None:
        for turn in range(6):
            acquiring = asyncio.ensure_future(feeds.acquire(topics[(turns + turn) % 3]))
            for _ in range((turns * 7 + turn * 3) % 12):
                await asyncio.sleep(0)
            if not acquiring.cancel():
                await feeds.release(acquiring.result())
            with contextlib.suppress(asyncio.CancelledError):
                await acquiring

    await asyncio.gather(*[come_and_go(turns) for turns in range(40)])
    await until(lambda: subscriptions(reading) == before)
    reader = await joined(await feeds.acquire(topics[0]))
    await store(agent, topics[0].delta)
    await until(lambda: reader.everything == [1])


async def test_what_is_no_event_harms_nobody(feed: Feed, agent: Broker, reading: Broker) -> None:
    reader = await joined(feed)
    for data in (b"", b"x", b'{"type":"'):
        await store(agent, TOPIC.delta, data)
        assert not Item(1, data).visible
    await until(lambda: reader.everything == [1, 2, 3])
    assert (await joined(feed)).everything == [1, 2, 3]
    assert not reading.lost.is_set()


@pytest.mark.parametrize(("failure", "told"), [(ValueError, 1), (ConnectionError, 0)])
async def test_a_reader_that_fails_is_followed_no_more(
    failure: type[Exception], told: int, feed: Feed, agent: Broker
) -> None:
    """Where its client is gone it needs not to be told."""

    class Failing(Recorder):
        async def push(self, item: Item) -> None:
            raise failure

    await store(agent)
    await until(lambda: feed.head == 1)
    reader, other = Failing(feed), await joined(feed)
    feed.follow(reader)
    await store(agent)
    await until(lambda: other.everything == [1, 2])
    await until(lambda: reader not in feed._stays)
    assert reader.times_lost == told
    assert reader.everything == []
