"""Groups: agents whose turns run in processes of their own, by configuration alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from contracts import streams
from tests.harness.client import WITHIN, Client, http, joined, new_session
from tests.harness.system import TENANTS, System, system
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

MOVER = """
[agents.mover]
run = "tests.harness.agents:place"
"""
CONFIG = """
[agents.heavy]
run = "tests.harness.agents:place"
group = "cpu"

[agents.light]
run = "tests.harness.agents:place"
"""


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[System]:
    """An edge of a system with two groups. Its runners are the test's."""
    async with system(tmp_path, services=("edge",), config=CONFIG + MOVER) as own:
        yield own


async def answer(client: Client) -> str:
    """What the next turn says."""
    assert (await client.until("turn_end"))["status"] == "completed", client.frames
    return str(client.of("stream_end")[-1]["content"])


async def subjects(running: System, session_id: str, type_: str) -> list[str]:
    """Where the events of that type stand, from the lane on."""
    its = [record for record in await running.log() if record.type == type_ and f".{session_id}." in record.subject]
    return [record.subject.partition(".fact.")[2] for record in its]


async def test_a_message_is_answered_by_a_process_of_its_agents_group(running: System) -> None:
    """Our choice: while none runs the message waits, and no other group waits for it."""
    token = running.token()
    heavy = await new_session(running.edge, token, agent="heavy")
    light = await new_session(running.edge, token, agent="light")
    await running.add("agent_runner", MILLRACE_GROUPS="default")
    async with joined(running.edge, heavy, token) as waiting, joined(running.edge, light, token) as client:
        await waiting.say("compute")
        await waiting.until("message_accepted")
        for _ in range(3):
            await client.say("hello")
            assert await answer(client) == "default"
        assert await subjects(running, heavy, "message") == ["message.cpu"]
        assert await subjects(running, heavy, "turn_start") == []
        await running.add("agent_runner", MILLRACE_GROUPS="cpu")
        assert await answer(waiting) == "cpu"


async def test_a_process_without_a_setting_serves_every_group(running: System) -> None:
    """Our choice: one process is enough for any configuration."""
    token = running.token()
    await running.add("agent_runner")
    for agent in ("heavy", "light"):
        session_id = await new_session(running.edge, token, agent=agent)
        async with joined(running.edge, session_id, token) as client:
            await client.say("hello")
            assert await answer(client) == "every"


async def test_an_agent_may_be_moved_to_another_group_while_it_has_sessions(running: System) -> None:
    """Our choice: what was said stays where it is, what is said goes to the new group; it is one conversation."""
    token = running.token()
    session_id = await new_session(running.edge, token, agent="mover")
    api = f"{running.edge}/api/v1/sessions/{session_id}/messages"
    await running.add("agent_runner", MILLRACE_GROUPS="default")
    await running.add("agent_runner", MILLRACE_GROUPS="cpu")
    async with joined(running.edge, session_id, token) as client:
        await client.say("one", client_message_id="c1")
        assert await answer(client) == "default"
    running.config.write_text(TENANTS + CONFIG + MOVER + 'group = "cpu"')
    for service in running.services:
        await service.restart()
    await running["edge"].ready()
    async with joined(running.edge, session_id, token) as client:
        assert [message["content"] for message in client.of("snapshot")[0]["messages"]] == ["one", "default"]
        await client.say("one", client_message_id="c1")
        await client.say("two")
        assert await answer(client) == "cpu"
    page = (await http("GET", api, token=token)).json["messages"]
    assert [message["content"] for message in page] == ["one", "default", "two", "cpu"]
    assert await subjects(running, session_id, "message") == ["message", "message.cpu"]


async def test_what_waits_when_its_agent_is_moved_is_answered_first(tmp_path: Path) -> None:
    """Promise: in the order in which it was said, whichever group a message is in; each by its own group's process."""
    async with system(tmp_path, services=("edge",), config=CONFIG + MOVER) as running:
        token = running.token()
        session_id = await new_session(running.edge, token, agent="mover")
        async with joined(running.edge, session_id, token) as client:
            await client.say("one")
            await client.until("message_accepted")
        running.config.write_text(TENANTS + CONFIG + MOVER + 'group = "cpu"')
        await running["edge"].restart()
        await running["edge"].ready()
        await running.add("agent_runner", MILLRACE_GROUPS="cpu")
        async with joined(running.edge, session_id, token) as client:
            await client.say("two")
            await client.until("message_accepted")
            await running.add("agent_runner", MILLRACE_GROUPS="default")
            assert [await answer(client), await answer(client)] == ["default", "cpu"]
        assert await subjects(running, session_id, "message") == ["message", "message.cpu"]


async def test_agents_that_compute_have_a_process_each_and_are_not_taken_over(tmp_path: Path) -> None:
    """Issue: their own process is a matter of configuration, also for a function that never lets go of its loop."""
    computing = """
[agents.computing]
run = "tests.harness.agents:computing"
group = "cpu"

[groups.cpu]
turns = 1
ack_wait = 60
"""
    folder = tmp_path / "begun"
    folder.mkdir()
    async with system(tmp_path, services=("edge",), config=computing) as running:
        token = running.token()
        for _ in range(2):
            await (await running.add("agent_runner", MILLRACE_GROUPS="cpu")).ready()
        async with AsyncExitStack() as stack:
            clients = []
            for _ in range(3):
                session_id = await new_session(running.edge, token, agent="computing")
                clients.append(await stack.enter_async_context(joined(running.edge, session_id, token)))
                await clients[-1].say(str(folder))
                await clients[-1].until("message_accepted")
            await until(lambda: len(list(folder.iterdir())) == 2)
            await running.add("agent_runner", MILLRACE_GROUPS="cpu")
            await until(lambda: len(list(folder.iterdir())) == 3, within=WITHIN)
            await (await running.add("agent_runner", MILLRACE_GROUPS="cpu")).ready()
            await asyncio.sleep(2 * streams.ACK_WAIT)  # nothing is to happen, though there is one that could take over
            (folder / "done").touch()
            assert len({await answer(client) for client in clients}) == 3
        assert len([record for record in await running.log() if record.type == "turn_start"]) == 3


async def test_no_more_work_at_once_than_may_also_where_all_were_waiting(tmp_path: Path) -> None:
    """Our choice: a turn that is to go on in a process without room is handed over, and waits for one that has it."""
    config = """
[agents.noting]
run = "tests.harness.agents:noting"
tools = ["demo.*"]
group = "cpu"

[groups.cpu]
turns = 1
"""
    folder = tmp_path / "begun"
    folder.mkdir()
    async with system(tmp_path, services=("edge", "agent_runner", "tool_runner"), config=config) as running:
        token = running.token()

        async def handed_over() -> bool:
            return sum(record.type == "turn_release" for record in await running.log()) == 2

        async with AsyncExitStack() as stack:
            clients: dict[Client, str] = {}
            for _ in range(3):
                session_id = await new_session(running.edge, token, agent="noting")
                client = await stack.enter_async_context(joined(running.edge, session_id, token))
                await client.say(str(folder))
                clients[client] = (await client.until("tool_approval_request"))["tool_call_id"]
                await client.until("agent_status", lambda frame: frame["status"] == "waiting_approval")
            for client, call_id in clients.items():
                await client.send("tool_approval", tool_call_id=call_id, approved=True)
            await until(handed_over, within=WITHIN)
            assert len(list(folder.iterdir())) == 1
            (folder / "done").touch()
            assert [await answer(client) for client in clients] == ["done"] * 3


async def test_a_group_that_no_agent_is_in_is_one_line_and_exit_code_2(running: System) -> None:
    """Our choice: a process that could never do anything does not start."""
    service = await running.add("agent_runner", MILLRACE_GROUPS="default,gpu")
    await until(lambda: service.process.returncode is not None, within=WITHIN)
    assert service.process.returncode == 2
    lines = [line for line in service.log.read_text().splitlines() if not line.startswith("{")]
    assert lines == [
        "agent_runner: MILLRACE_GROUPS=default,gpu: no agent is in the group gpu (there are: default, cpu)"
    ]
