"""P10, attacked: cursors and addresses made to reach what is somebody else's."""

import json
from urllib.parse import quote

import pytest

from tests.harness.client import http, joined, new_session, open_socket, socket_at
from tests.harness.multiplex import multiplexed
from tests.harness.sse import listening
from tests.harness.system import System

pytestmark = pytest.mark.anyio

SECRET = "canary-of-the-victim"


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
        told = set()
        for name in (session_id, "nowhere"):
            async with socket_at(shared.edge + path.format(name), authorization=f"Bearer {stranger}") as client:
                assert await client.closed() == 4004
                told.add((len(client.frames), client.connection.close_reason))
        assert len(told) == 1
    for path in ("/sessions/{}/events", "/sse/llm?session_id={}"):
        for name in (session_id, "nowhere"):
            url = f"{shared.edge}/api/v1{path.format(name)}"
            answer = await http("GET", url, token=stranger, accept="text/event-stream")
            assert (answer.status, answer.json["code"]) == (404, "session_not_found")
    async with multiplexed(shared.edge, stranger) as many:
        for name in (session_id, "nowhere"):
            await many.send("subscribe", session_id=name, after="0")
            await many.until("unsubscribed")
        first, second = many.of("unsubscribed")
        assert first | {"session_id": ""} == second | {"session_id": ""}
    listed = await http("GET", f"{shared.edge}/api/v1/connections", token=stranger)
    assert session_id not in listed.body.decode()


async def test_what_is_said_reaches_nobody_else_live(shared: System, victim: tuple[str, str]) -> None:
    """Whoever tried to come in follows only what is his own, over every transport and on either edge."""
    session_id, _ = victim
    prey, thief = shared.token(user="prey"), shared.token(user="lurker")
    own = await new_session(shared.edge, thief)
    api, second = f"{shared.edge}/api/v1", shared.services[-1].url
    refused = await http("GET", f"{api}/sse/llm?session_id={session_id}", token=thief, accept="text/event-stream")
    assert (refused.status, refused.json["code"]) == (403, "forbidden")
    async with (
        joined(shared.edge, own, thief) as client,
        multiplexed(second, thief) as many,
        listening(f"{api}/sessions/{own}/events", thief) as events,
        listening(f"{api}/sse/llm", thief) as chunks,
        listening(f"{api}/sse", thief) as told,
    ):
        await many.send("subscribe", session_id=session_id)
        assert (await many.until("unsubscribed"))["code"] == "forbidden"
        await many.send("subscribe", session_id=own)
        await many.until("replay_complete", lambda frame: "session_id" in frame)
        await events.until("replay_complete")
        async with joined(shared.edge, session_id, prey) as speaker:
            await speaker.send("typing")
            await speaker.say(SECRET)
            await speaker.until("turn_end")
        for frame in ({"type": "message", "content": "x"}, {"type": "cancel"}, {"type": "typing"}):
            await many.connection.send(json.dumps(frame | {"session_id": session_id}))
            assert (await many.until("error"))["code"] == "bad_request"
        await client.say("a sign")
        await client.until("turn_end")
        await many.until("turn_end")
        await events.until("turn_end")
        await chunks.until("stream_chunk", lambda frame: bool(frame["is_final"]))
        for follower in (client, many, events, chunks, told):
            assert SECRET not in json.dumps(follower.frames)
            assert not follower.of("typing")
