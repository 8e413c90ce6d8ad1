"""Holders of deliveries that do as a test says, and what the broker knows of them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from broker.append import Append, append
from broker.connect import Broker
from broker.consume import consume
from broker.delivery import Delivery
from contracts import events, streams
from contracts.events import AnyEvent
from contracts.subjects import Topic
from tests.harness.nats_server import NatsServer
from tests.harness.proxy import Proxy

TOPIC = Topic.session("acme", "s1")
MESSAGE = TOPIC.fact("message")
CONSUMER = streams.agent_runner()


class Holders:
    """What was delivered to one process, and how far its holders are."""

    def __init__(self, then: Callable[[Delivery], Awaitable[None]]) -> None:
        self.stop = asyncio.Event()
        self.deliveries: list[Delivery] = []
        self.most_at_once = 0
        self._held = 0
        self._then = then

    @property
    def seqs(self) -> list[int]:
        """The places of what was delivered."""
        return [delivery.seq for delivery in self.deliveries]

    async def hold(self, delivery: Delivery) -> None:
        """Hold it as long as the test's own function takes."""
        self.deliveries.append(delivery)
        self._held += 1
        self.most_at_once = max(self.most_at_once, self._held)
        try:
            await self._then(delivery)
        finally:
            self._held -= 1


async def ack(delivery: Delivery) -> None:
    """A holder that has nothing to do."""
    await delivery.ack()


async def drop(_delivery: Delivery) -> None:
    """A holder that lets go without a word."""


async def wait(delivery: Delivery) -> None:
    """A holder that waits to be told to stop, and hands the delivery over."""
    stopped = asyncio.Event()
    delivery.wake = stopped.set
    if not delivery.stopping:
        await stopped.wait()
    await delivery.nak()


@asynccontextmanager
async def consuming(
    broker: Broker, then: Callable[[Delivery], Awaitable[None]], **options: Any
) -> AsyncIterator[Holders]:
    """A process that consumes the messages, until the block ends or its `stop` is set."""
    holders = Holders(then)
    task = asyncio.create_task(consume(broker, CONSUMER, holders.hold, holders.stop, **options))
    try:
        yield holders
    finally:
        holders.stop.set()
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(5):
                await task


async def state(broker: Broker) -> dict[str, Any]:
    """What the broker knows of the consumer."""
    reply = await broker.request(f"$JS.API.CONSUMER.INFO.{CONSUMER.stream}.{CONSUMER.durable}")
    found: dict[str, Any] = json.loads(reply.data)
    return found


async def is_settled(broker: Broker) -> bool:
    """Whether nothing is left to deliver, or held."""
    found = await state(broker)
    return not (found["num_pending"] or found["num_ack_pending"])


async def is_asking(broker: Broker) -> bool:
    """Whether a request for more stands."""
    return bool((await state(broker))["num_waiting"])


async def is_delivered(broker: Broker) -> bool:
    """Whether somebody has everything, or it is on its way."""
    return not (await state(broker))["num_pending"]


async def delete_consumer(nats: NatsServer) -> None:
    """As an operator may do by mistake."""
    client = await nats.client("provisioner")
    path = f"{CONSUMER.stream}.{CONSUMER.durable}"
    assert json.loads((await client.request(f"$JS.API.CONSUMER.DELETE.{path}", b"")).data)["success"]
    await client.close()


async def store_messages(edge: Broker, number: int = 1, data: bytes = b"x") -> None:
    """Store messages."""
    for _ in range(number - 1):
        edge.publish(MESSAGE, data)
    await edge.request(MESSAGE, data)


ROOMY = 1 << 20
"""For every state of a test."""


class Seen:
    """A fold that remembers where it has been."""

    def __init__(self) -> None:
        self.seqs: list[int] = []

    @property
    def weight(self) -> int:
        return 8 * len(self.seqs)

    def apply(self, seq: int, _event: AnyEvent) -> None:
        self.seqs.append(seq)


def delivery(broker: Broker) -> Delivery:
    return Delivery(broker, MESSAGE, "$JS.ACK.LOG.agent_runner.1.1.1.0.0", b'{"type":"other"}', b"")


def status(name: str) -> events.AgentStatus:
    return events.AgentStatus(id=name, timestamp=events.timestamp(), status="thinking", details=None)


CANCEL = events.encode(events.Cancel(id="e", timestamp=events.timestamp(), user_id="ann"))


async def say(edge: Broker, data: bytes = CANCEL) -> None:
    """Store what is delivered to a holder: any event will do."""
    await append(edge, Append(MESSAGE, data, events.new_id()))


async def cancel(edge: Broker) -> None:
    """Store something new."""
    await append(edge, Append(TOPIC.fact("client"), CANCEL, events.new_id()))


def words(proxy: Proxy) -> list[bytes]:
    """What was said of deliveries, beside that they are held."""
    return [message.data for message in proxy.published if message.data in (b"+ACK", b"-NAK")]
