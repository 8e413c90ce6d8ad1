"""What a later attempt of an agent in Python finds, where the process of the first one was killed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness.client import Client, joined, new_session
from tests.harness.system import Service, System, system
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

CONFIG = """
[[tools.rules]]
tool = "demo.note"
decision = "allow"

[agents.redirected]
run = "tests.harness.agents:redirected"

[agents.beside]
run = "tests.harness.agents:beside"

[agents.research]
run = "examples.research:research"
tools = ["demo.note"]
"""
DOCUMENTS = sorted(path.name for path in Path("docs").glob("*.md"))
SERVICES = ("edge", "agent_runner", "tool_runner")


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[System]:
    """A system with those agents."""
    file = str(tmp_path / "effects.txt")
    async with system(tmp_path, services=SERVICES, config=CONFIG, measured=False, AGENTS_TEST_EFFECTS=file) as own:
        yield own


def effects(running: System) -> list[str]:
    """What the agents did outside the log."""
    return (running.directory / "effects.txt").read_text().splitlines()


async def died(armed: Service) -> None:
    """Wait until the process has reached its point."""
    await until(lambda: armed.process.returncode is not None)


async def completed(client: Client) -> list[str]:
    """What was said in a turn that completes."""
    end = await client.until("turn_end", lambda frame: frame["status"] != "steered")
    assert end["status"] == "completed", end
    return [said["content"] for said in client.of("stream_end") if said["reply_to"] == end["reply_to"]]


@pytest.mark.parametrize(
    ("point", "found"),
    [
        pytest.param("append:turn_end:after:1", "left,right|", id="taken in and not told"),
        pytest.param("append:steer_applied:after:1", "left,right|", id="told, and nothing done since"),
        pytest.param("append:step:before:1", "left,right|", id="its step not recorded"),
        pytest.param("append:step:after:1", "left|right", id="a step recorded since"),
    ],
)
async def test_a_later_attempt_finds_what_steered_the_turn_at_the_same_boundary(
    running: System, point: str, found: str
) -> None:
    """Decision 0018: `right` comes while nobody runs the turn; no look takes it in that was before what is recorded."""
    token = running.token()
    session_id = await new_session(running.edge, token, agent="redirected")
    armed = await running.armed("agent_runner", f"{point}:kill")
    async with joined(running.edge, session_id, token) as client:
        await client.say("go")
        await client.until("stream_end")
        await client.say("left", policy="steer")
        await died(armed)
        await client.say("right", policy="steer")
        await client.until("message", lambda frame: frame["content"] == "right")
        await running["agent_runner"].start()
        assert await completed(client) == ["working\n", found]
        questions = {frame["message_id"]: frame["content"] for frame in client.of("message")}
        assert [questions[frame["message_id"]] for frame in client.of("steer_applied")] == ["left", "right"]


@pytest.mark.parametrize("order", ["quick slow", "slow quick"])
async def test_of_steps_side_by_side_only_what_was_not_recorded_is_done_again(running: System, order: str) -> None:
    """Our choice: places are given in the order in which steps begin, whichever is done first."""
    token = running.token()
    session_id = await new_session(running.edge, token, agent="beside")
    armed = await running.armed("agent_runner", "append:step:after:1:kill")
    async with joined(running.edge, session_id, token) as client:
        await client.say(order)
        await died(armed)
        await running["agent_runner"].start()
        assert await completed(client) == [order]
        assert sorted(effects(running)) == ["quick", "slow", "slow"]


POINTS = (
    "append:step:before:1",
    "append:step:after:3",
    "append:workflow_progress:before:2",
    "append:stream_delta:after:1",
    "append:tool_call:before:1",
    "append:tool_call:after:1",
)


async def test_the_research_example_may_be_killed_at_any_point(running: System) -> None:
    """Its claim: the answer is that of a turn that nobody killed, each document is read once, one thing is noted."""
    token = running.token()
    session_id = await new_session(running.edge, token, agent="research")
    async with joined(running.edge, session_id, token) as client:
        await client.say("broker")
        undisturbed = await completed(client)
        for number, point in enumerate(POINTS, 2):
            armed = await running.armed("agent_runner", f"{point}:kill")
            await client.say("broker")
            await died(armed)
            await running["agent_runner"].start()
            assert await completed(client) == undisturbed
            assert len(running.notes) == number
    turns: dict[str, list[str]] = {}
    for record in await running.log():
        if record.type == "step":
            turns.setdefault(record.event["reply_to"], []).append(record.event["name"])
    assert list(turns.values()) == [["list", *(f"read {name}" for name in DOCUMENTS)]] * (1 + len(POINTS))
