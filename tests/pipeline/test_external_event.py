"""P7: an external event that the broker accepted reaches its users' sessions once, or lies with the dead letters."""

import json
from typing import Any

import pytest
from nats.js.errors import APIError, NoStreamResponseError

from tests.harness.client import joined, new_session
from tests.harness.system import System
from tests.harness.wait import until

pytestmark = pytest.mark.anyio


async def publish(system: System, event_id: str, data: object, tenant: str = "acme", **headers: str) -> None:
    """Publish a binary CloudEvent with the tenant's own credentials and a plain client."""
    client = await system.nats.tenant_client(tenant)
    try:
        attributes = {"ce-specversion": "1.0", "ce-id": event_id, "ce-source": "ci", "ce-type": "build.done"}
        attributes |= {"ce-datacontenttype": "application/json"} | headers
        payload = data if isinstance(data, bytes) else json.dumps(data).encode()
        await client.jetstream().publish(f"ingest.{tenant}.ci.build.done", payload, headers=attributes)
    finally:
        await client.close()


async def test_events_reach_a_session_its_user_its_project_and_its_tenant(shared: System) -> None:
    """WIRE 5: the attributes choose the target; a session's socket carries all four topics."""
    token = shared.token(user="events")
    session_id = await new_session(shared.edge, token, project_id="apollo")
    targets = {"ce-sessionid": session_id, "ce-userid": "events", "ce-projectid": "apollo", "": ""}
    async with joined(shared.edge, session_id, token) as client:
        cursor = client.cursor
        for number, (name, value) in enumerate(targets.items()):
            await publish(shared, f"e{number}", {"number": number}, **({name: value} if name else {}))
        for _ in targets:
            await client.until("external_event")
        events = sorted(client.of("external_event"), key=lambda event: event["event_id"])
        assert [event["event_data"] for event in events] == [{"number": number} for number in range(4)]
        assert events[0]["session_id"] == session_id
        assert events[1]["user_id"] == "events"
        assert events[2]["project_id"] == "apollo"
        assert events[3]["tenant"] == "acme"
        assert {(event["source"], event["event_type"]) for event in events} == {("ci", "build.done")}
    async with joined(shared.services[-1].url, session_id, token, after=cursor) as client:
        assert sorted(event["event_id"] for event in client.of("external_event")) == ["e0", "e1", "e2", "e3"]


async def test_progress_from_outside_is_a_frame_of_its_own_type(shared: System) -> None:
    """WIRE 5: `workflow.progress`, `agent.update`, `memory.update`."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    session: dict[str, str] = {"ce-sessionid": session_id}
    async with joined(shared.edge, session_id, token) as client:
        progress = {"workflow_id": "deploy", "step": "build", "progress": 0.5}
        await publish(shared, "w1", progress, **session, **{"ce-type": "workflow.progress"})
        update = {"agent_id": "a", "status": "busy"}
        await publish(shared, "a1", update, **session, **{"ce-type": "agent.update"})
        memory = {"memory_id": "m", "agent_id": "a", "operation": "create"}
        await publish(shared, "m1", memory, **session, **{"ce-type": "memory.update"})
        await client.until("memory_update")
        for type_, fields in (("workflow_progress", progress), ("agent_update", update), ("memory_update", memory)):
            frame = client.of(type_)[0]
            assert {name: frame[name] for name in fields} == fields


async def test_an_event_that_is_published_twice_is_delivered_once(shared: System) -> None:
    """WIRE 5: (source, id) is delivered once."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        for event_id in ("twice", "twice", "then"):
            await publish(shared, event_id, {}, **{"ce-sessionid": session_id})
        await client.until("external_event", lambda event: event["event_id"] == "then")
        assert [event["event_id"] for event in client.of("external_event")] == ["twice", "then"]


async def test_a_malformed_event_lies_with_the_dead_letters_with_its_reason(shared: System) -> None:
    """Promise P7: not lost silently."""
    await publish(shared, "bad", b"{", **{"ce-userid": "events"})
    await publish(shared, "nobody", {}, **{"ce-sessionid": "no-such-session"})

    async def letters() -> list[dict[str, Any]]:
        operator = await shared.nats.client("operator")
        try:
            found = []
            for sequence in (1, 2):
                message = await operator.jetstream().get_msg("DEAD", seq=sequence)
                found.append(json.loads(message.data or b""))
        except (APIError, NoStreamResponseError):
            return []
        finally:
            await operator.close()
        return found

    found = await until(letters, within=10)
    assert {letter["reason"] for letter in found} == {"invalid_event", "session_not_found"}
    assert all(letter["tenant"] == "acme" and letter["error"] for letter in found)


async def test_what_a_tenant_publishes_reaches_no_other_tenant(shared: System) -> None:
    """P10: the same session, user and project ids in another tenant stay silent."""
    own, other = shared.token(user="same"), shared.token(tenant="globex", user="same")
    for token in (own, other):
        await new_session(shared.edge, token, session_id="same", project_id="same")
    async with joined(shared.edge, "same", own) as mine, joined(shared.edge, "same", other) as theirs:
        for name in ("ce-sessionid", "ce-userid", "ce-projectid"):
            await publish(shared, f"canary-{name}", {}, **{name: "same"})
        await publish(shared, "canary", {})
        await publish(shared, "own", {}, tenant="globex", **{"ce-sessionid": "same"})
        for _ in range(4):
            await mine.until("external_event")
        await theirs.until("external_event")
        assert [event["event_id"] for event in theirs.of("external_event")] == ["own"]
        assert "canary" not in str(theirs.frames)
