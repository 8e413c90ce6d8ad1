"""Crashes: an event is delivered once, whatever dies and however late the next process comes."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from contracts.subjects import Topic
from tests.event_ingest.outside import Outside, ingesting, is_settled
from tests.harness.nats_server import TENANTS, NatsServer
from tests.harness.wait import until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("least_window")]

S1 = Topic.session("acme", "s1")
U1 = Topic.user("acme", "u1")
ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def process(server: NatsServer, directory: Path, fault: str = "") -> AsyncIterator[Process]:
    """A process of event_ingest, failing at a point if told to; killed at the end if it still runs."""
    config = directory / "millrace.toml"
    config.write_text("".join(f"[tenants.{tenant}]\n" for tenant in TENANTS))
    env = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    env |= {
        "MILLRACE_NATS_URL": server.url,
        "MILLRACE_NKEY": server.seed("event_ingest"),
        "MILLRACE_CONFIG": str(config),
        "MILLRACE_FAULT": fault,
    }
    with (directory / "event_ingest.log").open("ab") as log:
        running = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "event_ingest", env=env, cwd=ROOT, stderr=log
        )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


async def ended(running: Process) -> int:
    """How it ended."""
    async with asyncio.timeout(5):
        return await running.wait()


async def test_the_service_takes_events_in_and_ends_when_it_is_told_to(
    nats: NatsServer, world: Outside, tmp_path: Path
) -> None:
    """Our choice: `python -m event_ingest`, exit code 0 after SIGTERM."""
    async with process(nats, tmp_path) as running:
        await world.binary(sessionid="s1")
        await until(lambda: world.events(S1))
        running.send_signal(signal.SIGTERM)
        assert await ended(running) == 0


@pytest.mark.parametrize(
    ("point", "stored"),
    [
        ("append:external_event:before", 0),
        ("append:external_event:after", 1),
        ("settle:ack:before", 1),
        ("settle:ack:after", 1),
    ],
)
async def test_an_event_is_delivered_once_when_the_process_is_killed(
    nats: NatsServer, world: Outside, tmp_path: Path, point: str, stored: int
) -> None:
    """Promise P7: before the append, between the append and the ack, after the ack."""
    last = await world.binary(sessionid="s1")
    async with process(nats, tmp_path, f"{point}:1:kill") as dying:
        assert await ended(dying) == -signal.SIGKILL
    assert len(await world.events(S1)) == stored
    async with ingesting(nats) as broker:
        await until(lambda: is_settled(broker, last))
    assert len(await world.events(S1)) == 1
    assert await world.letters() == []


async def test_a_process_that_slept_before_its_append_delivers_nothing_twice(
    nats: NatsServer, world: Outside, tmp_path: Path
) -> None:
    """Promise P4, for events: its append is refused by the broker, whatever its clock says."""
    last = await world.binary(id="1", userid="u1")
    async with process(nats, tmp_path, "append:external_event:before:1:pause") as sleeper:
        await until(lambda: os.waitid(os.P_PID, sleeper.pid, os.WSTOPPED | os.WNOHANG))
        async with ingesting(nats) as broker:
            await until(lambda: is_settled(broker, last))
            await until(lambda: world.is_forgotten(U1))
            sleeper.send_signal(signal.SIGCONT)
        last = await world.binary(id="2", userid="u1")
        await until(lambda: _has_two(world))
        sleeper.send_signal(signal.SIGTERM)
        assert await ended(sleeper) == 0
    assert [event["event_id"] for event in await world.events(U1)] == ["1", "2"]


async def _has_two(world: Outside) -> bool:
    return len(await world.events(U1)) >= 2


async def test_an_event_that_was_delivered_is_not_refused_when_its_session_is_gone_since(
    nats: NatsServer, world: Outside, tmp_path: Path
) -> None:
    """Promise P7: it is delivered, or in the dead letters, never both."""
    last = await world.binary(sessionid="s1")
    async with process(nats, tmp_path, "settle:ack:before:1:kill") as dying:
        assert await ended(dying) == -signal.SIGKILL
    await world.session("s1", "deleted")
    async with ingesting(nats) as broker:
        await until(lambda: is_settled(broker, last))
    assert len(await world.events(S1)) == 1
    assert await world.letters() == []


@pytest.mark.parametrize(
    ("point", "stored"), [("append:letter:before", 0), ("append:letter:after", 1), ("settle:ack:before", 1)]
)
async def test_a_dead_letter_is_written_once_when_the_process_is_killed(
    nats: NatsServer, world: Outside, tmp_path: Path, point: str, stored: int
) -> None:
    """Our choice: within the window of the dead letters; later it is there twice with one id."""
    last = await world.binary(sessionid="nobody")
    async with process(nats, tmp_path, f"{point}:1:kill") as dying:
        assert await ended(dying) == -signal.SIGKILL
    assert len(await world.letters()) == stored
    async with ingesting(nats) as broker:
        await until(lambda: is_settled(broker, last))
    assert len(await world.letters()) == 1


async def test_every_event_is_delivered_once_while_processes_are_killed_and_replaced(
    nats: NatsServer, world: Outside, tmp_path: Path
) -> None:
    """Promise P7."""
    rounds, events = 3, 100
    for n in range(rounds):
        for i in range(events):
            last = await world.binary(id=str(events * n + i), userid="u1")
        seen = len(await world.events(U1))
        async with process(nats, tmp_path) as running:

            async def has_begun(seen: int = seen) -> bool:
                return len(await world.events(U1)) > seen

            await until(has_begun)
            running.kill()
    async with ingesting(nats) as broker:
        await until(lambda: is_settled(broker, last))
    found = [int(event["event_id"]) for event in await world.events(U1)]
    assert sorted(found) == list(range(rounds * events))
