"""The connection: each trap of nats-py (FACTS part 2.2) and of the loops, sprung."""

import pytest

from broker import client
from broker.connect import Broker, Rejected, Unavailable, connect
from broker.read import read
from contracts.events import unix_time
from contracts.subjects import Topic
from tests.broker.conftest import Connect
from tests.harness.fake_nats import LOG_INFO, FakeConnection, fake_nats
from tests.harness.nats_server import NatsServer
from tests.harness.proxy import Proxy
from tests.harness.wait import until
from tests.harness.wire import Command, Message

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("impatient")]

TOPIC = Topic.session("acme", "s1")
STREAM_INFO = "$JS.API.STREAM.INFO.LOG"


async def _stored(broker: Broker) -> list[bytes]:
    return [record.data async for records in read(broker, TOPIC.all, 0) for record in records]


async def test_what_exceeds_max_payload_with_its_headers_is_rejected_and_the_connection_lives(agent: Broker) -> None:
    """FACTS P2: nats-py counts the payload alone, and the server ends the connection for good."""
    headers = client.header_block({"Nats-Msg-Id": "x"})
    fits = b"x" * (agent.client.max_payload - len(headers))
    with pytest.raises(Rejected):
        await agent.request(TOPIC.delta, fits + b"x", headers=headers)
    await agent.request(TOPIC.delta, fits, headers=headers)
    assert await _stored(agent) == [fits]
    assert not agent.lost.is_set()


@pytest.mark.parametrize("error", ["User Authentication Expired", "maximum connections exceeded", "Slow Consumer"])
async def test_a_connection_that_the_server_ends_for_good_is_lost(error: str) -> None:
    """FACTS P3: nats-py never reconnects after such an error; the process has to be told."""
    async with fake_nats() as fake, connect(fake.url, "edge") as broker:
        fake.connections[0].say(f"-ERR '{error}'")
        await until(broker.lost.is_set)


async def test_a_subscription_is_on_the_wire_before_the_request_that_follows_it() -> None:
    """FACTS P7: a request is the barrier after which a subscription holds; nats-py's flush is none."""
    async with fake_nats() as fake, connect(fake.url, "edge") as broker:
        commands: list[Command] = []

        def heard(_connection: FakeConnection, command: Command) -> bool:
            commands.append(command)
            return False

        fake.on_command = heard
        subscription = await broker.subscribe(TOPIC.live, lambda *_: None)
        await broker.request(STREAM_INFO)
        await broker.unsubscribe(subscription)
        await broker.request(STREAM_INFO)
        verbs = [command.verb for command in commands if command.verb not in (b"PING", b"PONG")]
        assert verbs == [b"SUB", b"PUB", b"UNSUB", b"PUB"]


async def test_a_callback_that_raises_loses_the_connection_and_nothing_else(agent: Broker, edge: Broker) -> None:
    """FACTS P11: in nats-py it would end the reader, and nobody would notice."""
    heard: list[bytes] = []

    def fail(*_: bytes) -> None:
        raise ValueError

    await edge.subscribe(TOPIC.live, fail)
    await edge.subscribe(TOPIC.live, lambda _subject, _reply, data, _headers: heard.append(data))
    await edge.look_at_log()
    await agent.request(TOPIC.delta, b"x")
    await until(lambda: heard)
    assert edge.lost.is_set()


async def test_a_cancelled_request_leaves_nothing_behind(service: Connect, proxy: Proxy) -> None:
    """FACTS P13: what comes for it later harms nobody."""
    async with service("edge", proxy) as broker:
        proxy.freeze(up=False)
        asked = [broker.ask(STREAM_INFO) for _ in range(100)]
        for answer in asked:
            answer.cancel()
        proxy.thaw()
        await broker.look_at_log()
        assert not broker.lost.is_set()
        await until(lambda: not broker._asked)  # the broker looks at the log by itself now and then


async def test_what_is_not_permitted_is_rejected_and_not_waited_for(edge: Broker) -> None:
    """FACTS P17: the server does not answer; it complains."""
    allowed = edge.ask(TOPIC.fact("message"), b"x")
    with pytest.raises(Rejected):
        await edge.request(TOPIC.fact("agent"), b"x", timeout=600)
    await allowed
    assert await _stored(edge) == [b"x"]


async def test_nobody_listening_is_unavailable(edge: Broker, nats: NatsServer) -> None:
    provisioner = await nats.client("provisioner")
    await provisioner.request("$JS.API.STREAM.DELETE.LOG", b"")
    await provisioner.close()
    with pytest.raises(Unavailable):
        await edge.request(TOPIC.fact("message"), b"x", timeout=600)


async def test_two_subscriptions_are_heard_in_the_order_of_the_wire(agent: Broker, edge: Broker) -> None:
    """nats-py has a queue and a task for each."""
    heard: list[bytes] = []
    for subject in (TOPIC.live_facts, TOPIC.delta.replace("log.", "live.", 1)):
        await edge.subscribe(subject, lambda _subject, _reply, data, _headers: heard.append(data))
    await edge.look_at_log()
    sent = [b"%d" % number for number in range(500)]
    for number, data in enumerate(sent):
        agent.publish(TOPIC.fact("agent") if number % 3 else TOPIC.delta, data)
    await until(lambda: len(heard) == len(sent))
    assert heard == sent


async def test_nothing_is_heard_after_unsubscribing(agent: Broker, edge: Broker) -> None:
    heard: list[bytes] = []
    await edge.subscribe(TOPIC.live, lambda *_: late.append(len(heard)))
    subscription = await edge.subscribe(TOPIC.live, lambda _subject, _reply, data, _headers: heard.append(data))
    late: list[int] = []
    await edge.look_at_log()
    for number in range(100):
        agent.publish(TOPIC.delta, b"%d" % number)
    await until(lambda: heard)
    await edge.unsubscribe(subscription)
    before = len(heard)
    await until(lambda: len(late) == 100)
    assert len(heard) == before


async def test_any_of_several_servers_will_do(nats: NatsServer) -> None:
    async with connect(f"nats://127.0.0.1:1,{nats.url}", "edge", seed_file=nats.seed("edge")) as broker:
        await broker.look_at_log()


async def test_the_clock_is_the_brokers() -> None:
    async with fake_nats() as fake, connect(fake.url, "edge") as broker:
        assert abs(broker.now() - unix_time(str(LOG_INFO["ts"]))) < 60


async def test_a_message_without_headers_and_one_with_an_error_status_are_told_apart() -> None:
    def answer(connection: FakeConnection, message: Message) -> None:
        if message.data == b"plain":
            connection.send(message.reply, b"answer")
        else:
            connection.send(message.reply, b"", headers=" 503")

    async with fake_nats(answer) as fake, connect(fake.url, "edge") as broker:
        assert (await broker.request("any", b"plain")).data == b"answer"
        with pytest.raises(Unavailable):
            await broker.request("any", b"")
