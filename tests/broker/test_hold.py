"""Holding: what a holder appends is what it decided on all that it has folded, in the order in which it decided."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from broker.append import Append, append
from broker.connect import Broker, connect
from broker.delivery import Delivery
from broker.hold import Hold
from broker.prefix import Prefix
from broker.read import read
from contracts import events
from contracts.session import Session
from contracts.subjects import Lane, Topic
from tests.harness.nats_server import NatsServer

pytestmark = pytest.mark.anyio

TOPIC = Topic.session("acme", "s")


def fact(**fields: object) -> dict[str, object]:
    """The fields of an event."""
    return {"id": events.new_id(), "timestamp": events.timestamp(), "session_id": TOPIC.id, **fields}


async def say(edge: Broker) -> int:
    """Store a message; its place."""
    content = {"role": "user", "content": "x", "user_id": "ann", "client_message_id": "c"}
    message = events.Message(**fact(message_id=events.new_id(), **content))  # type: ignore[arg-type]
    stored = await append(edge, Append(TOPIC.fact("message"), events.encode(message), message.id))
    assert stored
    return stored.seq


@asynccontextmanager
async def held(nats: NatsServer) -> AsyncIterator[tuple[Broker, Hold[Session]]]:
    """An edge, and a runner that holds a message and has folded it."""
    async with (
        connect(nats.url, "edge", seed_file=nats.seed("edge")) as edge,
        connect(nats.url, "agent_runner", seed_file=nats.seed("agent_runner")) as runner,
    ):
        seq = await say(edge)
        reply = f"$JS.ACK.LOG.agent_runner.1.{seq}.1.0.0"
        hold = Hold(runner, Delivery(runner, TOPIC.fact("message"), reply, b"", b""), TOPIC, Prefix(Session()))
        await hold.look()
        yield edge, hold


async def stored(broker: Broker, lane: Lane | None) -> int:
    """How many events the topic has in a lane, or how many deltas."""
    subject = TOPIC.delta if lane is None else TOPIC.fact(lane)
    return sum([len(records) async for records in read(broker, subject, 0)])


async def test_what_was_decided_before_something_else_was_folded_is_not_appended(nats: NatsServer) -> None:
    """A cancel that is folded while an append waits for its turn would otherwise stand before what it forbids."""
    async with held(nats) as (edge, hold):
        await say(edge)
        look = asyncio.create_task(hold.look())
        await asyncio.sleep(0)
        start = events.TurnStart(**fact(reply_to="m", attempt=1))  # type: ignore[arg-type]
        delta = events.StreamDelta(**fact(message_id="a", delta="x", offset=0))  # type: ignore[arg-type]
        put, streamed = await asyncio.gather(hold.append(start), hold.append_delta(delta))
        assert put is None
        assert not streamed
        await look
        assert (await stored(edge, "agent"), await stored(edge, None)) == (0, 0)
        assert await hold.append(start)


async def test_an_append_that_is_cancelled_in_flight_is_over_before_anything_else_is_read(nats: NatsServer) -> None:
    """Otherwise a half answer would be recorded without its last delta."""
    async with held(nats) as (edge, hold):
        for _ in range(100):
            delta = events.StreamDelta(**fact(message_id="a", delta="x", offset=0))  # type: ignore[arg-type]
            appending = asyncio.create_task(hold.append_delta(delta))
            await asyncio.sleep(0)
            appending.cancel()
            await asyncio.wait([appending])
            before = await stored(hold.broker, None)
            start = events.TurnStart(**fact(reply_to="m", attempt=1))  # type: ignore[arg-type]
            assert await hold.append(start)
            assert await stored(edge, None) == before


async def test_a_cancelled_append_of_a_fact_is_folded_with_the_next_look(nats: NatsServer) -> None:
    async with held(nats) as (edge, hold):
        before = hold.seq
        appending = asyncio.create_task(hold.append(events.TurnStart(**fact(reply_to="m", attempt=1))))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        appending.cancel()
        await asyncio.wait([appending])
        await hold.look()
        assert hold.seq - before == await stored(edge, "agent") == 1
