"""Who takes over when, by `ack_wait`: one that is killed after it, one that is told to stop without it.

600 s of `ack_wait` are longer than any test: what goes on all the same was handed over.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.harness.client import Client, joined, new_session
from tests.harness.nats_server import LOG_BYTES
from tests.harness.program import program
from tests.harness.system import System, system

pytestmark = pytest.mark.anyio

CONFIG = """
[agents.common]
model = "script"

[agents.own]
model = "script"
group = "own"

[groups.own]
ack_wait = {own}
"""
LONG = [{"stream": {"deltas": 80, "interval_ms": 20, "size": 32}}]
NOTE = [{"tool": "demo.note", "arguments": {"text": "taken"}}, {"say": "done"}]
NEVER = 600


@asynccontextmanager
async def provisioned(directory: Path, ack_wait: float, own: float = NEVER) -> AsyncIterator[System]:
    """An edge and no runners, on a broker that was told `MILLRACE_ACK_WAIT`, and the `ack_wait` of a group."""
    async with system(directory, services=("edge",), config=CONFIG.format(own=own)) as running:
        env = {
            "MILLRACE_ACK_WAIT": str(ack_wait),
            "MILLRACE_CONFIG": str(running.config),
            "MILLRACE_LOG_BYTES": str(LOG_BYTES),
            "MILLRACE_NATS_URL": running.nats.url,
            "MILLRACE_NKEY": running.nats.seed("provisioner"),
        }
        async with program("millrace", "provision", env=env, cwd=directory) as command:
            assert await command.exit() == 0, command.errors
        yield running


@asynccontextmanager
async def talking(running: System, agent: str) -> AsyncIterator[tuple[str, Client]]:
    """A new session with that agent, and a client of it."""
    token = running.token()
    session_id = await new_session(running.edge, token, agent=agent)
    async with joined(running.edge, session_id, token) as client:
        yield session_id, client


def attempts(client: Client) -> list[int]:
    """The attempts that began."""
    return [frame["attempt"] for frame in client.of("turn_start")]


@pytest.mark.parametrize(
    ("ack_wait", "own", "taken"),
    [
        pytest.param(0.3, NEVER, ("common", "own"), id="a group waits longer"),
        pytest.param(NEVER, 0.3, ("own", "common"), id="a group waits less"),
    ],
)
async def test_a_killed_runners_turns_are_taken_over_when_the_settings_say(
    tmp_path: Path, ack_wait: float, own: float, taken: tuple[str, str]
) -> None:
    """Issue: bounded and configurable. One has answered, in seconds, when the other was not even begun again."""
    async with provisioned(tmp_path, ack_wait, own) as running:
        first = await running.add("agent_runner")
        async with talking(running, taken[0]) as (_, soon), talking(running, taken[1]) as (never, late):
            for client in (soon, late):
                await client.say(LONG)
            for client in (soon, late):
                await client.until("stream_delta")
            await first.kill()
            await running.add("agent_runner")
            assert (await soon.until("turn_end"))["status"] == "completed"
            assert attempts(soon) == [1, 2]
            log = await running.log()
            its = [record.type for record in log if f".{never}." in record.subject]
            assert its.count("turn_start") == 1
            assert "turn_end" not in its


async def test_a_runner_told_to_stop_hands_its_turn_over_without_spending_an_attempt(tmp_path: Path) -> None:
    """Promise P1, in mid-answer: nobody waits for `ack_wait`, and the half answer is withdrawn."""
    async with provisioned(tmp_path, NEVER) as running:
        first = await running.add("agent_runner")
        async with talking(running, "common") as (_, client):
            await client.say(LONG)
            await client.until("stream_delta", lambda frame: frame["offset"] > 100)
            await (await running.add("agent_runner")).ready()
            assert await first.stop() == 0
            assert (await client.until("turn_end"))["status"] == "completed"
            assert attempts(client) == [1, 1]
            assert len(client.of("stream_reset")) == 1
            (end,) = client.of("stream_end")
            assert len(end["content"]) == 80 * 32


@pytest.mark.parametrize("name", ["agent_runner", "tool_runner"])
async def test_a_runner_told_to_stop_hands_over_what_waits_for_a_person(tmp_path: Path, name: str) -> None:
    """Promise P6: the decision comes after the handover, so only a second process can have heard of it."""
    async with provisioned(tmp_path, NEVER) as running:
        for service in ("agent_runner", "tool_runner"):
            await running.add(service)
        async with talking(running, "common") as (_, client):
            await client.say(NOTE)
            request = await client.until("tool_approval_request")
            await (await running.add(name)).ready()
            assert await running[name].stop() == 0
            await client.send("tool_approval", tool_call_id=request["tool_call_id"], approved=True)
            assert (await client.until("turn_end"))["status"] == "completed"
            assert [frame["status"] for frame in client.of("tool_result")] == ["completed"]
            assert set(attempts(client)) == {1}
            assert running.notes == ["taken"]
