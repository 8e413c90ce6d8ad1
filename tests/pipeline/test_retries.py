"""A message that is sent again, however late: it is the same message, and what became of it is told."""

import json

import pytest

from broker.connect import connect
from contracts.subjects import Topic
from edge import folds
from tests.harness.client import http, joined, new_session
from tests.harness.sse import listening
from tests.harness.system import System

pytestmark = pytest.mark.anyio


def _path(shared: System, session_id: str) -> str:
    return f"{shared.edge}/api/v1/sessions/{session_id}/messages"


@pytest.mark.parametrize("policy", ["enqueue", "reject"])
async def test_a_message_that_is_sent_again_after_its_turn_has_its_answer(shared: System, policy: str) -> None:
    """WIRE: the same `client_message_id` is the same message, also where another turn came between."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    path = _path(shared, session_id)
    body = {"content": "hello there", "client_message_id": "one", "policy": policy}
    first = await http("POST", f"{path}?wait=true", body, token=token)
    assert first.json["answer"]["content"] == "hello there"
    await http("POST", f"{path}?wait=true", {"content": "between"}, token=token)
    again = await http("POST", f"{path}?wait=true", body, token=token)
    assert (again.status, again.json) == (200, first.json)
    async with listening(path, token, method="POST", json=body) as stream:
        frames = await stream.rest()
    assert [frame["type"] for frame in frames][-1] == "turn_end"
    assert [frame["content"] for frame in frames if frame["type"] == "stream_end"] == ["hello there"]
    accepted = await http("POST", path, body, token=token)
    async with joined(shared.edge, session_id, token, after=accepted.json["cursor"]) as client:
        assert [frame["content"] for frame in client.of("message")] == ["hello there", "between"]


async def test_where_a_message_was_stored_first_is_where_its_turn_begins(shared: System) -> None:
    """The broker tells of a repeat for two minutes; after that it is stored a second time."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    path = _path(shared, session_id)
    waits = json.dumps([{"tool": "demo.note", "arguments": {"text": "x"}}])
    done = (await http("POST", f"{path}?wait=true", {"content": "done"}, token=token)).json["message_id"]
    open_ = (await http("POST", f"{path}?wait=true", {"content": waits}, token=token)).json["message_id"]
    places = {r.event["message_id"]: r.seq for r in await shared.log() if r.type == "message"}
    messages = [r for r in await shared.log() if r.type == "message" and r.event["session_id"] == session_id]
    topic = Topic.session("acme", session_id)
    async with connect(shared.nats.url, "edge", seed_file=shared.nats.seed("edge")) as edge:
        for record in messages:
            await edge.request(record.subject, json.dumps(record.event).encode())
        copies = [r for r in await shared.log() if r.type == "message" and r.event["session_id"] == session_id][2:]
        assert [r.event["message_id"] for r in copies] == [done, open_]
        for record in (*messages, *copies):
            message_id = record.event["message_id"]
            assert await folds.place_of(edge, topic, message_id, record.seq, thorough=False) == places[message_id]
    await http("POST", f"{path.removesuffix('messages')}cancel", {}, token=token)


@pytest.mark.parametrize("path", ["messages", "cancel", "approvals/x"])
async def test_a_body_that_is_no_text_is_a_bad_request(shared: System, path: str) -> None:
    """Promise: a clear error, and not one that says to try again."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    url = f"{shared.edge}/api/v1/sessions/{session_id}/{path}"
    refused = await http("POST", url, b'{"content":"\xff"}', token=token)
    assert (refused.status, refused.json["code"], refused.json["retryable"]) == (400, "bad_request", False)
