"""Reading: a page may end early, but what is read never has a hole."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest

from broker import read as reading
from broker.append import Append, append
from broker.connect import Broker, Unavailable, connect
from broker.read import Record, last, last_of_each, page, read
from contracts.subjects import Topic
from tests.broker.conftest import Connect
from tests.harness.fake_nats import FakeConnection, FakeNats, fake_nats
from tests.harness.nats_server import NatsServer
from tests.harness.proxy import Proxy
from tests.harness.wait import until
from tests.harness.wire import Message

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("impatient")]

TOPIC = Topic.session("acme", "s1")
GET = "$JS.API.DIRECT.GET.LOG"
LAST = "$JS.API.STREAM.MSG.GET.LOG"


async def _read(broker: Broker, upto: int | None = None) -> list[Record]:
    return [record async for records in read(broker, TOPIC.all, 0, upto) for record in records]


async def _fill(broker: Broker, number: int, data: bytes = b"x") -> None:
    for _ in range(number - 1):
        broker.publish(TOPIC.delta, data)
    await broker.request(TOPIC.delta, data)


class Replica:
    """A fake broker that answers reads as a test says."""

    def __init__(self, fake: FakeNats, broker: Broker) -> None:
        self.fake = fake
        self.broker = broker
        self.last = 0
        self.on_get: Callable[[FakeConnection, Message], None]
        fake.on_publish = self._answer

    def _answer(self, connection: FakeConnection, message: Message) -> None:
        if message.subject == LAST:
            connection.send(message.reply, json.dumps({"message": {"seq": self.last}}).encode())
        elif message.subject == GET:
            self.on_get(connection, message)

    @staticmethod
    def send(connection: FakeConnection, reply: str, *seqs: int, end: bool = True) -> None:
        """Records, and the end of the batch."""
        for seq in seqs:
            stored = f"\r\nNats-Sequence: {seq}\r\nNats-Subject: {TOPIC.delta}"
            connection.send(reply, b"x", headers=stored)
        if end:
            connection.send(reply, b"", headers=" 204 EOB\r\nNats-Num-Pending: 0" if seqs else " 404 Not Found")


@pytest.fixture
async def replica() -> AsyncIterator[Replica]:
    async with fake_nats() as fake, connect(fake.url, "edge") as broker:
        yield Replica(fake, broker)


async def test_a_page_that_breaks_off_has_no_hole(replica: Replica) -> None:
    """What the broker still sends to the old reply subject comes over the new connection, behind what was lost."""
    replies: list[str] = []

    def break_off(connection: FakeConnection, message: Message) -> None:
        replies.append(message.reply)
        replica.send(connection, message.reply, 1, 2, 3, end=False)

    replica.on_get = break_off
    reconnected = asyncio.Event()
    replica.broker.reconnected.append(reconnected.set)
    asked = asyncio.create_task(page(replica.broker, TOPIC.all, 0))
    await until(lambda: replies)
    await replica.broker.look_at_log()
    replica.fake.connections[0].reset()
    await reconnected.wait()
    replica.send(replica.fake.connections[1], replies[0], 6, 7)
    records, more = await asked
    assert [record.seq for record in records] == [1, 2, 3]
    assert more


async def test_a_page_of_which_nothing_came_fails_with_the_connection(replica: Replica) -> None:
    replica.on_get = lambda connection, _message: connection.reset()
    with pytest.raises(TimeoutError):
        await page(replica.broker, TOPIC.all, 0)


async def test_the_last_of_each_lane_is_not_taken_for_complete_when_it_breaks_off(replica: Replica) -> None:
    """It is what tells a reader that nothing is missing."""

    def break_off(connection: FakeConnection, message: Message) -> None:
        replica.send(connection, message.reply, 1, end=False)
        asyncio.get_running_loop().call_later(0.01, connection.reset)

    replica.on_get = break_off
    with pytest.raises(TimeoutError):
        await last_of_each(replica.broker, TOPIC.all)


async def test_a_replica_that_is_behind_is_waited_for(replica: Replica) -> None:
    """FACTS 1.2: any replica may answer; the leader alone knows what is last."""
    answers = iter([(), (), (1,), (), (2, 3)])
    replica.last = 3
    replica.on_get = lambda connection, message: replica.send(connection, message.reply, *next(answers))
    assert [record.seq for record in await _read(replica.broker)] == [1, 2, 3]


async def test_a_refused_read_is_unavailable(replica: Replica) -> None:
    replica.on_get = lambda connection, message: connection.send(message.reply, b"", headers=" 408 Bad Request")
    with pytest.raises(Unavailable):
        await page(replica.broker, TOPIC.all, 0)


async def test_every_page_follows_the_one_before(agent: Broker) -> None:
    await _fill(agent, 2 * reading.PAGE_MESSAGES + 10)
    assert [record.seq for record in await _read(agent)] == list(range(1, 2 * reading.PAGE_MESSAGES + 11))


async def test_a_message_that_is_larger_than_a_page_is_read(agent: Broker) -> None:
    await _fill(agent, 3, b"x" * (3 * reading.PAGE_BYTES))
    assert [len(record.data) for record in await _read(agent)] == [3 * reading.PAGE_BYTES] * 3


async def test_what_has_faded_is_not_waited_for(agent: Broker, nats: NatsServer) -> None:
    await append(agent, Append(TOPIC.fact("agent"), b"fact", "id"))
    await _fill(agent, 5)
    provisioner = await nats.client("provisioner")
    faded = json.dumps({"filter": TOPIC.delta}).encode()
    assert json.loads((await provisioner.request("$JS.API.STREAM.PURGE.LOG", faded)).data)["success"]
    await provisioner.close()
    assert [record.seq for record in await _read(agent, upto=6)] == [1]
    assert await last(agent, TOPIC.all) == 1


async def test_what_is_stored_meanwhile_may_be_read_too(agent: Broker) -> None:
    await _fill(agent, 3)
    upto = await last(agent, TOPIC.all)
    await _fill(agent, 3)
    assert [record.seq for record in await _read(agent, upto)] == [1, 2, 3, 4, 5, 6]


async def test_another_topic_is_not_read(agent: Broker) -> None:
    await append(agent, Append(Topic.session("acme", "s10").delta, b"other", "id"))
    assert await last(agent, TOPIC.all) == 0
    assert await _read(agent) == []


async def test_a_read_that_is_cut_off_again_and_again_gets_to_its_end(service: Connect, proxy: Proxy) -> None:
    async with service("agent_runner", proxy) as broker:
        await _fill(broker, 40, b"x" * 100_000)
        chance = iter(range(10_000))

        def drop(message: Message) -> bool:
            if len(message.data) == 100_000 and next(chance) % 7 == 6:
                proxy.cut()
                return True
            return False

        proxy.drop = drop
        seqs: list[int] = []
        while len(seqs) < 40:
            try:
                async for records in read(broker, TOPIC.all, seqs[-1] if seqs else 0, 40):
                    seqs += [record.seq for record in records]
            except (Unavailable, TimeoutError):
                await until(lambda: broker.connected)
        assert seqs == list(range(1, 41))
        assert len(proxy.dropped) > 3
