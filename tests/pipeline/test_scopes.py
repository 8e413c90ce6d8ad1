"""What credentials allow, over every transport (WIRE: Identity)."""

import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.harness.client import Client, http, joined, new_session, open_socket
from tests.harness.multiplex import multiplexed
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


async def test_who_may_only_approve_sees_what_there_is_to_decide(shared: System) -> None:
    """WIRE: `approve` joins any session; whoever decides has to see on what."""
    owner, approver = shared.token(user="olav"), shared.token(user="vito", scope="approve")
    session_id = await new_session(shared.edge, owner)
    call_id = await _asked(shared, session_id, owner)
    async with joined(shared.edge, session_id, approver) as client:
        assert client.of("snapshot")[0]["approvals"][0]["tool_call_id"] == call_id
        for frame in SPEAKING:
            assert await _refused(client, frame) == "forbidden"
        await client.send("tool_approval", tool_call_id=call_id, approved=False)
        assert (await client.until("tool_approval"))["decided_by"] == "vito"
        await client.send("auth", token=shared.token(user="vito", scope="read write"))
        assert (await client.until("error"))["code"] == "forbidden"
    created = await http("POST", f"{shared.edge}/api/v1/sessions", {}, token=approver)
    assert created.status == 403


async def test_who_may_only_write_is_told_no_answer(shared: System) -> None:
    """WIRE: `read` is to see one's sessions, and an answer is part of one."""
    owner, writer = shared.token(user="wim"), shared.token(user="wim", scope="write")
    session_id = await new_session(shared.edge, owner)
    url = f"{shared.edge}/api/v1/sessions/{session_id}"
    for path, accept in (("?wait=true", "application/json"), ("", "text/event-stream")):
        refused = await http("POST", f"{url}/messages{path}", {"content": "may I?"}, token=writer, accept=accept)
        assert (refused.status, refused.json["code"]) == (403, "forbidden")
    assert (await http("POST", f"{url}/messages", {"content": "fire"}, token=writer)).status == 202
    for path in ("", "/messages", "/events", "/approvals", "/connections"):
        assert (await http("GET", url + path, token=writer)).status == 403, path
    async with open_socket(shared.edge, session_id, writer) as client:
        assert await client.closed() == 4003
    await _nothing_was_done(shared, session_id, owner)


async def test_who_joins_somebody_elses_session_takes_no_place_there(shared: System) -> None:
    """Our choice: to approve is neither to speak nor to send the owner away; an admin may."""
    owner, approver = shared.token(user="omar"), shared.token(user="vera", scope="read approve")
    session_id = await new_session(shared.edge, owner)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(joined(shared.edge, session_id, owner)) for _ in range(4)]
        async with joined(shared.edge, session_id, approver, takeover="all"):
            for takeover in ("true", "all"):
                async with open_socket(shared.edge, session_id, approver, takeover=takeover) as another:
                    assert await another.closed() == 4029
            for client in clients:
                await client.send("ping")
                await client.until("pong")
            admin = shared.token(user="root", scope="admin")
            await stack.enter_async_context(joined(shared.edge, session_id, admin, takeover="all"))
            assert [await client.closed() for client in clients] == [4000] * 4
