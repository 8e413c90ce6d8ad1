"""What credentials allow: scopes and projects, over every transport, live and in replay (WIRE: Identity)."""

import json
from typing import Any

import pytest

from tests.harness.client import Client, http, joined, new_session, open_socket, socket_at
from tests.harness.multiplex import multiplexed
from tests.harness.sse import listening
from tests.harness.system import System

pytestmark = pytest.mark.anyio

SPEAKING: list[dict[str, Any]] = [
    {"type": "message", "content": "may I?"},
    {"type": "cancel"},
    {"type": "typing"},
]
CHANGING: list[tuple[str, str, object]] = [
    ("PATCH", "", {"title": "mine"}),
    ("DELETE", "", None),
    ("POST", "/messages", {"content": "may I?"}),
    ("POST", "/cancel", None),
]
NOTE = [{"tool": "demo.note", "arguments": {"text": "x"}}]


async def _asked(shared: System, session_id: str, token: str) -> str:
    """The id of a tool call that a person is asked about."""
    path = f"{shared.edge}/api/v1/sessions/{session_id}/messages?wait=true"
    assert (await http("POST", path, {"content": json.dumps(NOTE)}, token=token)).status == 202
    approvals = await http("GET", f"{shared.edge}/api/v1/sessions/{session_id}/approvals", token=token)
    call_id: str = approvals.json["items"][0]["tool_call_id"]
    return call_id


async def _refused(client: Client, frame: dict[str, Any]) -> str:
    await client.connection.send(json.dumps(frame | {"request_id": "r"}))
    code: str = (await client.until("error", lambda error: error.get("request_id") == "r"))["code"]
    return code


async def _nothing_was_done(shared: System, session_id: str, owner: str) -> None:
    async with joined(shared.edge, session_id, owner, after="0") as client:
        assert not [message for message in client.of("message") if message["content"] == "may I?"]
        assert [update["state"] for update in client.of("session_updated")] == ["active"]


async def test_who_may_only_read_changes_nothing(shared: System) -> None:
    """Over the session's socket, the one for many, and REST; reading goes on."""
    owner, reader = shared.token(user="rita"), shared.token(user="rita", scope="read")
    session_id = await new_session(shared.edge, owner)
    call_id = await _asked(shared, session_id, owner)
    decision = {"type": "tool_approval", "tool_call_id": call_id, "approved": True}
    async with joined(shared.edge, session_id, reader) as client, multiplexed(shared.edge, reader) as many:
        await many.send("subscribe", session_id=session_id)
        await many.until("snapshot")
        for frame in (*SPEAKING, decision):
            assert await _refused(client, frame) == "forbidden"
            assert await _refused(many, frame | {"session_id": session_id}) == "forbidden"
    changing = [*CHANGING, ("POST", f"/approvals/{call_id}", {"approved": True})]
    for method, path, body in changing:
        answer = await http(method, f"{shared.edge}/api/v1/sessions/{session_id}{path}", body, token=reader)
        assert (answer.status, answer.json["code"]) == (403, "forbidden"), path
    created = await http("POST", f"{shared.edge}/api/v1/sessions", {}, token=reader)
    assert created.status == 403
    for path in ("", "/messages", "/approvals", "/connections", "/events"):
        assert (await http("GET", f"{shared.edge}/api/v1/sessions/{session_id}{path}", token=reader)).status == 200
    await _nothing_was_done(shared, session_id, owner)


async def test_who_approves_joins_any_session_of_the_tenant_and_decides_there(shared: System) -> None:
    """And neither speaks, nor stops, nor changes it; another tenant's session is not there."""
    owner, approver = shared.token(user="olga"), shared.token(user="vera", scope="read write approve")
    session_id = await new_session(shared.edge, owner)
    call_id = await _asked(shared, session_id, owner)
    async with joined(shared.edge, session_id, approver) as client, multiplexed(shared.edge, approver) as many:
        await many.send("subscribe", session_id=session_id)
        assert (await many.until("snapshot"))["approvals"][0]["tool_call_id"] == call_id
        for frame in SPEAKING:
            assert await _refused(client, frame) == "forbidden"
            assert await _refused(many, frame | {"session_id": session_id}) == "forbidden"
        for method, path, body in CHANGING:
            answer = await http(method, f"{shared.edge}/api/v1/sessions/{session_id}{path}", body, token=approver)
            assert (answer.status, answer.json["code"]) == (403, "forbidden"), path
        await client.send("tool_approval", tool_call_id=call_id, approved=False, reason="not today")
        assert (await client.until("tool_approval"))["decided_by"] == "vera"
        assert (await client.until("turn_end"))["status"] == "completed"
    again = await _asked(shared, session_id, owner)
    path = f"{shared.edge}/api/v1/sessions/{session_id}/approvals/{again}"
    assert (await http("POST", path, {"approved": False}, token=approver)).status == 200
    listed = await http("GET", f"{shared.edge}/api/v1/sessions", token=approver)
    assert session_id not in str(listed.json)
    stranger = shared.token(tenant="globex", user="vera", scope="read approve admin")
    async with open_socket(shared.edge, session_id, stranger) as outside:
        assert await outside.closed() == 4004
    await _nothing_was_done(shared, session_id, owner)


async def test_an_admin_does_in_any_session_what_its_owner_may(shared: System) -> None:
    """Of the tenant; what is said is the admin's own."""
    owner, admin = shared.token(user="otto"), shared.token(user="root", scope="admin")
    session_id = await new_session(shared.edge, owner)
    async with joined(shared.edge, session_id, admin) as client:
        await client.say("from above")
        assert (await client.until("message"))["user_id"] == "root"
        await client.until("turn_end")
        path = f"{shared.edge}/api/v1/sessions/{session_id}"
        assert (await http("PATCH", path, {"title": "seen"}, token=admin)).json["title"] == "seen"
        everybody = await http("GET", f"{shared.edge}/api/v1/connections", token=admin)
        assert session_id in {item["session_id"] for item in everybody.json["items"]}
        assert (await http("DELETE", path, token=admin)).status == 204
        assert await client.closed() == 4004
    mine = await http("GET", f"{shared.edge}/api/v1/connections", token=owner)
    assert mine.json["items"] == []


async def test_a_token_whose_scopes_are_none_of_ours_does_nothing(shared: System) -> None:
    """Decision 10: most issuers put `openid profile` there."""
    owner, nobody = shared.token(user="odin"), shared.token(user="odin", scope="openid profile")
    session_id = await new_session(shared.edge, owner)
    async with open_socket(shared.edge, session_id, nobody) as client:
        assert await client.closed() == 4003
    for path in ("/sessions", f"/sessions/{session_id}", f"/sessions/{session_id}/events", "/connections", "/sse"):
        answer = await http("GET", f"{shared.edge}/api/v1{path}", token=nobody)
        assert (answer.status, answer.json["code"]) == (403, "forbidden"), path
    assert (await http("POST", f"{shared.edge}/api/v1/tickets", token=nobody)).status == 403


async def test_a_project_that_a_token_does_not_list_is_never_shown(shared: System) -> None:
    """Live, in replay, with the cursor of somebody who may see it, in pages, as SSE, and in the project's dialect."""
    owner = shared.token(user="pia", projects=["apollo"])
    blind = shared.token(user="pia", projects=["gemini"])
    session_id = await new_session(shared.edge, owner, project_id="apollo")
    refused = await http("POST", f"{shared.edge}/api/v1/sessions", {"project_id": "apollo"}, token=blind)
    assert (refused.status, refused.json["code"]) == (403, "forbidden")
    outside = await shared.nats.tenant_client("acme")
    url = f"{shared.edge}/api/v1/sessions/{session_id}"
    headers = {"ce-specversion": "1.0", "ce-source": "test", "ce-type": "canary", "ce-projectid": "apollo"}
    try:
        async with (
            joined(shared.edge, session_id, owner) as seeing,
            joined(shared.edge, session_id, blind) as client,
            listening(f"{url}/events", blind) as stream,
        ):
            begun = seeing.cursor
            await outside.request("ingest.acme.test.canary", b"1", headers=headers | {"ce-id": "p1"})
            assert (await seeing.until("external_event"))["project_id"] == "apollo"
            await client.say("a sign")
            await client.until("turn_end")
            await stream.until("turn_end")
            assert client.of("external_event") == stream.of("external_event") == []
            knowing = seeing.cursor
        for after in ("0", begun, knowing):
            async with joined(shared.edge, session_id, blind, after=after) as client:
                assert client.of("external_event") == []
            page = await http("GET", f"{url}/events?after={after}", token=blind)
            assert "canary" not in page.body.decode()
        async with joined(shared.edge, session_id, owner, after=begun) as client:
            assert len(client.of("external_event")) == 1
        async with socket_at(f"{shared.edge}/ws/projects/apollo/status?token={blind}") as client:
            assert await client.closed() == 4003
    finally:
        await outside.close()
