"""Feeds: every reader gets everything once and in order, or is told that it cannot."""

import json

import pytest

from broker import feed as feeding
from broker.connect import Broker, Unavailable, connect
from broker.feed import Feed, Feeds
from tests.broker.readers import TOPIC, joined, live_seq, lose, store, verifying
from tests.harness.fake_nats import FakeConnection, fake_nats
from tests.harness.proxy import Proxy
from tests.harness.wait import until
from tests.harness.wire import Message

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("impatient")]

AGENT, CALL, DELTA = TOPIC.fact("agent"), TOPIC.fact("call"), TOPIC.delta


async def test_a_reader_gets_what_was_there_and_what_comes(feed: Feed, agent: Broker) -> None:
    for subject in (AGENT, DELTA, AGENT):
        await store(agent, subject)
    reader = await joined(feed)
    late = await joined(feed, 2)
    for subject in (CALL, DELTA):
        await store(agent, subject)
    await until(lambda: reader.everything == [1, 2, 3, 4, 5])
    await until(lambda: late.everything == [3, 4, 5])


async def test_what_a_read_has_shown_already_is_not_given_again_when_it_comes_live(
    feed: Feed, agent: Broker, proxy: Proxy
) -> None:
    """A page may hold more than was asked for, and the live copies of that come later."""
    level = await joined(feed)
    await store(agent)
    await until(lambda: feed.head == 1)
    lose(proxy, 2, 3)
    for _ in range(2):
        await store(agent)
    reader = await joined(feed)
    assert reader.everything == [1, 2, 3]
    proxy.redeliver()
    await store(agent)
    await until(lambda: reader.position == level.position == 4)
    assert reader.everything == level.everything == [1, 2, 3, 4]


async def test_who_passed_a_late_live_message_is_told(feed: Feed, agent: Broker, proxy: Proxy) -> None:
    passed = await joined(feed)
    lose(proxy, 2)
    for subject in (AGENT, AGENT, DELTA):
        await store(agent, subject)
    await until(lambda: passed.everything == [1, 3])
    reader = await joined(feed)
    proxy.redeliver()
    await until(lambda: passed.times_lost)
    await store(agent, AGENT)
    await until(lambda: reader.everything == [1, 2, 3, 4])
    assert passed.everything == [1, 3]
    assert reader.times_lost == 0


async def test_a_lost_live_message_is_noticed_by_the_next_of_its_lane(feed: Feed, agent: Broker, proxy: Proxy) -> None:
    reader = await joined(feed)
    lose(proxy, 2, 3)
    for _ in range(4):
        await store(agent)
    await until(lambda: reader.everything == [1, 2, 3, 4])
    assert reader.times_lost == 0


async def test_a_lost_tail_is_noticed_by_verifying(feed: Feed, agent: Broker, proxy: Proxy) -> None:
    reader = await joined(feed)
    lose(proxy, 2, 3)
    for subject in (AGENT, AGENT, DELTA):
        await store(agent, subject)
    await until(lambda: reader.position == 1)
    await feed.verify()
    await until(lambda: reader.everything == [1, 2, 3])
    assert reader.times_lost == 0


async def test_a_lost_message_of_a_silent_feed_is_noticed_in_the_end(
    feeds: Feeds, feed: Feed, agent: Broker, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else came, so nothing calls for a look."""
    monkeypatch.setattr(feeding, "VERIFY_EVERY", 0.01)
    reader = await joined(feed)
    lose(proxy, 1)
    await store(agent)
    async with verifying(feeds):
        await until(lambda: reader.everything == [1])


async def test_who_passed_a_lost_message_is_told(feed: Feed, agent: Broker, proxy: Proxy) -> None:
    """Another lane's message was taken before anybody could know; it cannot be taken back."""
    reader = await joined(feed)
    lose(proxy, 2)
    for subject in (AGENT, AGENT, DELTA, AGENT):
        await store(agent, subject)
    await until(lambda: reader.times_lost)
    await store(agent)
    other = await joined(feed)
    assert other.everything == [1, 2, 3, 4, 5]
    assert reader.everything == [1, 3]
    assert reader.times_lost == 1


async def test_who_took_a_lost_message_from_the_log_is_not_told(feed: Feed, agent: Broker, proxy: Proxy) -> None:
    lose(proxy, 2)
    for subject in (AGENT, AGENT, DELTA):
        await store(agent, subject)
    await until(lambda: feed.head == 3)
    reader = await joined(feed)
    await store(agent, AGENT)
    await until(lambda: reader.everything == [1, 2, 3, 4])
    assert reader.times_lost == 0


async def test_two_lanes_with_losses_are_healed_without_telling_anybody(
    feed: Feed, agent: Broker, proxy: Proxy
) -> None:
    """The second lane's gap shows when the readers have long taken the missing message from the log."""
    reader = await joined(feed)
    lose(proxy, 3, 4, 5, 6)
    for subject in (AGENT, DELTA, AGENT, DELTA, AGENT, DELTA, AGENT):
        await store(agent, subject)
    await until(lambda: reader.position == 7)
    await store(agent, DELTA)
    await until(lambda: reader.everything == [1, 2, 3, 4, 5, 6, 7, 8])
    assert reader.times_lost == 0


async def test_who_passed_a_lost_message_is_told_also_when_it_reads_the_log_by_now(
    feed: Feed, agent: Broker, proxy: Proxy
) -> None:
    reader = await joined(feed, room=2)
    lose(proxy, 2)
    for subject in (AGENT, AGENT, DELTA):
        await store(agent, subject)
    await until(lambda: reader.everything == [1, 3])
    reader.send()
    for _ in range(3):
        await store(agent, DELTA)
    await until(lambda: feed.head == 6)
    await store(agent, AGENT)
    await until(lambda: reader.times_lost)
    assert reader.sent == [1, 3]


async def test_a_reader_without_room_goes_on_where_it_was(feed: Feed, agent: Broker) -> None:
    slow, quick = await joined(feed, room=2), await joined(feed)
    for _ in range(7):
        await store(agent)
    await until(lambda: quick.position == 7)
    await until(lambda: slow.everything == [1, 2])
    for expected in ([1, 2, 3, 4], [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7]):
        slow.send()
        await until(lambda: slow.everything == expected)  # noqa: B023 - awaited here
    await store(agent)
    await until(lambda: slow.everything == quick.everything == [1, 2, 3, 4, 5, 6, 7, 8])


async def test_who_leaves_while_it_is_judged_hears_nothing_more(
    feeds: Feeds, feed: Feed, agent: Broker, proxy: Proxy
) -> None:
    stays, leaves = await joined(feed), await joined(feed)
    reads: list[Message] = []

    def drop(message: Message) -> bool:
        if message.subject.startswith("_IN.edge."):
            reads.append(message)
            return True
        return live_seq(message) == 2

    proxy.drop = drop
    for subject in (AGENT, AGENT, DELTA, AGENT):
        await store(agent, subject)
    await until(lambda: reads)
    feed.leave(leaves)
    proxy.drop = lambda _message: False
    proxy.cut()
    async with verifying(feeds):
        await until(lambda: stays.times_lost)
        await store(agent)
        other = await joined(feed)
    assert other.everything == [1, 2, 3, 4, 5]
    assert leaves.everything == [1, 3]
    assert leaves.times_lost == 0


async def test_a_broken_connection_is_healed_without_telling_anybody(
    feeds: Feeds, feed: Feed, agent: Broker, proxy: Proxy
) -> None:
    reader = await joined(feed)
    async with verifying(feeds):
        for number in range(60):
            await store(agent, (AGENT, DELTA, CALL)[number % 3])
            if number % 20 == 10:
                proxy.cut()
        await until(lambda: reader.everything == list(range(1, 61)))
    assert reader.times_lost == 0


async def test_a_replica_that_is_behind_confirms_nothing() -> None:
    """The leader alone knows what is last; anybody may answer for the lanes."""
    answers = {"$JS.API.STREAM.MSG.GET.LOG": 0, "$JS.API.DIRECT.GET.LOG": 0}

    def published(connection: FakeConnection, message: Message) -> None:
        seq = answers[message.subject]
        if message.subject.startswith("$JS.API.STREAM"):
            connection.send(message.reply, json.dumps({"message": {"seq": seq}}).encode())
        else:
            if seq:
                stored = f"\r\nNats-Sequence: {seq}\r\nNats-Subject: {DELTA}"
                connection.send(message.reply, b"x", headers=stored)
            connection.send(message.reply, b"", headers=" 204 EOB\r\nNats-Num-Pending: 0")

    async with fake_nats(published) as fake:
        fake.log_info["config"] = {"max_bytes": 1, "num_replicas": 3}
        async with connect(fake.url, "edge") as broker:
            feed = Feed(broker, TOPIC)
            await feed.start()
            answers["$JS.API.STREAM.MSG.GET.LOG"] = 2
            with pytest.raises(Unavailable):
                await feed.verify()
            answers["$JS.API.DIRECT.GET.LOG"] = 2
            await feed.verify()
            assert feed.head == 2
            await feed.close()
