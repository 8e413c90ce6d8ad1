"""Deliveries of holders that only wait: kept for longer at a time, and looked at when it matters."""

import asyncio

import pytest

from broker import connect as connecting
from broker import consume as consuming_module
from broker import hold as holding_module
from broker.connect import Broker
from broker.delivery import Delivery
from broker.folded import Folded, holding
from tests.broker.conftest import Connect
from tests.broker.holders import ROOMY, Seen, cancel, consuming, is_settled, say, state
from tests.harness.nats_server import NatsServer
from tests.harness.proxy import Proxy
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

ACK_WAIT = 0.4


@pytest.fixture(autouse=True)
async def nats(nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> NatsServer:
    """A delivery comes again soon, and one that rests is kept for three seconds at a time."""
    monkeypatch.setattr(connecting, "RECONNECT_WAIT", (0.01, 0.02))
    monkeypatch.setattr(consuming_module, "BEATS", 1)
    await nats.provision(ack_wait=ACK_WAIT)
    return nats


def said(proxy: Proxy, word: bytes) -> int:
    """How often that was said of a delivery."""
    return sum(message.data.startswith(word) for message in proxy.published)


async def test_a_delivery_that_rests_is_kept_for_longer_at_a_time_and_settled_by_its_ack(
    service: Connect, proxy: Proxy, edge: Broker
) -> None:
    """Measured of nats-server: a nak with a delay sets the time of the next delivery, and may be repeated."""
    done = asyncio.Event()

    async def rest(delivery: Delivery) -> None:
        delivery.rest(True)
        await done.wait()
        await delivery.ack()

    async with (
        service("agent_runner", proxy) as broker,
        service("agent_runner") as other,
        consuming(broker, rest) as holders,
    ):
        await say(edge)
        async with consuming(other, rest) as others:
            await until(lambda: said(proxy, b"-NAK") > 2)  # each for longer than `ack_wait`
            assert not others.deliveries
            done.set()
            await until(lambda: is_settled(broker))
        assert len(holders.deliveries) == 1
        assert (await state(broker))["num_redelivered"] == 0


async def test_a_holder_that_goes_on_is_taken_over_as_fast_as_anybody(
    service: Connect, proxy: Proxy, edge: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who rested and then dies is not waited for until its long time is over: `+WPI` shortens it."""
    monkeypatch.setattr(consuming_module, "BEATS", 0.001)  # three thousand seconds
    going, gone = asyncio.Event(), asyncio.Event()

    async def rest(delivery: Delivery) -> None:
        delivery.rest(True)
        await going.wait()
        delivery.rest(False)
        gone.set()  # and lets go without a word

    async def ack(delivery: Delivery) -> None:
        await delivery.ack()

    async with service("agent_runner", proxy) as broker, service("agent_runner") as other:
        async with consuming(broker, rest):
            await say(edge)
            await until(lambda: said(proxy, b"-NAK"))
            going.set()
            await gone.wait()
        async with consuming(other, ack) as others:
            await until(lambda: others.deliveries)


async def test_who_waits_looks_when_the_broker_was_away(
    service: Connect, proxy: Proxy, edge: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored meanwhile is told live to nobody; looks are far apart where many wait."""
    monkeypatch.setattr(holding_module, "LOOK_EVERY", 600.0)
    heard = asyncio.Event()
    folded = Folded(Seen, ROOMY)

    async def wait(delivery: Delivery) -> None:
        async with holding(broker, delivery, folded) as hold:
            while len(hold.state.seqs) < 2:
                await hold.wait()
            heard.set()
            await delivery.ack()

    async with service("agent_runner", proxy) as broker, consuming(broker, wait) as holders:
        await say(edge)
        await until(lambda: holders.deliveries and broker.holds)
        proxy.cut()
        await cancel(edge)
        await until(heard.is_set)
