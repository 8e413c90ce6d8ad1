"""P1, P4, P5, P6 at chosen moments: what a client sees when one process dies or hangs exactly there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from contracts import streams
from tests.harness.client import Client, Frame, joined, new_session
from tests.harness.history import read_log
from tests.harness.system import Service, System, system
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

LONG = [{"stream": {"deltas": 80, "interval_ms": 20, "size": 32}}]
LENGTH = 80 * 32
NOTE = [{"tool": "demo.note", "arguments": {"text": "taken"}}, {"say": "done"}]


@asynccontextmanager
async def conversation(directory: Path, *services: str) -> AsyncIterator[tuple[System, Client]]:
    """A system of these services beside an edge, and a client in a new session."""
    async with system(directory, services=("edge", *services)) as running:
        token = running.token()
        session_id = await new_session(running.edge, token)
        async with joined(running.edge, session_id, token) as client:
            yield running, client


async def in_mid_stream(client: Client) -> None:
    """A long answer is being streamed."""
    await client.say(LONG)
    await client.until("stream_delta", lambda frame: frame["offset"] > 100)


async def died(service: Service) -> None:
    """Wait for a process that is to kill itself."""
    async with asyncio.timeout(20):
        await service.process.wait()


def whole(frames: list[Frame]) -> str:
    """What a client has put together of one answer. Fails where an offset does not fit."""
    text = ""
    for frame in frames:
        if frame["type"] in ("stream_start", "stream_reset"):
            text = ""
        elif frame["type"] == "stream_delta":
            assert frame["offset"] == len(text)
            text += frame["delta"]
    return text


def attempts(client: Client) -> list[int]:
    """The attempts that began."""
    return [frame["attempt"] for frame in client.of("turn_start")]


def finished(client: Client) -> None:
    """One answer, whole and as it was streamed, and one end."""
    (end,) = client.of("stream_end")
    assert end["content"] == whole(client.events)
    assert len(end["content"]) == LENGTH
    assert [frame["status"] for frame in client.of("turn_end")] == ["completed"]


async def test_a_runner_killed_in_mid_stream_is_replaced_and_the_half_answer_withdrawn(tmp_path: Path) -> None:
    async with conversation(tmp_path, "agent_runner") as (running, client):
        await in_mid_stream(client)
        await running["agent_runner"].restart()
        await client.until("turn_end")
        assert attempts(client) == [1, 2]
        assert [frame["attempt"] for frame in client.of("stream_reset")] == [2]
        assert len(client.of("stream_start")) == 1
        finished(client)


async def test_a_runner_that_slept_through_its_takeover_writes_nothing_more(tmp_path: Path) -> None:
    """Promise P4: it is fenced by the log, lets go, and is as good as new for the next message."""
    async with conversation(tmp_path, "agent_runner") as (running, client):
        await in_mid_stream(client)
        sleeper = running["agent_runner"]
        second = await running.add("agent_runner")
        await second.ready()
        sleeper.pause()
        await client.until("turn_start", lambda frame: frame["attempt"] == 2)
        await client.until("stream_delta")
        sleeper.resume()
        await client.until("turn_end")
        taken_over = client.frames[client.frames.index(client.of("turn_start")[1]) :]
        shown = [frame["type"] for frame in taken_over if frame["type"] != "agent_status"]
        assert shown[:2] == ["turn_start", "stream_reset"]
        assert set(shown[2:-2]) == {"stream_delta"}
        assert shown[-2:] == ["stream_end", "turn_end"]
        finished(client)
        await second.kill()
        await client.say("are you well?")
        assert (await client.until("stream_end"))["content"] == "are you well?"


@pytest.mark.parametrize(
    ("fault", "status", "taken"),
    [
        pytest.param("append:tool_started:before", "completed", 1, id="before the start"),
        pytest.param("append:tool_started:after", "unknown", 0, id="after the start, before the call"),
        pytest.param("call:after", "unknown", 1, id="after the effect, before the result"),
        pytest.param("append:tool_result:after", "completed", 1, id="after the result"),
    ],
)
async def test_a_note_is_taken_once_at_most_and_what_nobody_knows_is_told(
    tmp_path: Path, fault: str, status: str, taken: int
) -> None:
    """Promise P5, for a tool that must not run twice."""
    async with conversation(tmp_path, "agent_runner") as (running, client):
        armed = await running.add("tool_runner", MILLRACE_FAULT=f"{fault}:1:kill")
        await client.say(NOTE)
        request = await client.until("tool_approval_request")
        await client.send("tool_approval", tool_call_id=request["tool_call_id"], approved=True)
        await died(armed)
        await running.add("tool_runner")
        await client.until("turn_end")
        assert [frame["status"] for frame in client.of("tool_result")] == [status]
        assert running.notes == ["taken"] * taken


@pytest.mark.parametrize("fault", ["append:tool_started:after", "call:after"])
async def test_a_read_only_tool_is_silently_run_again(tmp_path: Path, fault: str) -> None:
    """Promise P5, for a tool that may run twice."""
    async with conversation(tmp_path, "agent_runner") as (running, client):
        armed = await running.add("tool_runner", MILLRACE_FAULT=f"{fault}:1:kill")
        await client.say([{"tool": "demo.add", "arguments": {"a": 2, "b": 3}}])
        await died(armed)
        await running.add("tool_runner")
        await client.until("turn_end")
        assert [frame["status"] for frame in client.of("tool_result")] == ["completed"]
        assert "5" in str(client.of("tool_result")[0]["result"])


async def test_a_message_whose_edge_died_before_telling_is_sent_again_and_answered_once(tmp_path: Path) -> None:
    """Promise P1: the same `client_message_id` is the same message, on any edge."""
    async with conversation(tmp_path, "agent_runner") as (running, client):
        token, session_id = running.token(), client.frames[0]["session_id"]
        armed = await running.add("edge", MILLRACE_FAULT="append:message:after:1:kill")
        await armed.ready()
        async with joined(armed.url, session_id, token) as unlucky:
            await unlucky.say("hello", client_message_id="one")
            assert await unlucky.closed() == 1006
        assert not unlucky.of("message_accepted")
        ended = await client.until("turn_end")
        await client.say("hello", client_message_id="one")
        accepted = await client.until("message_accepted")
        assert accepted["message_id"] == ended["reply_to"]
        await client.say("and then?")
        await client.until("turn_end")
        assert [frame["content"] for frame in client.of("message")] == ["hello", "and then?"]
        assert len(client.of("turn_end")) == 2


async def test_an_answer_goes_on_when_the_broker_is_killed_in_mid_stream(tmp_path: Path) -> None:
    """The services wait and reconnect; sockets stay open; nothing acknowledged is lost."""
    async with conversation(tmp_path, "agent_runner") as (running, client):
        await in_mid_stream(client)
        await running.nats.kill()
        await running.nats.start()
        await client.until("turn_end")
        assert attempts(client) == [1]
        assert not client.of("resume_gap")
        finished(client)


async def test_who_is_at_work_while_the_broker_is_away_goes_on_with_it(tmp_path: Path) -> None:
    """Deliveries come again after `ack_wait`, to their own holders: nobody takes over from one who lives."""
    async with conversation(tmp_path, "agent_runner", "tool_runner") as (running, client):
        await client.say([{"tool": "demo.slow", "arguments": {"seconds": 3 * streams.ACK_WAIT}}])
        await client.until("tool_progress")
        await running.nats.kill()
        await asyncio.sleep(1.5 * streams.ACK_WAIT)
        await running.nats.start()
        await client.until("turn_end")
        assert attempts(client) == [1]
        assert [frame["status"] for frame in client.of("tool_result")] == ["completed"]
        provisioner = await running.nats.client("provisioner")
        started = [record for record in await read_log(provisioner, 0) if record.type == "tool_started"]
        await provisioner.close()
        assert len(started) == 1


PATIENT = """
[agents.patient]
model = "script"
attempts = 2
"""


@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_turn_that_waits_for_a_person_outlives_more_deaths_than_it_has_attempts(
    tmp_path: Path, side: str
) -> None:
    """Promise P1: what kills its process, before or after it says that it waits, is not held against it."""
    async with system(tmp_path, services=("edge", "agent_runner", "tool_runner"), config=PATIENT) as running:
        token = running.token()
        session_id = await new_session(running.edge, token)
        async with joined(running.edge, session_id, token) as client:
            await client.say(NOTE)
            request = await client.until("tool_approval_request")
            await client.until("agent_status", lambda frame: frame["status"] == "waiting_approval")
            await running["agent_runner"].kill()
            for _ in range(3):
                await died(await running.add("agent_runner", MILLRACE_FAULT=f"append:agent_status:{side}:1:kill"))
            await running["agent_runner"].start()
            await client.until("turn_start", lambda frame: frame["attempt"] == 5)
            await client.send("tool_approval", tool_call_id=request["tool_call_id"], approved=True)
            assert (await client.until("turn_end"))["status"] == "completed"
            assert running.notes == ["taken"]


async def test_an_approval_outlives_everything(tmp_path: Path) -> None:
    """Promise P6: it is still pending when everything was killed, and then decided once."""
    async with conversation(tmp_path, "agent_runner", "tool_runner") as (running, client):
        session_id, token = client.frames[0]["session_id"], running.token()
        await client.say(NOTE)
        request = await client.until("tool_approval_request")
        await asyncio.gather(*(service.kill() for service in running.services))
        await running.nats.kill()
        await running.nats.start()
        for service in running.services:
            await service.start()
        await running["edge"].ready()
        async with joined(running.edge, session_id, token) as again:
            (snapshot,) = again.of("snapshot")
            assert [pending["id"] for pending in snapshot["approvals"]] == [request["id"]]
            await again.send("tool_approval", tool_call_id=request["tool_call_id"], approved=True)
            assert (await again.until("tool_result"))["status"] == "completed"
            await again.until("turn_end")
            await until(lambda: running.notes == ["taken"])
