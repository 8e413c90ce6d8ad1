"""REST of a session and of its conversation (WIRE 3)."""

import json
from collections.abc import Callable

import pytest

from tests.harness.client import Frame, http, joined, new_session, open_socket
from tests.harness.multiplex import multiplexed
from tests.harness.sse import listening
from tests.harness.system import System

pytestmark = pytest.mark.anyio


def of(session_id: str) -> Callable[[Frame], bool]:
    """Whether a frame is of that session."""
    return lambda frame: bool(frame.get("session_id") == session_id)


def _api(shared: System, path: str) -> str:
    return f"{shared.edge}/api/v1{path}"


async def test_who_followed_one_turn_goes_on_without_missing_what_the_user_was_told(shared: System) -> None:
    """WIRE: cursors are shared. The turn's stream carries the session alone: its cursors wait in the other topics."""
    token = shared.token(user="switcher")
    session_id = await new_session(shared.edge, token)
    outside = await shared.nats.tenant_client("acme")
    headers = {"ce-specversion": "1.0", "ce-id": "between", "ce-source": "test", "ce-type": "news",
               "ce-userid": "switcher"}  # fmt: skip
    program = json.dumps([{"say": "before"}, {"tool": "demo.note", "arguments": {"text": "x"}}])
    path = _api(shared, f"/sessions/{session_id}/messages")
    try:
        async with (
            multiplexed(shared.edge, token) as elsewhere,
            listening(path, token, method="POST", json={"content": program}) as stream,
        ):
            asked = await stream.until("tool_approval_request")
            await outside.request("ingest.acme.test.news", b'{"n":1}', headers=headers, timeout=10)
            await elsewhere.until("external_event")
            decided = _api(shared, f"/sessions/{session_id}/approvals/{asked['tool_call_id']}")
            assert (await http("POST", decided, {"approved": False}, token=token)).status == 200
            await stream.rest()
            assert not stream.of("external_event")
    finally:
        await outside.close()
    async with joined(shared.edge, session_id, token, after=stream.last_id) as client:
        told = client.of("external_event") or [await client.until("external_event")]
        assert told[0]["event_id"] == "between"
        assert not client.of("turn_end")


async def test_a_message_over_rest_is_answered_in_the_ways_a_caller_may_wait(shared: System) -> None:
    """WIRE 3: 202 with a cursor from which the turn can be followed; 200 with the answer; or the turn as SSE."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    path = _api(shared, f"/sessions/{session_id}/messages")
    stored = await http("POST", path, {"content": "hello there", "client_message_id": "one"}, token=token)
    assert stored.status == 202
    async with joined(shared.edge, session_id, token, after=stored.json["cursor"]) as client:
        end = client.of("turn_end") or [await client.until("turn_end")]
        assert end[0]["reply_to"] == stored.json["message_id"]
        assert client.of("message")[0]["client_message_id"] == "one"
    again = await http("POST", f"{path}?wait=true", {"content": "hello there", "client_message_id": "one"}, token=token)
    assert (again.status, again.json["message_id"]) == (200, stored.json["message_id"])
    assert (again.json["status"], again.json["answer"]["content"]) == ("completed", "hello there")
    async with listening(path, token, method="POST", json={"content": "as a stream"}) as stream:
        frames = await stream.rest()
    assert [frame["type"] for frame in frames][-1] == "turn_end"
    assert [frame["content"] for frame in frames if frame["type"] == "stream_end"] == ["as a stream"]
    failed = await http("POST", f"{path}?wait=true", {"content": json.dumps([{"fail": "no"}])}, token=token)
    assert (failed.status, failed.json["status"], failed.json["error"]["code"]) == (200, "failed", "agent_failed")


async def test_a_caller_who_waits_is_told_when_a_person_is_asked_and_can_decide(shared: System) -> None:
    """WIRE 3: 202 when an approval is needed; the list of approvals; the decision, once."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    base = _api(shared, f"/sessions/{session_id}")
    program = json.dumps([{"tool": "demo.note", "arguments": {"text": "from rest"}}])
    asked = await http("POST", f"{base}/messages?wait=true", {"content": program}, token=token)
    assert asked.status == 202
    [request] = (await http("GET", f"{base}/approvals", token=token)).json["items"]
    call = f"{base}/approvals/{request['tool_call_id']}"
    assert (await http("POST", call, {"approved": True}, token=token)).status == 200
    assert (await http("POST", call, {"approved": False}, token=token)).json["code"] in {
        "approval_decided", "approval_not_found",
    }  # fmt: skip
    same = {"content": program, "client_message_id": asked.json["client_message_id"]}
    done = await http("POST", f"{base}/messages?wait=true", same, token=token)
    assert (done.status, done.json["status"]) == (200, "completed")
    assert (await http("GET", f"{base}/approvals", token=token)).json["items"] == []
    assert "from rest" in shared.notes


async def test_a_turn_is_cancelled_over_rest(shared: System) -> None:
    """WIRE 3: `POST …/cancel`; without a message id, the running turn."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        await client.say([{"stream": {"deltas": 5000, "interval_ms": 10, "size": 20}}])
        await client.until("stream_delta")
        asked = await http("POST", _api(shared, f"/sessions/{session_id}/cancel"), token=token)
        assert asked.status == 202
        assert (await client.until("turn_end"))["status"] == "cancelled"


async def test_a_deleted_session_is_gone_for_everybody_who_was_there(shared: System) -> None:
    """Issue: appends the fact; reads answer 404; connected clients are told and closed."""
    token = shared.token(user="deleter")
    session_id = await new_session(shared.edge, token)
    async with (
        open_socket(shared.services[-1].url, session_id, token) as client,
        multiplexed(shared.edge, token) as many,
        listening(_api(shared, f"/sessions/{session_id}/events"), token) as stream,
    ):
        await client.until("replay_complete")
        await many.send("subscribe", session_id=session_id)
        await many.until("replay_complete", of(session_id))
        await stream.until("replay_complete")
        assert (await http("DELETE", _api(shared, f"/sessions/{session_id}"), token=token)).status == 204
        assert await client.closed() == 4004
        assert client.of("session_updated")[-1]["state"] == "deleted"
        assert (await many.until("unsubscribed"))["code"] == "session_not_found"
        rest = await stream.rest()
        assert [frame["type"] for frame in rest][-2:] == ["session_updated", "error"]
    for path in ("", "/events", "/messages", "/approvals", "/connections"):
        answer = await http("GET", _api(shared, f"/sessions/{session_id}{path}"), token=token)
        assert (answer.status, answer.json["code"]) == (404, "session_not_found")
    listed = (await http("GET", _api(shared, "/sessions"), token=token)).json["items"]
    assert session_id not in [item["session_id"] for item in listed]


async def test_a_closed_session_takes_no_message_and_can_be_opened_again(shared: System) -> None:
    """Issue: rename, close; connected clients learn of it without joining anew."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    path = _api(shared, f"/sessions/{session_id}")
    async with joined(shared.edge, session_id, token) as client:
        renamed = await http("PATCH", path, {"title": "Other"}, token=token)
        assert renamed.json["title"] == "Other"
        assert (await client.until("session_updated"))["title"] == "Other"
        assert (await http("PATCH", path, {"state": "closed"}, token=token)).json["state"] == "closed"
        await client.until("session_updated", lambda frame: frame["state"] == "closed")
        await client.say("anybody?")
        assert (await client.until("error"))["code"] == "session_closed"
        said = await http("POST", f"{path}/messages", {"content": "anybody?"}, token=token)
        assert (said.status, said.json["code"]) == (409, "session_closed")
        await http("PATCH", path, {"state": "active"}, token=token)
        await client.until("session_updated", lambda frame: frame["state"] == "active")
        await client.say("hello again")
        await client.until("turn_end")


async def test_history_pages_back_to_the_first_message(shared: System) -> None:
    """WIRE 3: `{messages, before}`, ascending; the snapshot's `before` is where to begin."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    path = _api(shared, f"/sessions/{session_id}/messages")
    for number in range(30):
        await http("POST", f"{path}?wait=true", {"content": f"number {number}"}, token=token)
    async with open_socket(shared.edge, session_id, token) as client:
        snapshot = await client.until("snapshot")
    found, before = list(snapshot["messages"]), snapshot["before"]
    assert before
    while before:
        page = (await http("GET", f"{path}?before={before}&limit=7", token=token)).json
        assert len(page["messages"]) <= 7
        found, before = page["messages"] + found, page["before"]
    assert [message["content"] for message in found] == [f"number {n}" for n in range(30) for _ in "qa"]
