"""Appending: stored, refused or unknown, and unknown is resolved to the one stored copy or to refused."""

import asyncio
import contextlib
import json
import random
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from broker import append as appending
from broker.append import Append, OutcomeUnknown, Stored, append, conditional
from broker.client import header
from broker.connect import Broker, Rejected, Unavailable
from broker.read import Record, last, read
from contracts.subjects import Topic
from tests.broker.conftest import Connect
from tests.harness.nats_server import NatsServer
from tests.harness.proxy import Proxy
from tests.harness.wait import until
from tests.harness.wire import Message

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("impatient")]

TOPIC = Topic.session("acme", "s1")

KINDS: dict[str, Append] = {
    "fact": conditional(TOPIC, TOPIC.fact("agent"), b"what", "id", 0),
    "delta": conditional(TOPIC, TOPIC.delta, b"what", "id", 0, ttl=3600),
    "unconditional": Append(TOPIC.fact("agent"), b"what", "id"),
}
each_kind = pytest.mark.parametrize("what", KINDS.values(), ids=KINDS.keys())
each_condition = pytest.mark.parametrize("what", [KINDS["fact"], KINDS["delta"]], ids=["fact", "delta"])
FOREIGN = Append(TOPIC.fact("message"), b"foreign", "foreign")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appending, "ATTEMPT_TIMEOUT", 0.25)


async def _log(broker: Broker) -> list[Record]:
    return [record async for records in read(broker, TOPIC.all, 0) for record in records]


async def _ids(broker: Broker) -> list[str]:
    return [record.message_id for record in await _log(broker)]


def _attempts(proxy: Proxy) -> list[Message]:
    return [message for message in proxy.published if message.data == b"what"]


def once(does: Callable[[], object]) -> Callable[[Message], bool]:
    """For a proxy: do that instead of delivering the first acknowledgement."""
    done: list[object] = []

    def drop(message: Message) -> bool:
        if done or not message.is_ack:
            return False
        done.append(does())
        return True

    return drop


async def test_an_append_after_the_last_fact_is_stored(agent: Broker) -> None:
    assert await append(agent, KINDS["fact"]) == Stored(1)
    assert await append(agent, conditional(TOPIC, TOPIC.fact("call"), b"next", "id2", 1)) == Stored(2)
    assert await _ids(agent) == ["id", "id2"]


@each_condition
async def test_an_append_is_refused_when_another_fact_came_first(what: Append, agent: Broker, edge: Broker) -> None:
    assert await append(edge, FOREIGN)
    assert await append(agent, what) is None
    assert await _ids(agent) == ["foreign"]


async def test_deltas_refuse_nothing(agent: Broker) -> None:
    """They fade: nothing may depend on them."""
    assert await append(agent, KINDS["fact"]) == Stored(1)
    for number in range(3):
        assert await append(agent, conditional(TOPIC, TOPIC.delta, b"d", f"d{number}", 1))
    assert await append(agent, conditional(TOPIC, TOPIC.fact("call"), b"next", "id2", 1)) == Stored(5)


async def test_another_topic_refuses_nothing(agent: Broker, edge: Broker) -> None:
    assert await append(edge, Append(Topic.session("acme", "s10").fact("message"), b"x", "x"))
    assert await append(agent, KINDS["fact"]) == Stored(2)


@each_kind
async def test_an_append_whose_acknowledgement_is_lost_is_stored_once(
    what: Append, service: Connect, proxy: Proxy
) -> None:
    """FACTS 1.4: one replica checks the condition before it knows the id again, and so refuses the same append."""
    async with service("agent_runner", proxy) as broker:
        proxy.drop = once(lambda: None)
        stored = await append(broker, what)
        assert stored == Stored(1, duplicate=True)
        assert await _ids(broker) == ["id"]
        first, *more = _attempts(proxy)
        assert more
        assert all((again.data, again.headers) == (first.data, first.headers) for again in more)


@each_kind
async def test_an_append_whose_connection_breaks_after_it_was_stored_is_stored_once(
    what: Append, service: Connect, proxy: Proxy
) -> None:
    async with service("agent_runner", proxy) as broker:
        proxy.drop = once(proxy.cut)
        assert await append(broker, what) == Stored(1, duplicate=True)
        assert await _ids(broker) == ["id"]


@each_kind
async def test_an_append_to_a_paused_broker_is_stored_once(
    what: Append, service: Connect, proxy: Proxy, nats: NatsServer
) -> None:
    """FACTS 1.8: what timed out is stored all the same when the broker goes on."""
    async with service("agent_runner", proxy) as broker:
        nats.pause()
        appended = asyncio.create_task(append(broker, what))
        await until(lambda: _attempts(proxy))
        await until(lambda: not broker.connected)
        nats.resume()
        assert await appended
        assert await _ids(broker) == ["id"]


@each_kind
async def test_an_append_is_stored_when_the_broker_comes_back(
    what: Append, service: Connect, proxy: Proxy, nats: NatsServer
) -> None:
    async with service("agent_runner", proxy) as broker:
        await nats.kill()
        appended = asyncio.create_task(append(broker, what))
        await until(lambda: proxy.refused or not broker.connected)
        await nats.start()
        assert await appended
        assert await _ids(broker) == ["id"]


@each_condition
async def test_a_stored_append_is_found_behind_another_fact(
    what: Append, service: Connect, proxy: Proxy, edge: Broker
) -> None:
    async with service("agent_runner", proxy) as broker:
        lost = asyncio.Event()
        proxy.drop = once(lost.set)
        appended = asyncio.create_task(append(broker, what))
        await lost.wait()
        assert await append(edge, FOREIGN) == Stored(2)
        assert await appended == Stored(1, duplicate=True)
        assert await _ids(broker) == ["id", "foreign"]


@each_condition
async def test_an_append_that_never_arrived_is_refused_when_another_fact_came_first(
    what: Append, service: Connect, proxy: Proxy, edge: Broker
) -> None:
    async with service("agent_runner", proxy) as broker:
        proxy.freeze(down=False)
        appended = asyncio.create_task(append(broker, what))
        assert await append(edge, FOREIGN) == Stored(1)
        proxy.cut()
        assert await appended is None
        assert await _ids(broker) == ["foreign"]


@pytest.fixture
async def forgetful(nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker knows an id for a tenth of a second, and nobody trusts that it does for long."""
    monkeypatch.setattr(appending, "REMEMBERED", 0)
    client = await nats.client("provisioner")
    config = json.loads((await client.request("$JS.API.STREAM.INFO.LOG", b"")).data)["config"]
    update = json.dumps(config | {"duplicate_window": 100_000_000}).encode()
    assert "error" not in json.loads((await client.request("$JS.API.STREAM.UPDATE.LOG", update)).data)
    await client.close()


@pytest.mark.parametrize("what", [KINDS["delta"], KINDS["unconditional"]], ids=["delta", "unconditional"])
async def test_an_append_whose_id_the_broker_has_forgotten_is_stored_once(
    what: Append, service: Connect, proxy: Proxy, agent: Broker, forgetful: None
) -> None:
    """The broker knows an id for two minutes; it may be away for longer."""
    async with service("agent_runner", proxy) as broker:
        proxy.drop = once(lambda: proxy.freeze())
        appended = asyncio.create_task(append(broker, what))
        await until(lambda: last(agent, TOPIC.all))

        async def forgotten() -> bool:
            probe = await append(agent, Append(Topic.session("acme", "other").delta, b"x", "probe"))
            return probe is not None and not probe.duplicate and probe.seq > 2

        await until(forgotten)
        await until(forgotten)
        proxy.cut()
        assert await appended == Stored(1, duplicate=True)
        assert await _ids(agent) == ["id"]


async def test_a_broker_that_is_away_past_the_deadline_is_unavailable(service: Connect, proxy: Proxy) -> None:
    async with service("agent_runner", proxy) as broker:
        proxy.refusing = True
        proxy.cut()
        await until(lambda: not broker.connected)
        with pytest.raises(Unavailable):
            await append(broker, KINDS["unconditional"], deadline=0.2)


async def test_an_outcome_that_is_unknown_at_the_deadline_is_said_to_be(service: Connect, proxy: Proxy) -> None:
    async with service("agent_runner", proxy) as broker:
        proxy.drop = lambda message: message.is_ack
        with pytest.raises(OutcomeUnknown):
            await append(broker, KINDS["unconditional"], deadline=0.2)
        proxy.drop = lambda _message: False
        assert await append(broker, KINDS["unconditional"], deadline=5) == Stored(1, duplicate=True)
        assert await _ids(broker) == ["id"]


async def test_what_is_too_large_is_rejected(agent: Broker) -> None:
    """Tried again for ever it would hold its turn for ever."""
    with pytest.raises(Rejected):
        await append(agent, Append(TOPIC.delta, b"x" * agent.client.max_payload, "id"))
    assert await append(agent, KINDS["fact"]) == Stored(1)


async def test_what_the_broker_calls_malformed_is_rejected(agent: Broker) -> None:
    with pytest.raises(Rejected):
        await append(agent, Append(TOPIC.delta, b"x", "id", context={"Nats-TTL": "soon"}))


async def test_what_is_not_permitted_is_rejected(edge: Broker) -> None:
    with pytest.raises(Rejected):
        await append(edge, KINDS["fact"])


@pytest.mark.parametrize("seed", range(3))
async def test_of_racing_writers_one_wins_each_place(seed: int, service: Connect, proxy: Proxy, agent: Broker) -> None:
    """A few hundred conditional appends on a line that loses acknowledgements and breaks: each stored once, or never.

    The log itself tells that every stored fact follows the one which its writer named.
    """
    chance = random.Random(seed)
    losses = 0

    def lose(message: Message) -> bool:
        nonlocal losses
        if not message.is_ack or losses >= 20 or chance.random() > 0.1:
            return False
        losses += 1
        if losses % 4 == 0:
            proxy.cut()
        return True

    proxy.drop = lose
    outcomes: dict[str, Stored | None] = {}

    async def write(broker: Broker, lane: str, writer: int) -> None:
        after = 0
        for number in range(25):
            message_id = f"{writer}-{number}"
            what = conditional(TOPIC, lane, message_id.encode(), message_id, after)
            stored = outcomes[message_id] = await append(broker, what)
            after = stored.seq if stored else await last_known(broker)

    async def last_known(broker: Broker) -> int:
        while True:
            with contextlib.suppress(Unavailable, TimeoutError):
                return await last(broker, TOPIC.facts)
            await asyncio.sleep(0)

    async with AsyncExitStack() as stack, asyncio.TaskGroup() as writers:
        for writer, (name, lane) in enumerate(
            [("edge", "message"), ("agent_runner", "agent"), ("agent_runner", "call"), ("tool_runner", "tool")] * 2
        ):
            broker = await stack.enter_async_context(service(name, proxy if writer < 6 else None))
            writers.create_task(write(broker, f"log.acme.session.s1.fact.{lane}", writer))
    log = await _log(agent)
    won = {message_id: stored.seq for message_id, stored in outcomes.items() if stored}
    assert len(outcomes) == 200
    assert {record.message_id: record.seq for record in log} == won
    assert len(log) == len(won) > 25
    previous = 0
    for record in log:
        assert header(record.headers, b"Nats-Expected-Last-Subject-Sequence") == b"%d" % previous
        previous = record.seq
