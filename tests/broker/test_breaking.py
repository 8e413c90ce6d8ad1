"""A connection that breaks, hangs or cannot be made again: noticed, repaired, or lost for everybody to see."""

import asyncio
import contextlib

import pytest

from broker import client
from broker import connect as connecting
from broker.connect import Broker, Unavailable, connect
from broker.read import last, read
from contracts.subjects import Topic
from tests.broker.conftest import Connect
from tests.harness.fake_nats import FakeConnection, fake_nats
from tests.harness.proxy import Proxy
from tests.harness.wait import until
from tests.harness.wire import Command

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("impatient")]

TOPIC = Topic.session("acme", "s1")
STREAM_INFO = "$JS.API.STREAM.INFO.LOG"

both_loops = pytest.mark.parametrize(
    "anyio_backend", [("asyncio", {"use_uvloop": uvloop}) for uvloop in (False, True)], ids=["asyncio", "uvloop"]
)
"""Services run on uvloop, whose transports behave differently from asyncio's where a connection breaks."""


async def _stored(broker: Broker) -> list[bytes]:
    return [record.data async for records in read(broker, TOPIC.all, 0) for record in records]


@both_loops
async def test_a_publish_without_a_connection_fails_at_once_and_never_appears_later(
    service: Connect, proxy: Proxy
) -> None:
    """FACTS P8: nats-py keeps it and sends it when the connection comes back."""
    async with service("agent_runner", proxy) as broker:
        proxy.refusing = True
        proxy.cut()
        await until(lambda: not broker.connected)
        with pytest.raises(Unavailable):
            broker.publish(TOPIC.delta, b"too early")
        await until(lambda: proxy.refused > 1)
        with pytest.raises(Unavailable):
            broker.publish(TOPIC.delta, b"still too early")
        proxy.refusing = False
        await until(lambda: broker.connected)
        await broker.request(TOPIC.delta, b"in time")
        assert await _stored(broker) == [b"in time"]


@both_loops
async def test_publishing_on_a_breaking_connection_is_unavailable_and_nothing_worse(
    service: Connect, proxy: Proxy
) -> None:
    """Until nats-py notices, a publish meets a closed transport; uvloop's raises RuntimeError."""
    async with service("agent_runner", proxy) as broker:
        for number in range(2, 12):
            proxy.cut()
            with contextlib.suppress(Unavailable):
                while proxy.connections < number:
                    broker.publish(TOPIC.delta, b"x")
                    await asyncio.sleep(0)
            await until(lambda: broker.connected)
        assert not broker.lost.is_set()


@both_loops
async def test_a_request_on_a_breaking_connection_ends_with_it(service: Connect, proxy: Proxy) -> None:
    async with service("agent_runner", proxy) as broker:
        proxy.freeze(up=False)
        asked = broker.ask(STREAM_INFO, timeout=600)
        proxy.cut()
        with pytest.raises(TimeoutError):
            await asked


@both_loops
async def test_a_half_open_connection_is_noticed_and_replaced(service: Connect, proxy: Proxy) -> None:
    """FACTS P9: by default nats-py takes six minutes."""
    async with service("agent_runner", proxy) as broker:
        proxy.freeze()
        with pytest.raises(TimeoutError):
            await broker.request(STREAM_INFO, timeout=600)
        await until(lambda: broker.connected)
        await broker.look_at_log()
        assert not broker.lost.is_set()


@both_loops
async def test_a_half_open_connection_with_much_unsent_is_replaced_too(service: Connect, proxy: Proxy) -> None:
    """nats-py closes the old connection first, and waits until a peer that is gone has taken everything."""
    async with service("agent_runner", proxy) as broker:
        proxy.freeze()
        for _ in range(8):
            broker.publish(TOPIC.delta, b"x" * 4_000_000)
        await until(lambda: proxy.connections > 1 and broker.connected)
        await broker.look_at_log()


@both_loops
async def test_a_connection_whose_peer_takes_nothing_can_be_closed(service: Connect, proxy: Proxy) -> None:
    async with asyncio.timeout(20):
        async with service("agent_runner", proxy) as broker:
            proxy.freeze()
            for _ in range(8):
                broker.publish(TOPIC.delta, b"x" * 4_000_000)


@both_loops
async def test_what_was_published_before_a_close_arrives(agent: Broker, service: Connect) -> None:
    """A holder acknowledges its last delivery just before its process ends."""
    async with service("agent_runner") as broker:
        broker.publish(TOPIC.delta, b"x" * 4_000_000)
    await until(lambda: last(agent, TOPIC.all))


async def test_reconnecting_never_ends(service: Connect, proxy: Proxy) -> None:
    """FACTS P10: nats-py gives up after 60 tries, the default."""
    async with service("agent_runner", proxy) as broker:
        proxy.refusing = True
        proxy.cut()
        await until(lambda: proxy.refused > 65)
        proxy.refusing = False
        await until(lambda: broker.connected)
        await broker.look_at_log()


@both_loops
async def test_a_server_that_resets_in_the_handshake_is_tried_again() -> None:
    """uvloop raises RuntimeError for the write that follows; it would end nats-py's reconnecting for ever."""
    async with fake_nats() as fake, connect(fake.url, "edge") as broker:
        fake.on_accept = lambda connection: connection.reset() if connection.number < 20 else None
        fake.connections[0].reset()
        await until(lambda: len(fake.connections) > 20 and broker.connected)
        await broker.look_at_log()


@both_loops
async def test_a_connection_that_does_not_answer_after_the_handshake_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "ANSWER_WITHIN", 0.05)
    async with fake_nats() as fake, connect(fake.url, "edge") as broker:
        pings: dict[int, int] = {}

        def silent_after_one(connection: FakeConnection, command: Command) -> bool:
            if connection.number == 1 and command.verb == b"PING":
                pings[1] = pings.get(1, 0) + 1
                return pings[1] > 1
            return False

        fake.on_command = silent_after_one
        fake.connections[0].reset()
        await until(lambda: len(fake.connections) > 2 and broker.connected)
        await broker.look_at_log()


@both_loops
async def test_a_connection_that_is_closed_while_it_reconnects_stays_closed() -> None:
    """wait_for, until Python 3.12, may swallow a cancellation: nats-py would go on, and open what was closed."""
    async with fake_nats() as fake:
        before = asyncio.all_tasks()
        for turns in range(150):
            async with connect(fake.url, "edge"):
                fake.connections[-1].reset()
                for _ in range(turns % 50):
                    await asyncio.sleep(0)
        await until(lambda: len(asyncio.all_tasks() - before) <= len(fake.open))
        await until(lambda: not fake.open)


@both_loops
async def test_reconnecting_that_came_to_an_end_is_noticed() -> None:
    """What nats-py does not expect of a server ends its reconnecting, and nothing else says so."""
    async with fake_nats() as fake, connect(fake.url, "edge") as broker:
        fake.info = {"endless": "x" * 200_000}
        fake.connections[0].reset()
        await until(broker.lost.is_set)


async def test_a_deaf_connection_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pings are answered, requests are not (FACTS P11)."""
    monkeypatch.setattr(connecting, "REPLY_WITHIN", 0.05)
    async with fake_nats() as fake, connect(fake.url, "edge") as broker:
        fake.on_command = lambda _connection, command: command.verb == b"PUB"
        await until(broker.lost.is_set)


async def test_a_reconnected_callback_that_raises_loses_the_connection_and_nothing_else(
    service: Connect, proxy: Proxy
) -> None:
    async with service("edge", proxy) as broker:
        called = asyncio.Event()

        def fail() -> None:
            raise ValueError

        broker.reconnected += [fail, called.set]
        proxy.cut()
        await until(called.is_set)
        assert broker.lost.is_set()
