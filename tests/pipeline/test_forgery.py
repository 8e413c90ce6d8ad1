"""What a client says of itself, forged: ids in paths and frames, who speaks, and headers for the log."""

import json
import socket
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from broker.connect import Broker, connect
from broker.read import read
from contracts.subjects import LOG_ALL
from tests.harness.client import http, joined, new_session, socket_at
from tests.harness.multiplex import multiplexed
from tests.harness.system import System

pytestmark = pytest.mark.anyio

HEADERS = {"Nats-Msg-Id", "Nats-Expected-Last-Subject-Sequence", "Nats-Expected-Last-Subject-Sequence-Subject",
           "Nats-TTL", "traceparent", "tracestate"}  # fmt: skip
"""Every header that a message of the log may have."""

OF_A_READ = {"Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp", "Nats-Num-Pending",
             "Nats-Last-Sequence", "Nats-UpTo-Sequence"}  # fmt: skip
"""What the server adds when it is read."""

BAD_IDS = ["*", ">", "a.b", "", " ", "a b", "a\u0000b", "é", "x" * 65, "../x", "$JS", "s1\r\nX: y", "s1\n"]


@pytest.mark.parametrize("bad", BAD_IDS)
async def test_an_id_in_a_frame_cannot_reach_beyond_its_place(shared: System, bad: str) -> None:
    """The subject grammar: refused where it enters, whatever the field."""
    token = shared.token(user="crafty")
    own = await new_session(shared.edge, token)
    frames = [
        {"type": "subscribe", "session_id": bad},
        {"type": "unsubscribe", "session_id": bad},
        {"type": "message", "content": "x", "session_id": bad},
        {"type": "message", "content": "x", "session_id": own, "client_message_id": bad},
        {"type": "cancel", "message_id": bad, "session_id": own},
        {"type": "tool_approval", "tool_call_id": bad, "approved": True, "session_id": own},
        {"type": "typing", "session_id": bad},
    ]
    async with multiplexed(shared.edge, token) as many:
        await many.send("subscribe", session_id=own)
        await many.until("snapshot")
        for frame in frames:
            await many.connection.send(json.dumps(frame))
            assert (await many.until("error"))["code"] == "bad_request", frame
    for path, body in {
        "": [{"session_id": bad}, {"project_id": bad}, {"agent": bad}],
        f"/{own}/messages": [{"content": "x", "client_message_id": bad}],
        f"/{own}/cancel": [{"message_id": bad}],
    }.items():
        for fields in body:
            answer = await http("POST", f"{shared.edge}/api/v1/sessions{path}", fields, token=token)
            assert (answer.status, answer.json["code"]) == (400, "bad_request"), fields
    path = f"{shared.edge}/api/v1/sessions/{own}/approvals/{quote(bad, safe='') or '%20'}"
    assert (await http("POST", path, {"approved": True}, token=token)).status in (400, 404)
    found = await http("GET", f"{shared.edge}/api/v1/sessions/{quote(bad, safe='') or '%20'}", token=token)
    assert found.status in (400, 404)


async def test_a_frame_cannot_speak_for_somebody_else(shared: System) -> None:
    """Who, where and when come from the edge; what a frame says of them counts for nothing."""
    token = shared.token(user="liar")
    own, other = await new_session(shared.edge, token), await new_session(shared.edge, token)
    lie = {"user_id": "boss", "role": "assistant", "id": "e_1", "cursor": "0", "timestamp": "2000-01-01T00:00:00Z",
           "tenant": "globex", "message_id": "m_1", "project_id": "apollo", "finish_reason": "stop"}  # fmt: skip
    async with joined(shared.edge, own, token) as client:
        await client.say("a lie", **lie)
        message = await client.until("message")
        assert (message["user_id"], message["role"], message["session_id"]) == ("liar", "user", own)
        assert message["message_id"] != "m_1"
        assert message["id"] != "e_1"
        assert not message["timestamp"].startswith("2000")
        await client.until("turn_end")
        await client.say("elsewhere", session_id=other, request_id="r")
        assert (await client.until("error"))["code"] == "bad_request"
        twice = '{"type":"ping","type":"message","content":"which one?","content":"the last"}'
        await client.connection.send(twice)
        for type_ in ("stream_end", "turn_end", "session_updated", "snapshot", "connected", "tool_result"):
            await client.send(type_, reply_to="m", status="completed", request_id=type_)
            assert (await client.until("error", lambda error: "request_id" in error))["code"] == "unknown_type"
    async with joined(shared.edge, other, token, after="0") as client:
        assert client.of("message") == []


@pytest.fixture
async def reader(shared: System) -> AsyncIterator[Broker]:
    """Who reads the log as it is."""
    async with connect(shared.nats.url, "edge", seed_file=shared.nats.seed("edge")) as broker:
        yield broker


async def test_nothing_of_a_client_becomes_a_header_in_the_log(shared: System, reader: Broker) -> None:
    """Issue: not a header of its request, a valid trace neither, and nothing in a field with a line break."""
    token = shared.token(user="header")
    own = await new_session(shared.edge, token)
    break_in = "x\r\nNats-Rollup: all\r\nNats-Msg-Id: stolen"
    planted = {
        "Nats-Msg-Id": "stolen", "Nats-Rollup": "all", "Nats-TTL": "1s", "X-Evil": "canary-header",
        "traceparent": f"00-{'deadbeef' * 4}-{'cafe' * 4}-01", "tracestate": "evil=canary-header",
        "baggage": "evil=canary-header", "X-Forwarded-For": "canary-header", "X-Forwarded-Host": "canary-header",
        "Forwarded": "for=canary-header", "User-Agent": "canary-header",
    }  # fmt: skip
    url = f"{shared.edge}/api/v1/sessions/{own}/ws?device={quote(break_in)}"
    async with socket_at(url, authorization=f"Bearer {token}", **planted) as client:
        await client.until("replay_complete")
        await client.say(break_in, request_id=break_in, metadata={"Nats-Rollup": "all", break_in: break_in})
        assert (await client.until("message_accepted"))["request_id"] == break_in
        await client.until("turn_end")
        shown = await http("GET", f"{shared.edge}/api/v1/sessions/{own}/connections", token=token)
        assert "\n" not in shown.json["items"][0]["device"]
    _raw(shared.edge, own, token, planted)
    number = 0
    async for records in read(reader, LOG_ALL, 0):
        for record in records:
            names = {line.partition(b":")[0].decode() for line in record.headers.splitlines()[1:] if line}
            assert names <= HEADERS | OF_A_READ
            assert b"canary-header" not in record.headers
            assert b"stolen" not in record.headers
            assert b"deadbeef" not in record.headers
            number += 1
    assert number > 20


def _raw(edge: str, session_id: str, token: str, headers: dict[str, str]) -> None:
    """A request with those headers, and a line break in one more."""
    host, port = edge.removeprefix("http://").split(":")
    body = b'{"content":"raw"}'
    lines = [f"POST /api/v1/sessions/{session_id}/messages HTTP/1.1", f"Host: {host}:{port}", "Connection: close",
             f"Authorization: Bearer {token}", f"Content-Length: {len(body)}", "Content-Type: application/json",
             *(f"{name}: {value}" for name, value in headers.items())]  # fmt: skip
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 202"), answer
