"""One session over every transport: WebSocket, SSE, JSON pages and REST share cursors (WIRE 1 to 3)."""

import asyncio
import json
from collections.abc import Callable

import pytest

from tests.harness.client import Client, Frame, http, joined, new_session
from tests.harness.multiplex import multiplexed
from tests.harness.sse import listening
from tests.harness.system import System

pytestmark = pytest.mark.anyio

STORY = [{"stream": {"deltas": 40, "interval_ms": 5, "size": 20}}]


def of(session_id: str) -> Callable[[Frame], bool]:
    """Whether a frame is of that session."""
    return lambda frame: bool(frame.get("session_id") == session_id)


def _api(shared: System, path: str) -> str:
    return f"{shared.edge}/api/v1{path}"


async def test_a_stream_of_events_says_what_a_socket_says(shared: System) -> None:
    """WIRE 3: the same stream; the id is the cursor, and only what may be resumed from has one."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with (
        joined(shared.edge, session_id, token) as client,
        listening(_api(shared, f"/sessions/{session_id}/events"), token) as stream,
    ):
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        await stream.until("replay_complete")
        await client.say("one two three")
        await client.until("turn_end")
        await stream.until("turn_end")
    assert [frame["id"] for frame in stream.frames if "id" in frame] == [event["id"] for event in client.events]
    for event in stream.events:
        frame = json.loads(event.data)
        assert event.event == "message"
        assert event.id == frame["cursor"]


async def test_a_client_may_change_its_transport_in_mid_turn(shared: System) -> None:
    """Every event once and in order, whatever each piece of it came over, also from the other edge."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    second = shared.services[-1].url
    seen: list[str] = []
    async with joined(shared.edge, session_id, token) as client:
        await client.say(STORY)
        await client.until("stream_delta", lambda frame: frame["offset"] > 100)
        seen += [event["id"] for event in client.events]
    async with listening(f"{second}/api/v1/sessions/{session_id}/events", token, after=client.cursor) as stream:
        await stream.until("stream_delta", lambda frame: frame["offset"] > 300)
        seen += [frame["id"] for frame in stream.frames if "id" in frame]
    rest = _api(shared, f"/sessions/{session_id}/events?after={stream.last_id}&limit=3")
    page = (await http("GET", rest, token=token)).json
    seen += [event["id"] for event in page["events"]]
    async with multiplexed(shared.edge, token) as many:
        await many.send("subscribe", session_id=session_id, after=page["cursor"])
        await many.until("turn_end")
        seen += [frame["id"] for frame in many.frames if "id" in frame and frame.get("session_id") == session_id]
    async with joined(shared.edge, session_id, token, after="0") as whole:
        everything = [event["id"] for event in whole.events]
    assert seen == everything[everything.index(seen[0]) :]


async def test_pages_give_every_event_once(shared: System) -> None:
    """WIRE 3: `{events, cursor, more}`, from the beginning without a cursor."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        await client.say("a b c d e f g")
        await client.until("turn_end")
    async with joined(shared.edge, session_id, token, after="0") as client:
        wanted = [event["id"] for event in client.events]
    found, cursor, more = [], "0", True
    while more:
        answer = await http("GET", _api(shared, f"/sessions/{session_id}/events?after={cursor}&limit=4"), token=token,
                            accept="application/json")  # fmt: skip
        page = answer.json
        assert len(page["events"]) <= 4
        found += [event["id"] for event in page["events"]]
        cursor, more = page["cursor"], page["more"]
    assert found == wanted
    async with joined(shared.edge, session_id, token, after=cursor) as client:
        assert client.events == []


@pytest.mark.parametrize(("cursor", "reason"), [("nonsense", "foreign"), ("{epoch}.zzzzzzzz.0.0", "future")])
@pytest.mark.parametrize("transport", ["sse", "page", "multiplex"])
async def test_a_cursor_that_cannot_be_honoured_is_told_on_every_transport(
    shared: System, transport: str, cursor: str, reason: str
) -> None:
    """WIRE 1: `resume_gap`, and then the snapshot."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        assert client.cursor
        cursor = cursor.format(epoch=client.cursor.split(".")[0])
    path = _api(shared, f"/sessions/{session_id}/events?after={cursor}")
    if transport == "sse":
        async with listening(path, token) as stream:
            await stream.until("replay_complete")
        found = stream.frames[:2]
    elif transport == "page":
        found = (await http("GET", path, token=token, accept="application/json")).json["events"]
    else:
        async with multiplexed(shared.edge, token) as many:
            await many.send("subscribe", session_id=session_id, after=cursor)
            found = [await many.until("resume_gap"), await many.receive()]
    assert [frame["type"] for frame in found] == ["resume_gap", "snapshot"]
    assert found[0]["reason"] == reason


async def test_one_socket_carries_many_sessions(shared: System) -> None:
    """WIRE 2: frames name their session in both directions, and a refusal leaves the socket open."""
    token = shared.token(user="tabs")
    first, second = await new_session(shared.edge, token), await new_session(shared.edge, token)
    foreign = await new_session(shared.edge, shared.token(user="somebody"))
    async with multiplexed(shared.edge, token) as many:
        for session_id in (first, second):
            await many.send("subscribe", session_id=session_id, request_id="r")
            assert await many.until("subscribed") == {
                "type": "subscribed", "session_id": session_id, "agent": "script", "request_id": "r",
            }  # fmt: skip
            await many.until("replay_complete", of(session_id))
        await many.send("subscribe", session_id=foreign)
        assert (await many.until("unsubscribed"))["code"] == "forbidden"
        await many.send("subscribe", session_id="nowhere")
        assert (await many.until("unsubscribed"))["code"] == "session_not_found"
        for session_id in (first, second):
            await many.send("message", session_id=session_id, content=session_id)
        ended: set[str] = set()
        while ended != {first, second}:
            ended.add((await many.until("turn_end"))["session_id"])
        for end in many.of("stream_end"):
            assert end["content"] == end["session_id"]
        await many.send("message", content="to whom?", request_id="nobody")
        assert (await many.until("error"))["code"] == "bad_request"
        await many.send("unsubscribe", session_id=first)
        assert (await many.until("unsubscribed"))["code"] is None
        await many.send("message", session_id=first, content="still there?")
        assert (await many.until("error"))["code"] == "bad_request"
        await many.send("message", session_id=second, content="and you?")
        await many.until("turn_end")


async def test_the_user_is_told_once_a_socket_however_many_sessions_it_carries(shared: System) -> None:
    """WIRE 2: the user's own and the tenant's events come once, and can be resumed."""
    token = shared.token(user="told")
    sessions = [await new_session(shared.edge, token) for _ in range(3)]
    outside = await shared.nats.tenant_client("acme")
    try:
        async with multiplexed(shared.edge, token) as many:
            own = await many.until("replay_complete", lambda frame: "session_id" not in frame)
            for session_id in sessions:
                await many.send("subscribe", session_id=session_id)
                await many.until("replay_complete", of(session_id))
            headers = {"ce-specversion": "1.0", "ce-id": "once", "ce-source": "test", "ce-type": "news",
                       "ce-userid": "told"}  # fmt: skip
            await outside.request("ingest.acme.test.news", b'{"n":1}', headers=headers, timeout=10)
            await many.until("external_event")
            await many.send("ping")
            await many.until("pong")
            assert len(many.of("external_event")) == 1
        async with multiplexed(shared.edge, token, after=own["cursor"]) as again:
            assert (await again.until("external_event"))["event_id"] == "once"
    finally:
        await outside.close()


async def test_typing_reaches_the_others_and_is_not_kept(shared: System) -> None:
    """Issue: the other connections of the session, on every edge; never stored; not its sender."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    second = shared.services[-1].url
    async with (
        joined(shared.edge, session_id, token) as typist,
        joined(second, session_id, token) as other,
        listening(_api(shared, f"/sessions/{session_id}/events"), token) as stream,
    ):
        await stream.until("replay_complete")
        await typist.send("typing", is_typing=True)
        told = {"type": "typing", "session_id": session_id, "user_id": "ann", "is_typing": True}
        assert await other.until("typing") == told
        assert await stream.until("typing") == told
        await typist.send("ping")
        await typist.until("pong")
        assert typist.of("typing") == []
    async with joined(shared.edge, session_id, token, after="0") as later:
        assert later.of("typing") == []


async def test_who_types_without_end_is_told_so(shared: System) -> None:
    """Issue: `typing` is rate limited, with `retry_after`."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        for _ in range(20):
            await client.send("typing")
        error = await client.until("error")
    assert error["code"] == "rate_limited"
    assert error["details"]["retry_after"] > 0


async def _subscribe(client: Client, session_id: str) -> None:
    await client.send("subscribe", session_id=session_id)
    await client.until("replay_complete", of(session_id))


async def test_many_sessions_over_one_slow_socket_lose_nothing(shared: System) -> None:
    """The outbox is one for all; each topic is read again from what was written of it."""
    token = shared.token(user="manifold")
    sessions = [await new_session(shared.edge, token) for _ in range(3)]
    async with multiplexed(shared.edge, token) as many:
        for session_id in sessions:
            await _subscribe(many, session_id)
        big = [{"stream": {"deltas": 300, "interval_ms": 0, "size": 8000}}]
        for session_id in sessions:
            await many.send("message", session_id=session_id, content=json.dumps(big))
        ended: set[str] = set()
        while len(ended) < 3:
            frame = await many.receive()
            await asyncio.sleep(0)
            if frame["type"] == "turn_end":
                ended.add(frame["session_id"])
        for session_id in sessions:
            mine = [frame for frame in many.of("stream_delta", "stream_end") if frame["session_id"] == session_id]
            assert "".join(frame["delta"] for frame in mine[:-1]) == mine[-1]["content"]
