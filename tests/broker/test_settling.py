"""Settling: a holder acts on what was decided until nothing is left to do, or lets go when it is told to."""

from collections.abc import Awaitable, Callable

import pytest

from broker.acts import Act, Drop, Perform, Put, Settle, Wait
from broker.client import header
from broker.connect import Broker
from broker.delivery import Delivery
from broker.folded import Folded, holding
from broker.hold import Hold
from broker.settle import Role, settle
from contracts.events import AnyEvent
from tests.broker.holders import ROOMY, TOPIC, Seen, consuming, is_settled, say, status, words
from tests.harness.nats_server import NatsServer
from tests.harness.proxy import Proxy
from tests.harness.wait import until

pytestmark = pytest.mark.anyio


class Script:
    """A role that does as it is told."""

    def __init__(self, *acts: Act, releases: bool = True) -> None:
        self.acts = list(acts)
        self.releases = releases
        self.performed = 0
        self.put: list[int] = []
        self.is_done = False

    def decide(self) -> Act:
        return self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]

    def stored(self, _put: Put, seq: int) -> None:
        self.put.append(seq)

    async def perform(self) -> None:
        self.performed += 1

    async def release(self) -> bool:
        return self.releases

    def context(self, _event: AnyEvent) -> dict[str, str] | None:
        return {"traceparent": "there"}


def acting(broker: Broker, role: Role) -> Callable[[Delivery], Awaitable[None]]:
    """A holder that plays a role."""

    async def act(delivery: Delivery) -> None:
        async with holding(broker, delivery, Folded(Seen, ROOMY)) as hold:
            await settle(hold, role)

    return act


async def test_a_holder_acts_until_nothing_is_left(runner: Broker, edge: Broker, proxy: Proxy) -> None:
    role = Script(Put(status("a")), Perform(), Wait(until=0), Put(status("b")), Settle())
    async with consuming(runner, acting(runner, role)) as holders:
        await say(edge)
        await until(lambda: is_settled(runner))
    assert role.put == [2, 3]
    assert role.performed == 1
    assert len(holders.deliveries) == 1
    assert words(proxy) == [b"+ACK"]


@pytest.mark.parametrize(("releases", "said"), [(True, [b"-NAK"]), (False, [])])
async def test_a_holder_that_is_told_to_stop_hands_over_what_it_could_release(
    releases: bool, said: list[bytes], runner: Broker, edge: Broker, proxy: Proxy
) -> None:
    async with consuming(runner, acting(runner, Script(Wait(), releases=releases))) as holders:
        await say(edge)
        await until(lambda: holders.deliveries)
    await runner.look_at_log()
    assert words(proxy) == said


async def test_a_holder_whose_work_is_done_tells_it_also_when_told_to_stop(hold: Hold[Seen], proxy: Proxy) -> None:
    role = Script(Put(status("a")), Settle())
    role.is_done = True
    hold.delivery.stop()
    await settle(hold, role)
    assert role.put == [2]
    await until(lambda: words(proxy) == [b"+ACK"])


async def test_a_holder_that_drops_says_nothing(runner: Broker, edge: Broker, proxy: Proxy, nats: NatsServer) -> None:
    await nats.provision(ack_wait=0.3)
    async with consuming(runner, acting(runner, Script(Drop()))) as holders:
        await say(edge)
        await until(lambda: len(holders.deliveries) > 1)
        said = words(proxy)  # what is held when the block ends is handed over
    assert holders.deliveries[1].delivered == 2
    assert said == []


async def test_the_trace_goes_with_what_is_appended(hold: Hold[Seen], proxy: Proxy) -> None:
    await settle(hold, Script(Put(status("a")), Drop()))
    appended = next(message for message in proxy.published if message.subject == TOPIC.fact("agent"))
    assert header(appended.headers, b"traceparent") == b"there"
