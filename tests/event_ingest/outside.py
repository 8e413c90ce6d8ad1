"""What a test sees of event_ingest from outside: it publishes, and reads the log and the letters."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from nats.aio.client import Client

from broker.append import Append, append
from broker.connect import Broker, connect
from broker.consume import consume
from broker.read import Record, read
from contracts import events, streams, subjects
from contracts.events import unix_time
from contracts.subjects import Topic
from event_ingest.ingest import Ingest
from tests.harness.nats_server import TENANTS, NatsServer

SUBJECT = "ingest.acme.ci.build.finished"
ATTRIBUTES = {"specversion": "1.0", "id": "e1", "source": "/ci", "type": "build.finished"}
STRUCTURED = {"Content-Type": "application/cloudevents+json"}
LEAST_WINDOW = 0.1
"""The shortest window for message ids that a broker allows, in seconds."""


class Outside:
    """External systems of two tenants, an edge that creates sessions, and an operator."""

    def __init__(self, edge: Broker, operator: Broker, publishers: dict[str, Client]) -> None:
        self._edge = edge
        self._operator = operator
        self._publishers = publishers

    async def publish(self, payload: bytes, headers: dict[str, str] | None = None, subject: str = SUBJECT) -> int:
        """Publish a message and return its sequence once the broker has stored it."""
        publisher = self._publishers[subject.split(".")[1]]
        reply = await publisher.request(subject, payload, headers=headers, timeout=5)
        return int(json.loads(reply.data)["seq"])

    async def binary(self, data: object = None, *, subject: str = SUBJECT, **attributes: str) -> int:
        """Publish an event in binary mode."""
        headers = {f"ce-{name}": value for name, value in (ATTRIBUTES | attributes).items()}
        return await self.publish(json.dumps(data).encode(), headers, subject)

    async def structured(self, *, subject: str = SUBJECT, **members: Any) -> int:
        """Publish an event in structured mode."""
        return await self.publish(json.dumps(ATTRIBUTES | members).encode(), STRUCTURED, subject)

    async def raw(self, command: bytes) -> None:
        """Send what no client library would, as the external systems of `acme`."""
        publisher = self._publishers["acme"]
        await publisher._send_command(command)
        await publisher.flush()

    async def session(self, session_id: str, state: events.SessionState = "active") -> None:
        """Create, close or delete a session of `acme`, as an edge does."""
        fact = events.SessionUpdated(
            id=events.new_id(),
            timestamp=events.timestamp(),
            session_id=session_id,
            user_id="u1",
            title=None,
            state=state,
        )
        subject = Topic.session("acme", session_id).fact("client")
        assert await append(self._edge, Append(subject, events.encode(fact), fact.id))

    async def records(self, topic: Topic) -> list[Record]:
        """The stored events of a topic's lane `event`."""
        pages = [records async for records in read(self._edge, topic.fact("event"), 0)]
        return [record for records in pages for record in records]

    async def events(self, topic: Topic) -> list[dict[str, Any]]:
        """The same, as clients would receive them."""
        return [json.loads(record.data) for record in await self.records(topic)]

    async def is_forgotten(self, topic: Topic) -> bool:
        """Whether `LEAST_WINDOW` is over for the events of a topic, by the broker's clock."""
        stored_at = unix_time((await self.records(topic))[-1].time)
        return self._edge.now() - stored_at > 2 * LEAST_WINDOW

    async def letters(self, tenant: str = "acme") -> list[dict[str, Any]]:
        """The dead letters of a tenant."""
        subject = subjects.dead(tenant)
        pages = [page async for page in read(self._operator, subject, 0, stream=streams.DEAD)]
        return [json.loads(record.data) for records in pages for record in records]


@asynccontextmanager
async def outside(server: NatsServer) -> AsyncIterator[Outside]:
    """Everybody connected, until the block ends."""
    async with (
        connect(server.url, "edge", seed_file=server.seed("edge")) as edge,
        connect(server.url, "operator", seed_file=server.seed("operator")) as operator,
    ):
        publishers = {tenant: await server.tenant_client(tenant) for tenant in TENANTS}
        try:
            yield Outside(edge, operator, publishers)
        finally:
            for publisher in publishers.values():
                await publisher.close()


@asynccontextmanager
async def ingesting(server: NatsServer) -> AsyncIterator[Broker]:
    """A running event_ingest in this process, told to stop when the block ends."""
    seed = server.seed("event_ingest")
    stop = asyncio.Event()
    async with connect(server.url, "event_ingest", seed_file=seed) as broker:
        ingest = Ingest(broker)
        async with asyncio.TaskGroup() as tasks:
            for tenant in TENANTS:
                consumer = streams.event_ingest(tenant)
                tasks.create_task(consume(broker, consumer, ingest.hold, stop, most=16))
            try:
                yield broker
            finally:
                stop.set()


async def is_settled(broker: Broker, seq: int, tenant: str = "acme") -> bool:
    """Whether everything up to a sequence of a tenant's stream is acked."""
    path = f"{subjects.ingest_stream(tenant)}.event_ingest"
    reply = await broker.request(f"$JS.API.CONSUMER.INFO.{path}")
    return bool(json.loads(reply.data)["ack_floor"]["stream_seq"] >= seq)
