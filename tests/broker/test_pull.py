"""The standing pull request: whatever ends it, another one is made, and deliveries go on."""

import json

import pytest

from broker import connect as connecting
from broker import pull as pulling
from broker.connect import Broker, connect
from tests.broker.conftest import Connect
from tests.broker.holders import MESSAGE, ack, consuming, delete_consumer, is_settled, store_messages
from tests.harness.fake_nats import FakeConnection, fake_nats
from tests.harness.nats_server import NatsServer
from tests.harness.proxy import Proxy
from tests.harness.wait import until
from tests.harness.wire import Message

pytestmark = pytest.mark.anyio

NEXT = "$JS.API.CONSUMER.MSG.NEXT.LOG.agent_runner"
INFO = "$JS.API.CONSUMER.INFO.LOG.agent_runner"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "RECONNECT_WAIT", (0.01, 0.02))
    monkeypatch.setattr(pulling, "BACKOFF", 0.02)


def _asked(proxy: Proxy) -> list[Message]:
    return [message for message in proxy.published if message.subject == NEXT]


@pytest.mark.parametrize("how", ["restart", "kill"])
async def test_deliveries_go_on_when_the_broker_comes_back(
    how: str, agent: Broker, edge: Broker, nats: NatsServer
) -> None:
    async with consuming(agent, ack) as holders:
        await store_messages(edge, 5)
        await until(lambda: is_settled(agent))
        await (nats.stop() if how == "restart" else nats.kill())
        await until(lambda: not edge.connected)
        await nats.start()
        await until(lambda: edge.connected and agent.connected)
        await store_messages(edge, 5)
        await until(lambda: is_settled(agent))
    assert set(holders.seqs) == set(range(1, 11))


async def test_a_request_that_ran_out_is_made_again(
    service: Connect, proxy: Proxy, edge: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "EXPIRES", 0.25)
    monkeypatch.setattr(pulling, "HEARTBEAT", 0.1)
    async with service("agent_runner", proxy) as broker, consuming(broker, ack) as holders:
        await until(lambda: len(_asked(proxy)) > 3)
        await store_messages(edge)
        await until(lambda: is_settled(broker))
    assert holders.seqs == [1]
    assert len({message.reply for message in _asked(proxy)}) == 1


async def test_a_request_that_got_lost_is_made_again_elsewhere(
    service: Connect, proxy: Proxy, edge: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No heartbeat comes: the broker does not know of it, or what it says does not arrive."""
    monkeypatch.setattr(pulling, "HEARTBEAT", 0.1)
    async with service("agent_runner", proxy) as broker:
        proxy.drop = lambda message: ".pull." in message.subject
        async with consuming(broker, ack) as holders:
            await until(lambda: len(_asked(proxy)) > 2)
            proxy.drop = lambda _message: False
            await store_messages(edge)
            await until(lambda: is_settled(broker))
    assert holders.seqs == [1]
    assert len({message.reply for message in _asked(proxy)}) == len(_asked(proxy))


async def test_a_consumer_that_was_deleted_is_waited_for(
    service: Connect, proxy: Proxy, edge: Broker, nats: NatsServer
) -> None:
    async with service("agent_runner", proxy) as broker, consuming(broker, ack) as holders:
        await until(lambda: _asked(proxy))
        await delete_consumer(nats)
        await store_messages(edge, 3)
        await until(lambda: len(_asked(proxy)) > 4)
        await nats.provision()
        await until(lambda: is_settled(broker))
    assert set(holders.seqs) == {1, 2, 3}


async def test_a_process_may_start_before_its_consumer_is_there(agent: Broker, edge: Broker, nats: NatsServer) -> None:
    await delete_consumer(nats)
    async with consuming(agent, ack) as holders:
        await store_messages(edge)
        await nats.provision()
        await until(lambda: is_settled(agent))
    assert holders.seqs == [1]


@pytest.mark.parametrize(
    "refusal",
    [
        "409 Exceeded MaxWaiting",
        "409 Leadership Change",
        "409 Consumer Deleted",
        "404 No Messages",
        "503",
        "408 Timeout",
    ],
)
async def test_whatever_the_broker_answers_is_not_the_end(refusal: str) -> None:
    """FACTS P12: nats-py takes most of these for a timeout, and asks again at once for ever for one of them."""
    asked: list[str] = []

    def published(connection: FakeConnection, message: Message) -> None:
        if message.subject == INFO:
            connection.send(message.reply, json.dumps({"config": {"ack_wait": 1_000_000_000}}).encode())
        elif message.subject == NEXT:
            asked.append(message.reply)
            if len(asked) < 4:
                connection.send(message.reply, b"", headers=f" {refusal}")
            else:
                deliver(connection, message.reply)

    def deliver(connection: FakeConnection, inbox: str) -> None:
        number = next(sid for sid, pattern in connection.subscriptions.items() if pattern == inbox)
        reply = "$JS.ACK.LOG.agent_runner.1.7.1.1700000000000000000.0"
        connection.say(f"MSG {MESSAGE} {number} {reply} 1\r\nx")

    async with (
        fake_nats(published) as fake,
        connect(fake.url, "agent_runner") as broker,
        consuming(broker, ack) as holders,
    ):
        await until(lambda: holders.deliveries)
        await until(lambda: any(message.data == b"+ACK" for message in fake.messages))
        assert holders.seqs == [7]
        assert holders.deliveries[0].stored_at == 1_700_000_000
