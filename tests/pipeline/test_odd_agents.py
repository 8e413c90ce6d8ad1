"""Agents and models that go wrong in ways of their own, in real processes: nobody else's turn is the worse for it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness.client import Client, joined, new_session
from tests.harness.model_server import Reply
from tests.harness.openai_server import DONE, chunk, delta, openai_server, part
from tests.harness.system import System, system

pytestmark = pytest.mark.anyio

CONFIG = """
[[tools.rules]]
tool = "demo.note"
decision = "ask"

[agents.odd]
run = "tests.harness.odd:odd"
tools = ["demo.*"]

[agents.grouped]
run = "tests.harness.odd:grouped"
tools = ["demo.*"]
group = "few"

[groups.few]
turns = 1
"""


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[System]:
    """A system with them."""
    services = ("edge", "agent_runner", "tool_runner")
    async with system(tmp_path, services=services, config=CONFIG) as running:
        yield running


async def test_what_would_end_a_process_ends_a_turn(running: System) -> None:
    """Promise: the process goes on, and with it the turns of others."""
    token = running.token()
    sessions = [await new_session(running.edge, token, agent="odd") for _ in range(2)]
    async with joined(running.edge, sessions[0], token) as other, joined(running.edge, sessions[1], token) as client:
        await other.say("wait")
        await other.until("stream_end")
        for how in ("panic", "exit", "exit beside", "search", "cancel"):
            await client.say(how)
            end = await client.until("turn_end")
            assert (end["status"], end["error"]["code"]) == ("failed", "agent_failed"), how
        await other.send("cancel")
        assert (await other.until("turn_end"))["status"] == "cancelled"
    assert [frame["attempt"] for frame in other.of("turn_start")] == [1]
    assert running["agent_runner"].process.returncode is None


@pytest.mark.parametrize("how", ["no arguments", "half a step"])
async def test_what_could_not_be_read_again_is_not_stored(running: System, how: str) -> None:
    """Promise: one turn fails; its session can be joined, and goes on."""
    token = running.token()
    session_id = await new_session(running.edge, token, agent="odd")
    async with joined(running.edge, session_id, token) as client:
        await client.say(how)
        assert (await client.until("turn_end"))["error"]["error"] == "the agent raised TypeError"
        await goes_on(client)
    async with joined(running.edge, session_id, token) as again:
        assert again.of("replay_complete")


async def goes_on(client: Client) -> None:
    """The next turn completes."""
    await client.say("hello")
    await client.until("turn_end", lambda frame: frame["status"] == "completed")


async def test_an_agent_that_swallows_its_interruption_goes_on_elsewhere(running: System) -> None:
    """Promise: a deployment completes no turn with half its answer."""
    token = running.token()
    session_id = await new_session(running.edge, token, agent="odd")
    async with joined(running.edge, session_id, token) as client:
        await client.say("swallow")
        await client.until("stream_delta")
        await running["agent_runner"].stop()
        await running["agent_runner"].start()
        end = await client.until("turn_end")
    assert end["status"] == "completed"
    assert [(frame["content"], frame["finish_reason"]) for frame in client.of("stream_end")] == [("half whole", "stop")]
    assert [frame["attempt"] for frame in client.of("turn_start")] == [1, 1]


async def test_a_turn_without_room_in_a_group_of_tasks_has_its_answer(running: System) -> None:
    """Promise: what was interrupted within a TaskGroup is done by a later attempt."""
    token = running.token()
    sessions = [await new_session(running.edge, token, agent="grouped") for _ in range(2)]
    async with joined(running.edge, sessions[0], token) as client, joined(running.edge, sessions[1], token) as busy:
        await client.say("ask")
        request = await client.until("tool_approval_request")
        await client.until("agent_status", lambda frame: frame["status"] == "waiting_approval")
        await busy.say("work")
        await busy.until("stream_end")
        await client.send("tool_approval", tool_call_id=request["tool_call_id"], approved=True)
        await client.until("tool_result")
        await busy.send("cancel")
        end = await client.until("turn_end")
    assert end["status"] == "completed"
    assert [frame["content"] for frame in client.of("stream_end")] == ["the note is completed"]


async def test_tokens_in_fractions_are_not_the_end_of_a_session(tmp_path: Path) -> None:
    """Promise: whatever a model's server counts, the log can be read."""
    usage = {"prompt_tokens": 7, "completion_tokens": 2.5, "total_tokens": 9.5}
    async with openai_server() as server:
        config = f'[agents.helper]\nmodel = "openai:test"\nbase_url = "{server.base_url}"\n'
        server.script(Reply((*part("Hi"), delta("stop"), chunk([], usage=usage), DONE)))
        async with system(tmp_path, services=("edge", "agent_runner"), config=config) as running:
            token = running.token()
            session_id = await new_session(running.edge, token, agent="helper")
            async with joined(running.edge, session_id, token) as client:
                await client.say("one")
                end = await client.until("turn_end")
                assert end["usage"] == {"input_tokens": 7, "output_tokens": 2}
                await client.say("two")
                await client.until("turn_end")
            async with joined(running.edge, session_id, token) as again:
                assert again.of("replay_complete")
