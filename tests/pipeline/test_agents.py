"""Agents in Python: what they may do, and that no later attempt does again what is recorded."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from examples.research import FOUND
from tests.harness.client import Client, joined, new_session
from tests.harness.system import System, system
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

CONFIG = """
[[tools.rules]]
tool = "demo.note"
decision = "allow"

[agents.worker]
run = "tests.harness.agents:worker"
tools = ["demo.*"]
attempts = 3

[agents.parallel]
run = "tests.harness.agents:parallel"
tools = ["demo.*"]

[agents.reader]
run = "tests.harness.agents:reader"

[agents.faulty]
run = "tests.harness.agents:faulty"
tools = ["demo.note"]
attempts = 2

[agents.endless]
run = "tests.harness.agents:endless"
tools = ["demo.*"]
max_calls = 5
max_bytes = 20000

[agents.late]
run = "tests.harness.agents:endless"
turn_seconds = 1

[agents.steered]
run = "tests.harness.agents:steered"

[agents.research]
run = "examples.research:research"
tools = ["demo.note"]
"""
SERVICES = ("edge", "agent_runner", "tool_runner")
SKEW = Path(__file__).parents[1] / "harness" / "skew"


def effects(running: System) -> list[str]:
    """What the agents did outside the log."""
    file = running.directory / "effects.txt"
    return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[System]:
    """A system with those agents, of the test's own."""
    async with started(tmp_path) as own:
        yield own


def started(directory: Path) -> AbstractAsyncContextManager[System]:
    """A system with those agents."""
    file = str(directory / "effects.txt")
    return system(directory, services=SERVICES, config=CONFIG, AGENTS_TEST_EFFECTS=file)


@pytest.fixture(scope="module")
async def agents(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """A system with those agents, shared by tests that leave it whole."""
    async with started(tmp_path_factory.mktemp("agents")) as own:
        yield own


@pytest.fixture(scope="module")
async def crashing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """A system with those agents, shared by tests that kill a runner and start it again."""
    async with started(tmp_path_factory.mktemp("crashing")) as own:
        yield own


async def talk(running: System, agent: str) -> tuple[str, str]:
    """A new session with that agent: its id and a token."""
    token = running.token()
    return await new_session(running.edge, token, agent=agent), token


async def letters(running: System) -> list[dict[str, object]]:
    """The dead letters."""
    client = await running.nats.client("provisioner")
    try:
        info = await client.jetstream().stream_info("DEAD")
        stored = [await client.jetstream().get_msg("DEAD", seq) for seq in range(1, info.state.last_seq + 1)]
        return [json.loads(message.data or b"{}") for message in stored]
    finally:
        await client.close()


def answers(client: Client) -> list[str]:
    """What was said."""
    return [end["content"] for end in client.of("stream_end")]


async def test_an_agent_says_steps_calls_and_reports_progress(agents: System) -> None:
    """Our choice: the interface of `Turn`."""
    session_id, token = await talk(agents, "worker")
    async with joined(agents.edge, session_id, token) as client:
        await client.say("go")
        assert (await client.until("turn_end"))["status"] == "completed"
        assert answers(client) == ["n=5 and more", "completed\n"]
        assert len(client.of("stream_delta")) > 2
        assert [(frame["step"], frame["progress"]) for frame in client.of("workflow_progress")] == [
            ("half", 0.5),
            ("done", 1.0),
        ]
        assert client.of("tool_result")[0]["status"] == "completed"
        assert not client.of("step")


async def test_calls_made_together_run_side_by_side(agents: System) -> None:
    """Our choice: results come in the order of the calls, whatever they are."""
    session_id, token = await talk(agents, "parallel")
    async with joined(agents.edge, session_id, token) as client:
        await client.say("go")
        assert (await client.until("turn_end"))["status"] == "completed"
        types = [frame["type"] for frame in client.of("tool_call", "tool_result")]
        assert types[:2] == ["tool_call", "tool_call"]
        assert answers(client)[0].startswith("completed:")
        assert "failed:tool_error" in answers(client)[0]


async def test_an_agent_reads_the_conversation(agents: System) -> None:
    """Our choice: in the terms of `agent_runner.prompt`."""
    session_id, token = await talk(agents, "reader")
    async with joined(agents.edge, session_id, token) as client:
        for text in ("one", "two"):
            await client.say(text)
            await client.until("turn_end")
        assert answers(client) == ["User one", "User one|Assistant User one|User two"]


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("raise", "agent_failed", "the agent raised ValueError"),
        ("exit", "agent_failed", "the agent raised SystemExit"),
        ("timeout", "agent_failed", "the agent raised TimeoutError"),
        ("unrecordable", "agent_failed", "the agent raised TypeError"),
        ("deep", "agent_failed", "the agent raised ValueError"),
        ("forbidden", "tool_denied", "may not call demo.add"),
    ],
)
async def test_an_agent_that_raises_ends_its_turn_and_the_session_goes_on(
    agents: System, how: str, code: str, said: str
) -> None:
    """What it raised is in the log of the service, never in a frame: there may be secrets in it."""
    session_id, token = await talk(agents, "faulty")
    async with joined(agents.edge, session_id, token) as client:
        await client.say(how)
        end = await client.until("turn_end")
        assert (end["status"], end["error"]["code"]) == ("failed", code)
        assert said in end["error"]["error"]
        assert client.of("error")[0]["code"] == code
        assert "secret" not in str(client.frames)
        await client.say("fine")
        assert (await client.until("turn_end"))["status"] == "completed"
        assert answers(client) == ["before ", "before ", "after"]


@pytest.mark.parametrize("how", ["flood", "loop", "caught"])
async def test_an_agent_that_floods_or_loops_is_ended_by_a_limit(agents: System, how: str) -> None:
    """Our choice: `max_bytes` and `max_calls` of the agent; what it said before stays."""
    session_id, token = await talk(agents, "endless")
    async with joined(agents.edge, session_id, token) as client:
        await client.say(how)
        end = await client.until("turn_end")
        assert (end["status"], end["error"]["code"]) == ("failed", "turn_limit")
        assert len(client.of("tool_call")) == (5 if how == "loop" else 0)


async def test_a_turn_that_takes_too_long_is_ended_and_kept_for_somebody_to_look_at(agents: System) -> None:
    """Our choice: `turn_seconds`. The agent cleans up; the message lies in DEAD."""
    session_id, token = await talk(agents, "late")
    async with joined(agents.edge, session_id, token) as client:
        await client.say("wait")
        end = await client.until("turn_end")
        assert (end["status"], end["error"]["code"]) == ("failed", "turn_timeout")
        assert client.of("stream_end")[0]["content"] == "waiting"
        kept = [letter for letter in await letters(agents) if letter["session_id"] == session_id]
        assert [(letter["reason"], letter["message_id"]) for letter in kept] == [("turn_timeout", end["reply_to"])]
        await until(lambda: "cleaned up" in effects(agents))


async def test_the_time_of_a_turn_goes_on_while_nobody_runs_it(running: System) -> None:
    """Our choice: `turn_seconds` from the first attempt's claim, in the broker's time. Nothing is begun again then."""
    session_id, token = await talk(running, "late")
    async with joined(running.edge, session_id, token) as client:
        await client.say("wait")
        await client.until("stream_start")
        began = datetime.fromisoformat(client.of("turn_start")[0]["timestamp"])
        await running["agent_runner"].kill()
        await until(lambda: (datetime.now(UTC) - began).total_seconds() > 1)
        await running["agent_runner"].start()
        end = await client.until("turn_end")
        assert (end["status"], end["error"]["code"]) == ("failed", "turn_timeout")
        assert len(client.of("turn_start")) == 1


@pytest.mark.parametrize("skew", [3600, -3600])
async def test_a_runner_whose_clock_is_wrong_changes_no_deadline(running: System, skew: int) -> None:
    """Issue: deadlines are in the broker's time, whoever begins the turn and whoever ends it."""
    right = running["agent_runner"]
    await right.kill()
    wrong = await running.add("agent_runner", PYTHONPATH=str(SKEW), CLOCK_SKEW=str(skew))
    session_id, token = await talk(running, "late")
    async with joined(running.edge, session_id, token) as client:
        await client.say("wait")
        await client.until("stream_end")  # so it was not overdue from the beginning
        said = datetime.fromisoformat(client.of("stream_end")[-1]["timestamp"])
        assert abs((said - datetime.now(UTC)).total_seconds()) > 3000, "its clock is right"
        end = await client.until("turn_end")
        assert (end["status"], end["error"]["code"]) == ("failed", "turn_timeout")
        await client.say("wait")
        await client.until("stream_end")
        await wrong.kill()
        await right.start()
        end = await client.until("turn_end")
        assert (end["status"], end["error"]["code"]) == ("failed", "turn_timeout")


async def test_an_agent_is_cancelled_where_it_waits(agents: System) -> None:
    """Promise P8: from any device; what it said stays as it is."""
    session_id, token = await talk(agents, "endless")
    async with joined(agents.edge, session_id, token) as client, joined(agents.edge, session_id, token) as other:
        await client.say("wait")
        await client.until("stream_end")
        before = effects(agents).count("cleaned up")
        await other.send("cancel")
        assert (await client.until("turn_end"))["status"] == "cancelled"
        assert [(end["content"], end["finish_reason"]) for end in client.of("stream_end")] == [("waiting", "stop")]
        await until(lambda: effects(agents).count("cleaned up") == before + 1)


async def test_an_agent_that_will_not_be_cancelled_is_left_to_itself(agents: System) -> None:
    """Our choice: its turn ends all the same, and it can say nothing more."""
    session_id, token = await talk(agents, "endless")
    async with joined(agents.edge, session_id, token) as client:
        await client.say("stubborn")
        await client.until("stream_end")
        await client.send("cancel")
        assert (await client.until("turn_end"))["status"] == "cancelled"
        assert "cancelled" in effects(agents)
        await client.say("wait")
        await client.until("stream_start")
        await client.send("cancel")
        assert (await client.until("turn_end"))["status"] == "cancelled"


async def test_an_agent_takes_in_what_steers_it(agents: System) -> None:
    """Durable receipts: the steering messages end as steered, and the turn names them."""
    session_id, token = await talk(agents, "steered")
    async with joined(agents.edge, session_id, token) as client:
        await client.say("go")
        await client.until("stream_end")
        for text in ("left", "stop"):
            await client.say(text, policy="steer")
        end = await client.until("turn_end", lambda frame: frame["status"] == "completed")
        assert answers(client) == ["working\n", "left,stop"]
        questions = {frame["message_id"]: frame["content"] for frame in client.of("message")}
        assert questions[end["reply_to"]] == "go"
        applied = [(questions[frame["message_id"]], frame["reply_to"]) for frame in client.of("steer_applied")]
        assert applied == [("left", end["reply_to"]), ("stop", end["reply_to"])]
        steered = [frame["reply_to"] for frame in client.of("turn_end") if frame["status"] == "steered"]
        assert [questions[message_id] for message_id in steered] == ["left", "stop"]


async def test_a_message_that_steers_too_late_is_told_so_and_answered_as_its_own(agents: System) -> None:
    """WIRE: `steer_missed`; the agent `endless` never looks for what steers it."""
    session_id, token = await talk(agents, "endless")
    async with joined(agents.edge, session_id, token) as client:
        await client.say("wait")
        await client.until("stream_start")
        first = client.of("message")[0]["message_id"]
        await client.say("loop", policy="steer")
        await client.until("message_accepted", lambda _frame: True)
        await client.send("cancel", message_id=first)
        end = await client.until("turn_end", lambda frame: frame["reply_to"] != first)
        missed = client.of("steer_missed")
        assert [(frame["message_id"], frame["reply_to"]) for frame in missed] == [(end["reply_to"], first)]
        assert not client.of("steer_applied")


def _hold(word: str) -> list[str]:
    """The document of each line that holds the word."""
    pages = [(path.name, path.read_text(encoding="utf-8").splitlines()) for path in sorted(Path("docs").glob("*.md"))]
    return [name for name, lines in pages for line in lines if re.search(rf"\b{word}\b", line, re.IGNORECASE)]


async def test_the_research_example_reads_reports_and_notes(agents: System) -> None:
    """examples/research.py, with this project's own documents."""
    session_id, token = await talk(agents, "research")
    async with joined(agents.edge, session_id, token) as client:
        await client.say("broker")
        assert (await client.until("turn_end"))["status"] == "completed"
        assert client.of("workflow_progress")[-1]["progress"] == 1
        held = _hold("broker")
        told = answers(client)[0].splitlines()
        assert told[0] == f"{len(held)} lines hold broker."
        assert [line.split()[1] for line in told[1:]] == [f"{name}:" for name in held[:FOUND]]
        assert client.of("tool_call")[0]["tool"] == "demo.note"


POINTS = (
    "append:turn_start:after:1",
    "append:step:before:1",
    "append:step:after:1",
    "append:stream_delta:after:2",
    "append:stream_end:before:1",
    "append:stream_end:after:1",
    "append:tool_call:before:1",
    "append:tool_call:after:1",
    "append:step:after:2",
    "append:stream_end:after:2",
    "append:turn_end:before:1",
    "append:turn_end:after:1",
)


@pytest.mark.parametrize("point", POINTS)
async def test_what_is_recorded_is_not_done_again_after_a_crash(crashing: System, point: str) -> None:
    """Promise P1 and the recovery points of docs/agents.md: kill -9 right there, and another process goes on."""
    noted, done = len(crashing.notes), len(effects(crashing))
    armed = await crashing.armed("agent_runner", f"{point}:kill")
    session_id, token = await talk(crashing, "worker")
    async with joined(crashing.edge, session_id, token) as client:
        await client.say("go")
        await until(lambda: armed.process.returncode is not None)
        await crashing["agent_runner"].start()
        assert (await client.until("turn_end"))["status"] == "completed"
        assert answers(client) == ["n=5 and more", "completed\n"]
        assert crashing.notes[noted:] == ["noted"]
        redone = ["first"] if point == "append:step:before:1" else []
        assert effects(crashing)[done:] == [*redone, "first", "second"]
        assert len(client.of("tool_call")) == len(client.of("tool_result")) == 1


async def test_a_replay_that_does_not_match_the_agents_code_fails_and_says_where(running: System) -> None:
    """Our choice: nothing is done twice or guessed; the message is not tried again."""
    armed = await running.armed("agent_runner", "append:step:after:1:kill")
    session_id, token = await talk(running, "worker")
    async with joined(running.edge, session_id, token) as client:
        await client.say("go")
        await until(lambda: armed.process.returncode is not None)
        await (await running.add("agent_runner", AGENTS_TEST_VERSION="2")).ready()
        end = await client.until("turn_end")
        assert (end["status"], end["error"]["code"]) == ("failed", "agent_failed")
        assert "the step 'first' at place 1, now an answer" in end["error"]["error"]
        assert effects(running) == ["first"]


@pytest.mark.parametrize("how", ["die", "die speaking"])
async def test_a_turn_whose_attempts_all_die_fails_and_its_message_is_kept(running: System, how: str) -> None:
    """Our choice: `attempts` of the agent. The process is started again by its supervisor."""
    session_id, token = await talk(running, "faulty")
    async with joined(running.edge, session_id, token) as client:
        await client.say(how)
        # the answer `before ` is a recorded step: the attempt that recorded it is the first of those that count
        for _ in range(2):
            async with asyncio.timeout(15):
                await running["agent_runner"].process.wait()
            await running["agent_runner"].restart()
        end = await client.until("turn_end")
        assert (end["status"], end["error"]["code"]) == ("failed", "agent_failed")
        log = await running.log()
        assert sum(record.type == "turn_end" for record in log) == 1
        assert [(letter["reason"], letter["message_id"]) for letter in await letters(running)] == [
            ("agent_failed", end["reply_to"])
        ]
        await client.say("fine")
        assert (await client.until("turn_end"))["status"] == "completed"
