"""Ingest: what is published reaches its topic once, in order, or the dead letters."""

import json
from base64 import b64decode

import pytest
from opentelemetry.trace import get_current_span

from contracts.errors import Code
from contracts.subjects import Topic
from event_ingest.ingest import parents
from tests.event_ingest.outside import (
    ATTRIBUTES,
    STRUCTURED,
    SUBJECT,
    Outside,
    ingesting,
    is_settled,
)
from tests.harness.nats_server import NatsServer
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

S1 = Topic.session("acme", "s1")
TOPICS = [
    ({"sessionid": "s1"}, S1, {"session_id": "s1"}),
    ({"userid": "u1"}, Topic.user("acme", "u1"), {"user_id": "u1"}),
    ({"projectid": "p1"}, Topic.project("acme", "p1"), {"project_id": "p1"}),
    ({}, Topic.everybody("acme"), {"tenant": "acme"}),
]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_an_event_reaches_each_kind_of_topic_in_both_modes(nats: NatsServer, world: Outside) -> None:
    """Promise P7, WIRE 5."""
    async with ingesting(nats) as broker:
        for n, (target, _, _) in enumerate(TOPICS):
            await world.binary({"n": n}, **target, id=f"b{n}")
            last = await world.structured(**target, id=f"s{n}", data={"n": n})
        await until(lambda: is_settled(broker, last))
    for n, (_, topic, address) in enumerate(TOPICS):
        found = await world.events(topic)
        assert [event["event_id"] for event in found] == [f"b{n}", f"s{n}"]
        for event in found:
            assert event["type"] == "external_event"
            assert (event["source"], event["event_type"]) == ("/ci", "build.finished")
            assert event["event_data"] == {"n": n}
            assert address.items() <= event.items()
    assert await world.letters() == []


async def test_typed_events_become_the_frames_of_their_type(nats: NatsServer, world: Outside) -> None:
    """Promise: WIRE 5."""
    progress = {"workflow_id": "w1", "step": "compile", "progress": 0.5}
    async with ingesting(nats) as broker:
        await world.binary(progress, type="workflow.progress", id="1", sessionid="s1")
        await world.structured(data={"agent_id": "a1", "status": "busy"}, type="agent.update", id="2", userid="u1")
        memory = {"memory_id": "m1", "agent_id": "a1", "operation": "add"}
        last = await world.binary(memory, type="memory.update", id="3", userid="u1")
        await until(lambda: is_settled(broker, last))
    assert [event["type"] for event in await world.events(S1)] == ["workflow_progress"]
    found = await world.events(Topic.user("acme", "u1"))
    assert [event["type"] for event in found] == ["agent_update", "memory_update"]
    assert (found[0]["agent_id"], found[0]["user_id"]) == ("a1", "u1")


REFUSED = {
    "no event": (b"hello", {}, Code.INVALID_EVENT),
    "no id": (
        b"{}",
        {"ce-specversion": "1.0", "ce-source": "/", "ce-type": "t"},
        Code.INVALID_EVENT,
    ),
    "malformed JSON": (b'{"specversion": "1.0",', STRUCTURED, Code.INVALID_EVENT),
    "a depth bomb": (b"[" * 100_000, STRUCTURED, Code.INVALID_EVENT),
    "two targets": (
        json.dumps(ATTRIBUTES | {"sessionid": "s1", "userid": "u1"}).encode(),
        STRUCTURED,
        Code.INVALID_EVENT,
    ),
    "a target with a wildcard": (
        json.dumps(ATTRIBUTES | {"sessionid": "*"}).encode(),
        STRUCTURED,
        Code.INVALID_EVENT,
    ),
    "data of another type": (
        json.dumps(ATTRIBUTES | {"type": "agent.update", "data": 1}).encode(),
        STRUCTURED,
        Code.INVALID_EVENT,
    ),
    "an unknown session": (
        json.dumps(ATTRIBUTES | {"sessionid": "nobody"}).encode(),
        STRUCTURED,
        Code.SESSION_NOT_FOUND,
    ),
    "too much": (b"x" * 600_000, {"ce-id": "1", "Ce-Extra": "é"}, Code.TOO_LARGE),
}


async def test_what_cannot_be_accepted_lies_in_the_dead_letters_with_its_reason(
    nats: NatsServer, world: Outside
) -> None:
    """Promise P7: and nothing of it reaches the log, nor delays what is accepted."""
    async with ingesting(nats) as broker:
        first = [await world.publish(payload, headers) for payload, headers, _ in REFUSED.values()]
        last = await world.binary(sessionid="s1")
        await until(lambda: is_settled(broker, last))
    letters = await world.letters()
    assert [letter["reason"] for letter in letters] == [code for _, _, code in REFUSED.values()]
    assert [letter["ingest_sequence"] for letter in letters] == first
    assert len({letter["id"] for letter in letters}) == len(letters)
    for letter, (payload, headers, _) in zip(letters, REFUSED.values(), strict=True):
        assert (letter["tenant"], letter["subject"]) == ("acme", SUBJECT)
        assert payload.startswith(b64decode(letter["data"]))
        assert letter["size"] == len(payload)
        assert letter["headers"] == headers
        assert letter["error"]
        assert letter["received_at"].endswith("Z")
    assert len(await world.events(S1)) == 1
    assert await world.events(Topic.everybody("acme")) == []


async def test_an_event_for_a_deleted_session_is_refused_and_for_a_closed_one_is_not(
    nats: NatsServer, world: Outside
) -> None:
    """Our choice: what is closed can still be read."""
    async with ingesting(nats) as broker:
        await world.binary(id="1", sessionid="s1")
        last = await world.binary(id="2", sessionid="s1")
        await until(lambda: is_settled(broker, last))
        await world.session("s1", "closed")
        last = await world.binary(id="3", sessionid="s1")
        await until(lambda: is_settled(broker, last))
        await world.session("s1", "deleted")
        last = await world.binary(id="4", sessionid="s1")
        await until(lambda: is_settled(broker, last))
    assert [event["event_id"] for event in await world.events(S1)] == ["1", "2", "3"]
    assert [letter["reason"] for letter in await world.letters()] == [Code.SESSION_NOT_FOUND]


async def test_a_refused_event_may_be_published_again_once_its_session_exists(nats: NatsServer, world: Outside) -> None:
    """Our choice: only what was delivered is not delivered again, so that letters can be redriven."""
    async with ingesting(nats) as broker:
        last = await world.binary(sessionid="s2")
        await until(lambda: is_settled(broker, last))
        await world.session("s2")
        last = await world.binary(sessionid="s2")
        await until(lambda: is_settled(broker, last))
    assert len(await world.events(Topic.session("acme", "s2"))) == 1


async def test_a_source_and_id_are_delivered_once(nats: NatsServer, world: Outside) -> None:
    """Promise: WIRE 5; in whichever mode, and the first one counts."""
    async with ingesting(nats) as broker:
        await world.binary({"n": 1}, sessionid="s1")
        await world.structured(sessionid="s1", data={"n": 2})
        await world.binary({"n": 3}, sessionid="s1", source="/cd")
        last = await world.binary({"n": 4}, sessionid="s1")
        await until(lambda: is_settled(broker, last))
    assert [event["event_data"]["n"] for event in await world.events(S1)] == [1, 3]
    assert await world.letters() == []


async def test_tenants_do_not_meet(nats: NatsServer, world: Outside) -> None:
    """Promise P10: not by the same ids, nor by what a message says of its tenant."""
    globex = "ingest.globex.ci.build.finished"
    async with ingesting(nats) as broker:
        last = await world.binary(1, id="1")
        other = await world.structured(subject=globex, id="1", tenant="acme", data=2)
        lost = await world.binary(subject=globex, id="2", sessionid="s1")
        await until(lambda: is_settled(broker, last))
        await until(lambda: is_settled(broker, max(other, lost), "globex"))
    found = [await world.events(Topic.everybody(tenant)) for tenant in ("acme", "globex")]
    assert [[event["event_data"] for event in each] for each in found] == [[1], [2]]
    assert [letter["reason"] for letter in await world.letters("globex")] == ["session_not_found"]
    assert await world.letters("acme") == []
    assert await world.events(S1) == []


async def test_the_subject_that_was_published_to_decides_nothing_but_the_tenant(
    nats: NatsServer, world: Outside
) -> None:
    """Promise: WIRE 5; also where it holds what no subject should."""
    async with ingesting(nats) as broker:
        for n, rest in enumerate(["x", "s.t.u.v", "*.>", "log.globex.tenant.all"]):
            last = await world.binary(n, id=str(n), userid="u1", subject=f"ingest.acme.{rest}")
        await until(lambda: is_settled(broker, last))
    found = await world.events(Topic.user("acme", "u1"))
    assert [event["event_data"] for event in found] == [0, 1, 2, 3]


async def test_a_topic_has_its_events_in_the_order_of_publishing(nats: NatsServer, world: Outside) -> None:
    """Our choice: the deliveries of a tenant are taken one after another."""
    for n in range(100):
        last = await world.binary(n, id=str(n), userid=f"u{n % 3}")
    async with ingesting(nats) as broker:
        await until(lambda: is_settled(broker, last))
    for user in range(3):
        found = await world.events(Topic.user("acme", f"u{user}"))
        assert [event["event_data"] for event in found] == list(range(user, 100, 3))


async def test_a_subject_that_is_not_utf8_stops_nobody(nats: NatsServer, world: Outside) -> None:
    """Our choice: a tenant's publisher must not be able to end the service."""
    async with ingesting(nats) as broker:
        await world.raw(b"PUB ingest.acme.\xff 2\r\nhi\r\n")
        last = await world.binary(sessionid="s1")
        await until(lambda: is_settled(broker, last))
        assert not broker.lost.is_set()
    assert [letter["reason"] for letter in await world.letters()] == [Code.INVALID_EVENT]
    assert len(await world.events(S1)) == 1


@pytest.mark.parametrize(
    "carried",
    [{"traceparent": TRACE}, {"ce-traceparent": TRACE}],
    ids=["message header", "extension"],
)
async def test_the_trace_of_the_publisher_goes_on_with_the_event(
    nats: NatsServer, world: Outside, carried: dict[str, str]
) -> None:
    """Promise: a trace crosses the broker."""
    headers = {f"ce-{name}": value for name, value in ATTRIBUTES.items()} | carried
    async with ingesting(nats) as broker:
        last = await world.publish(b"", headers)
        await until(lambda: is_settled(broker, last))
    (record,) = await world.records(Topic.everybody("acme"))
    assert TRACE[:35].encode() in record.headers


def test_the_hop_is_the_parent_of_the_span_and_the_origin_is_linked() -> None:
    """Standard: CloudEvents distributed tracing, the extension holds where the trace began."""
    origin = TRACE.replace("0af7", "1af7")
    header = f"NATS/1.0\r\ntraceparent: {TRACE}\r\n\r\n".encode()
    for headers, extension, parent, linked in [
        (header, {"traceparent": origin}, TRACE, [origin]),
        (header, {}, TRACE, []),
        (b"", {"traceparent": origin}, origin, []),
        (b"", {"traceparent": ""}, None, []),
    ]:
        context, links = parents(headers, extension)
        found = get_current_span(context).get_span_context()
        assert (format(found.trace_id, "032x") if found.is_valid else None) == (parent and parent[3:35])
        assert [format(link.context.trace_id, "032x") for link in links] == [o[3:35] for o in linked]
