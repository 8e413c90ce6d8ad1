"""P2: a client that comes back with its cursor gets every later event once, in order, or is told plainly."""

import pytest

from tests.harness.client import Client, joined, new_session, open_socket
from tests.harness.system import System

pytestmark = pytest.mark.anyio

PROGRAM = [
    {"say": "before "},
    {"stream": {"deltas": 10, "size": 30}},
    {"tool": "demo.add", "arguments": {"a": 1, "b": 2}},
    {"workflow": {"id": "w", "steps": ["a", "b"]}},
    {"say": "after"},
]


async def test_every_cursor_of_a_session_yields_exactly_the_later_events(shared: System) -> None:
    """Promise P2, from each place, on both edges."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        start = client.cursor
        await client.say(PROGRAM)
        await client.until("turn_end")
        events = client.events
    cursors = [start, *(event["cursor"] for event in events)]
    for number, cursor in enumerate(cursors):
        edge = shared.services[-1].url if number % 2 else shared.edge
        async with joined(edge, session_id, token, after=cursor) as client:
            assert [event["id"] for event in client.events] == [event["id"] for event in events[number:]]
            assert client.of("replay_complete")[0]["replayed"] == len(events) - number
            assert not client.of("snapshot", "resume_gap")


async def test_a_replay_gives_the_same_events_twice(shared: System) -> None:
    """FACTS I16: the events are the same, whoever asks and however often."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        await client.say(PROGRAM)
        await client.until("turn_end")
    replays = []
    for edge in (shared.edge, shared.services[-1].url, shared.edge):
        async with joined(edge, session_id, token, after="0") as client:
            replays.append([{**event, "cursor": ""} for event in client.events])
    assert replays[0] == replays[1] == replays[2]
    assert replays[0][0]["type"] == "session_updated"


async def test_reconnecting_in_mid_stream_on_another_edge_loses_and_repeats_nothing(shared: System) -> None:
    """Promise P2 while the answer streams: the client hops from edge to edge."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    seen: list[str] = []
    text = ""
    edges = [shared.edge, shared.services[-1].url]
    async with joined(shared.edge, session_id, token) as client:
        cursor = client.cursor
        await client.say([{"stream": {"deltas": 150, "interval_ms": 5, "size": 24}}])
        await client.until("message_accepted")
        seen += [event["id"] for event in client.events]
        cursor = client.cursor
    end = None
    hops = 0
    while end is None:
        hops += 1
        async with open_socket(edges[hops % 2], session_id, token, after=cursor) as client:
            for _ in range(15):
                frame = await client.receive()
                if frame["type"] == "stream_end":
                    end = frame
                    break
            text += "".join(delta["delta"] for delta in client.of("stream_delta"))
            seen += [event["id"] for event in client.events]
            cursor = client.cursor
    assert hops > 5
    assert text == end["content"]
    assert len(set(seen)) == len(seen)
    async with joined(shared.edge, session_id, token, after="0") as client:
        everything = [event["id"] for event in client.events]
    assert seen == everything[1 : len(seen) + 1]


async def test_a_joiner_in_mid_stream_gets_the_text_so_far_and_then_the_rest(shared: System) -> None:
    """Without a cursor: a snapshot with the open answer, and live events from exactly there."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as first:
        await first.say([{"stream": {"deltas": 60, "interval_ms": 5, "size": 24}}])
        for _ in range(20):
            await first.until("stream_delta")
        async with joined(shared.services[-1].url, session_id, token) as joiner:
            snapshot = joiner.of("snapshot")[0]
            active = snapshot["active"]
            assert snapshot["running"] == active["reply_to"] == first.of("message")[0]["message_id"]
            assert active["attempt"] == 1
            await joiner.until("turn_end")
            await first.until("turn_end")
            deltas = joiner.of("stream_delta")
            assert deltas[0]["offset"] == len(active["content"])
            text = active["content"] + "".join(delta["delta"] for delta in deltas)
            assert text == joiner.of("stream_end")[0]["content"]
            assert snapshot["last"] in {event["id"] for event in first.events}


async def test_a_snapshot_shows_the_last_messages_the_queue_and_what_waits(shared: System) -> None:
    """WIRE 1: what a snapshot holds."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        for number in range(3):
            await client.say(f"question {number}")
            await client.until("turn_end")
        await client.say([{"say": "look"}, {"tool": "demo.note", "arguments": {"text": "x"}}])
        request = await client.until("tool_approval_request")
        await client.say("next")
        await client.until("message_accepted")
    async with joined(shared.edge, session_id, token) as client:
        snapshot = client.of("snapshot")[0]
        shown = [(message["role"], message["content"]) for message in snapshot["messages"][:6]]
        assert shown == [(role, f"question {number}") for number in range(3) for role in ("user", "assistant")]
        assert snapshot["before"] is None
        assert snapshot["active"] is None
        assert [approval["tool_call_id"] for approval in snapshot["approvals"]] == [request["tool_call_id"]]
        assert len(snapshot["queue"]) == 1
        assert snapshot["running"] == request["reply_to"]
        await client.send("tool_approval", tool_call_id=request["tool_call_id"], approved=False)
        await _turn_ends(client, 2)


@pytest.mark.parametrize("case", ["foreign", "future", "nonsense"])
async def test_a_cursor_that_cannot_be_honoured_is_answered_with_a_gap_and_a_snapshot(
    shared: System, case: str
) -> None:
    """Promise P2: told plainly, never silence."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        cursor = client.cursor or ""
    epoch, *positions = cursor.split(".")
    cursors = {
        "foreign": ".".join([epoch[::-1], *positions]),
        "future": ".".join([epoch, "zzzzzz", *positions[1:]]),
        "nonsense": "%3Cb%3E",
    }
    async with joined(shared.edge, session_id, token, after=cursors[case]) as client:
        types = [frame["type"] for frame in client.frames]
        assert types == ["connected", "resume_gap", "snapshot", "replay_complete"]
        assert client.frames[1]["reason"] == ("future" if case == "future" else "foreign")
        await client.say("and live")
        assert (await client.until("turn_end"))["status"] == "completed"


async def _turn_ends(client: Client, count: int) -> None:
    for _ in range(count):
        await client.until("turn_end")
