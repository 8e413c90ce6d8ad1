"""P10, attacked: cursors, ids, frames and headers made to reach what is somebody else's."""

import json
import socket
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from broker.connect import Broker, connect
from broker.read import read
from contracts.subjects import LOG_ALL
from tests.harness.client import http, joined, new_session, open_socket, socket_at
from tests.harness.multiplex import multiplexed
from tests.harness.sse import listening
from tests.harness.system import System

pytestmark = pytest.mark.anyio

SECRET = "canary-of-the-victim"
HEADERS = {"Nats-Msg-Id", "Nats-Expected-Last-Subject-Sequence", "Nats-Expected-Last-Subject-Sequence-Subject",
           "Nats-TTL", "traceparent", "tracestate"}  # fmt: skip
"""Every header that a message of the log may have."""

OF_A_READ = {"Nats-Stream", "Nats-Subject", "Nats-Sequence", "Nats-Time-Stamp", "Nats-Num-Pending",
             "Nats-Last-Sequence", "Nats-UpTo-Sequence"}  # fmt: skip
"""What the server adds when it is read."""


@pytest.fixture(scope="module")
async def victim(shared: System) -> tuple[str, str]:
    """A session in which a secret was said, and the cursor that its owner was given."""
    token = shared.token(user="prey")
    session_id = await new_session(shared.edge, token, title=SECRET)
    async with joined(shared.edge, session_id, token) as client:
        await client.say(SECRET)
        await client.until("turn_end")
        assert client.cursor
        return session_id, client.cursor


def _cursors(cursor: str) -> list[str]:
    """What a cursor may be turned into."""
    epoch, *positions = cursor.split(".")
    return [
        cursor,
        ".".join([epoch, "0", "0", "0"]),
        ".".join([epoch, *positions, "0"]),
        ".".join([epoch, *positions, "0", "0", "0"]),
        ".".join([epoch, "0"]),
        epoch,
        ".".join([epoch, "zzzzzzzzzzzzzzzzzzzzzzzz", "0", "0"]),
        ".".join([epoch, "-1", "0", "0"]),
        ".".join([epoch, "+1", "0", "0"]),
        ".".join(["0" * len(epoch), "0", "0", "0"]),
        f"{epoch}.0.0.*",
        f"{epoch}.0.0.>",
        "0.1.0.0",
        "٠",
        "0\r\nX: y",
        "x" * 500,
    ]


async def test_no_cursor_shows_what_is_somebody_elses(shared: System, victim: tuple[str, str]) -> None:
    """A cursor says where to begin, never what may be read; the answer is one's own session, or a gap."""
    session_id, cursor = victim
    thief = shared.token(user="thief")
    own = await new_session(shared.edge, thief)
    async with joined(shared.edge, own, thief) as mine:
        await mine.say("what is mine")
        await mine.until("turn_end")
    for crafted in _cursors(cursor):
        after = quote(crafted, safe="")
        async with joined(shared.edge, own, thief, after=after) as client:
            assert SECRET not in json.dumps(client.frames)
            assert {frame["session_id"] for frame in client.frames if "session_id" in frame} == {own}
        page = await http("GET", f"{shared.edge}/api/v1/sessions/{own}/events?after={after}", token=thief)
        assert page.status == 200
        assert SECRET not in page.body.decode()
        async with listening(f"{shared.edge}/api/v1/sessions/{own}/events?after={after}", thief) as stream:
            await stream.until("replay_complete")
            assert SECRET not in json.dumps(stream.frames)
        async with multiplexed(shared.edge, thief, after=after) as many:
            await many.until("replay_complete")
            await many.send("subscribe", session_id=own, after=crafted)
            await many.until("replay_complete")
            await many.send("subscribe", session_id=session_id, after=crafted)
            assert (await many.until("unsubscribed"))["code"] == "forbidden"
            assert SECRET not in json.dumps(many.frames)
        async with open_socket(shared.edge, session_id, thief, after=after) as client:
            assert await client.closed() == 4003
            assert client.frames == []


async def test_a_cursor_that_is_too_long_is_refused(shared: System) -> None:
    """Where it is a field; in an address the head's size bounds it."""
    token = shared.token(user="wordy")
    own = await new_session(shared.edge, token)
    async with multiplexed(shared.edge, token) as many:
        await many.send("subscribe", session_id=own, after="x" * 513)
        assert (await many.until("error"))["code"] == "bad_request"
    page = await http("GET", f"{shared.edge}/api/v1/sessions/{own}/events?after={'x' * 513}", token=token)
    assert (page.status, page.json["code"]) == (400, "bad_request")


async def test_another_tenants_session_is_like_none(shared: System, victim: tuple[str, str]) -> None:
    """WIRE: its existence is not told; every route says the same of it as of one that is not there."""
    session_id, _ = victim
    stranger = shared.token(tenant="globex", user="prey", scope="read write approve admin")
    reads = ["", "/events", "/messages", "/approvals", "/connections"]
    routes = [*(("GET", path) for path in reads), ("PATCH", ""), ("DELETE", ""), ("POST", "/messages"),
              ("POST", "/approvals/c"), ("POST", "/cancel")]  # fmt: skip
    bodies = {"/messages": {"content": "x"}, "/approvals/c": {"approved": True}, "": {"title": "x"}}
    for method, path in routes:
        body = bodies.get(path) if method in ("POST", "PATCH") else None
        theirs, none = [
            await http(method, f"{shared.edge}/api/v1/sessions/{name}{path}", body, token=stranger)
            for name in (session_id, "nowhere")
        ]
        assert theirs.status == none.status == 404, (method, path)
        assert theirs.json | {"trace_id": None} == none.json | {"trace_id": None}
    for path in ("/api/v1/sessions/{}/ws", "/ws/agents/{}"):
        for name in (session_id, "nowhere"):
            async with socket_at(shared.edge + path.format(name), authorization=f"Bearer {stranger}") as client:
                assert await client.closed() == 4004
    listed = await http("GET", f"{shared.edge}/api/v1/connections", token=stranger)
    assert session_id not in listed.body.decode()


BAD_IDS = ["*", ">", "a.b", "", " ", "a b", "a\u0000b", "é", "x" * 65, "../x", "$JS", "s1\r\nX: y"]


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
    """Issue: not a header of its request, and nothing that it puts in a field with a line break."""
    token = shared.token(user="header")
    own = await new_session(shared.edge, token)
    break_in = "x\r\nNats-Rollup: all\r\nNats-Msg-Id: stolen"
    planted = {
        "Nats-Msg-Id": "stolen", "Nats-Rollup": "all", "Nats-TTL": "1s", "X-Evil": "canary-header",
        "traceparent": "00-zz-zz-01", "tracestate": "evil=canary-header", "X-Forwarded-For": "canary-header",
        "User-Agent": "canary-header",
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
