"""Dead letters of turns, when the runner dies beside one: each failed turn has one, and no turn is answered twice."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from millrace.datadir import DataDir
from tests.harness.client import Client, joined, new_session
from tests.harness.nats_server import known_at
from tests.harness.program import Program, program
from tests.harness.system import System, system

pytestmark = pytest.mark.anyio

CONFIG = """
[agents.late]
model = "script"
turn_seconds = 1
"""
LATE = [{"sleep_ms": 60_000}]


@asynccontextmanager
async def dying(directory: Path, fault: str) -> AsyncIterator[tuple[System, Client]]:
    """A client whose turn took too long, which may be tried again, and a runner that died at that point."""
    async with system(directory, services=("edge",), config=CONFIG) as running:
        known_at(DataDir.at(str(running.directory / "nats")), running.nats)
        token = running.token()
        session_id = await new_session(running.edge, token)
        async with joined(running.edge, session_id, token) as client:
            armed = await running.add("agent_runner", MILLRACE_FAULT=f"{fault}:1:kill")
            await client.say(LATE)
            await client.until("turn_start")
            async with asyncio.timeout(20):
                await armed.process.wait()
            yield running, client


@asynccontextmanager
async def millrace(running: System, *arguments: str) -> AsyncIterator[Program]:
    """A command beside the system."""
    data = running.directory / "nats"
    async with program("millrace", *arguments, "--data", str(data), env={}, cwd=running.directory) as started:
        yield started


async def letters(running: System) -> list[dict[str, object]]:
    """The dead letters."""
    async with millrace(running, "dead", "list") as listing:
        assert await listing.exit() == 0, listing.errors
        return [json.loads(line) for line in listing.output]


@pytest.mark.parametrize(("side", "stored"), [("before", 0), ("after", 1)])
async def test_a_turn_that_failed_has_one_letter_when_its_runner_dies_beside_it(
    tmp_path: Path, side: str, stored: int
) -> None:
    """Promise: none is missing. Whoever takes the turn over stores the same letter, which is stored once."""
    async with dying(tmp_path, f"append:letter:{side}") as (running, client):
        assert len(await letters(running)) == stored
        assert client.of("turn_end") == []
        await running.add("agent_runner")
        end = await client.until("turn_end")
        assert (end["status"], end["error"]["code"]) == ("failed", "turn_timeout")
        (letter,) = await letters(running)
        assert (letter["message_id"], letter["reason"]) == (end["reply_to"], "turn_timeout")


async def test_a_letter_whose_turn_ended_otherwise_is_not_redriven(tmp_path: Path) -> None:
    """Promise P1: its runner died between the letter and the end of the turn; then the turn was cancelled."""
    async with dying(tmp_path, "append:letter:after") as (running, client):
        async with millrace(running, "dead", "redrive", "1") as refused:
            assert await refused.exit() == 2
            assert "has not ended" in refused.errors[0]
        await client.send("cancel")
        await running.add("agent_runner")
        assert (await client.until("turn_end"))["status"] == "cancelled"
        async with millrace(running, "dead", "redrive", "1") as refused:
            assert await refused.exit() == 2
            assert "cancelled" in refused.errors[0]
        assert len(client.of("message")) == 1
