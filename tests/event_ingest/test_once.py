"""Once: repetitions are recognised without the broker's window, and what waits is not lost."""

import json
import logging
from contextlib import AbstractAsyncContextManager, suppress
from itertools import count
from pathlib import Path

import pytest

from broker.append import Append, LogFull, append
from broker.connect import Broker, connect
from broker.delivery import Delivery
from contracts import cloudevents, streams
from contracts.events import unix_time
from contracts.subjects import Topic
from event_ingest import ingest, target
from event_ingest.ingest import Ingest
from event_ingest.target import SHORT, Target, Targets
from tests.event_ingest.outside import (
    ATTRIBUTES,
    SUBJECT,
    Outside,
    ingesting,
    is_settled,
    outside,
)
from tests.harness.nats_server import NatsServer, nats_server
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

U1 = Topic.user("acme", "u1")


async def test_what_is_published_again_after_the_window_is_not_delivered_again(
    nats: NatsServer, world: Outside, least_window: None
) -> None:
    """Promise: WIRE 5; by a process that knows the topic, and by one that has just started."""
    async with ingesting(nats) as broker:
        last = await world.binary(userid="u1")
        await until(lambda: is_settled(broker, last))
        await until(lambda: world.is_forgotten(U1))
        last = await world.binary(userid="u1")
        await until(lambda: is_settled(broker, last))
    async with ingesting(nats) as broker:
        last = await world.binary(userid="u1")
        await until(lambda: is_settled(broker, last))
    assert len(await world.events(U1)) == 1


async def test_a_process_that_slept_while_another_took_over_delivers_nothing_twice(
    nats: NatsServer, world: Outside, least_window: None
) -> None:
    """Our choice: its append names the last event that it knows, and is refused."""
    async with service(nats) as sleeper, service(nats) as other:
        asleep, awake = Ingest(sleeper), Ingest(other)
        await asleep.hold(delivery(sleeper, "1"))
        await awake.hold(delivery(other, "2"))
        await until(lambda: world.is_forgotten(U1))
        await asleep.hold(delivery(sleeper, "2"))
        await asleep.hold(delivery(sleeper, "3"))
    assert [event["event_id"] for event in await world.events(U1)] == ["1", "2", "3"]


async def test_a_redelivery_is_recognised_however_late_it_comes(
    nats: NatsServer, world: Outside, least_window: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise P7: what is looked at begins with the message, not with the horizon."""
    monkeypatch.setattr(ingest, "HORIZON", 0)
    monkeypatch.setattr(ingest, "SKEW", 0)
    monkeypatch.setattr(target, "SHORT", 1)
    async with service(nats) as broker:
        early = broker.now()
        for event_id in ("1", "2", "3"):
            await Ingest(broker).hold(delivery(broker, event_id))
        await until(lambda: world.is_forgotten(U1))
        await Ingest(broker).hold(delivery(broker, "2", early))
        assert len(await world.events(U1)) == 3
        await Ingest(broker).hold(delivery(broker, "2"))
        assert len(await world.events(U1)) == 4, "the horizon is cut: this is a repetition too late"


async def test_a_topic_is_known_from_the_asked_time_on_however_many_events_it_has(
    nats: NatsServer, world: Outside
) -> None:
    """Our choice: what is older is not read."""
    async with ingesting(nats) as broker:
        for n in range(2 * SHORT):
            last = await world.binary(id=str(n), userid="u1")
        await until(lambda: is_settled(broker, last))
        records = await world.records(U1)
        known = Target(broker, U1)
        for n in (2 * SHORT - 1, SHORT, 1):
            await known.know(unix_time(records[n].time))
            assert known.seq == records[-1].seq
            assert {record.message_id for record in records[n:]} <= set(known.ids)
            assert len(known.ids) < len(records)
        await known.know(0)
        assert list(known.ids) == [record.message_id for record in records]


async def test_what_is_known_of_topics_is_bounded(
    nats: NatsServer, world: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our choice: what was written to least lately is forgotten, and read again when needed."""
    monkeypatch.setattr(target, "KEPT_TARGETS", 3)
    async with service(nats) as broker:
        targets = Targets(broker)
        topics = [Topic.user("acme", f"u{n}") for n in range(4)]
        first = [targets.of(topic) for topic in topics[:3]]
        assert targets.of(topics[0]) is first[0]
        targets.of(topics[3])
        assert targets.of(topics[0]) is first[0]
        assert targets.of(topics[1]) is not first[1]
        monkeypatch.setattr(target, "KEPT_IDS", 5)
        for n in range(7):
            first[0].add(str(n), n + 1)
        assert list(first[0].ids) == ["2", "3", "4", "5", "6"]


async def test_an_event_waits_while_the_log_is_full_and_is_handed_over_at_a_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Our choice: a full log loses no event and refuses none."""
    caplog.set_level(logging.WARNING, "event_ingest")
    async with (
        nats_server(tmp_path / "nats", log_bytes=1 << 20) as server,
        outside(server) as world,
    ):
        await fill(server)
        last = await world.binary(userid="u1")
        async with ingesting(server) as broker:
            await until(lambda: "an event waits" in caplog.messages)
            assert not await is_settled(broker, last)
        await purge(server)
        async with ingesting(server) as broker:
            await until(lambda: is_settled(broker, last))
        assert len(await world.events(U1)) == 1
        assert await world.letters() == []


async def test_a_restarted_broker_delays_events_and_loses_none(nats: NatsServer, world: Outside) -> None:
    """Promise P7."""
    async with ingesting(nats) as broker:
        for n in range(20):
            await world.binary(id=str(n), userid="u1")
        await nats.kill()
        await nats.start()
        await until(lambda: broker.connected)
        async with outside(nats) as again:
            last = await again.binary(id="20", userid="u1")
            await until(lambda: is_settled(broker, last))
            found = [event["event_id"] for event in await again.events(U1)]
    assert found == [str(n) for n in range(21)]


async def test_a_message_that_fails_for_an_unknown_reason_is_refused_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our choice: a bug of ours must not hold a tenant's events up for ever."""
    decode = cloudevents.decode

    def fail(headers: bytes, payload: bytes) -> cloudevents.CloudEvent:
        if b"poison" in payload:
            raise RuntimeError
        return decode(headers, payload)

    monkeypatch.setattr(cloudevents, "decode", fail)
    async with (
        nats_server(tmp_path / "nats", ack_wait=0.1) as server,
        outside(server) as world,
        ingesting(server) as broker,
    ):
        await world.binary("poison", id="1", userid="u1")
        last = await world.binary("good", id="2", userid="u1")
        await until(lambda: is_settled(broker, last))
        assert [event["event_id"] for event in await world.events(U1)] == ["2"]
        assert [letter["reason"] for letter in await world.letters()] == ["internal_error"]


def service(server: NatsServer) -> AbstractAsyncContextManager[Broker]:
    """A connection with the service's credentials."""
    return connect(server.url, "event_ingest", seed_file=server.seed("event_ingest"))


def delivery(broker: Broker, event_id: str, stored_at: float | None = None) -> Delivery:
    """An event for `u1`, stored now unless told otherwise, as if the broker had handed it over."""
    payload = json.dumps(ATTRIBUTES | {"id": event_id, "userid": "u1"}).encode()
    nanoseconds = int((broker.now() if stored_at is None else stored_at) * 1e9)
    reply = f"$JS.ACK.{streams.event_ingest('acme').stream}.event_ingest.1.1.1.{nanoseconds}.0"
    headers = b"NATS/1.0\r\nContent-Type: application/cloudevents+json\r\n\r\n"
    return Delivery(broker, SUBJECT, reply, payload, headers)


async def fill(server: NatsServer) -> None:
    """Append to the log until it refuses."""
    async with connect(server.url, "edge", seed_file=server.seed("edge")) as edge:
        subject = Topic.session("acme", "big").fact("message")
        for size in (100_000, 1000, 1):
            with suppress(LogFull):
                for n in count():
                    await append(edge, Append(subject, b"x" * size, f"{size}.{n}"))


async def purge(server: NatsServer) -> None:
    """Make room."""
    client = await server.client(streams.PROVISIONER)
    await client.request(f"$JS.API.STREAM.PURGE.{streams.LOG}")
    await client.close()
