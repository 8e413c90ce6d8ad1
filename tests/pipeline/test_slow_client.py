"""A client that reads slowly gets everything, and slows nobody else: the log is its buffer."""

import pytest

from tests.harness.client import joined, new_session
from tests.harness.system import System

pytestmark = pytest.mark.anyio

FLOOD = [{"stream": {"deltas": 60_000, "size": 50}}]


async def test_a_client_that_stops_reading_gets_every_event_once_when_it_reads_again(shared: System) -> None:
    """The outbox overflows, is dropped, and the connection goes back to the log."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as slow, joined(shared.edge, session_id, token) as quick:
        for _ in range(3):
            await quick.say(FLOOD)
        for _ in range(3):
            await quick.until("turn_end")
        assert len(slow.events) == 0
        for _ in range(3):
            await slow.until("turn_end")
        assert [event["id"] for event in slow.events] == [event["id"] for event in quick.events]
        assert sum(len(delta["delta"]) for delta in slow.of("stream_delta")) == 3 * 60_000 * 50


async def test_an_answer_beyond_the_largest_event_ends_with_length(shared: System) -> None:
    """A bound with its reason, and the turn completes."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        call = {"tool": "demo.add", "arguments": {"a": 1, "b": 1}}
        await client.say([{"stream": {"deltas": 100, "size": 65_536}}, call])
        end = await client.until("stream_end")
        assert end["finish_reason"] == "length"
        assert end["content"] == "".join(delta["delta"] for delta in client.of("stream_delta"))
        assert (await client.until("turn_end"))["status"] == "completed"
