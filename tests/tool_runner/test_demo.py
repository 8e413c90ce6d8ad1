"""The MCP server `demo`, started as the configuration starts it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from contracts.config import load
from tool_runner.outcome import Outcome
from tool_runner.servers import Servers

pytestmark = pytest.mark.anyio

STARTING = 20.0  # a bound on the start of a Python process, not an expectation


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes.txt"


@pytest.fixture
async def demo(notes: Path) -> AsyncIterator[Servers]:
    config = load(None, env={"MILLRACE_DEMO_NOTES": str(notes)})
    async with Servers(config.servers, patience=STARTING) as servers:
        yield servers


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines()


async def call(servers: Servers, tool: str, progress: Any = None, **arguments: Any) -> Outcome:
    async def ignore(progress: float, total: float | None, message: str | None) -> None:
        """Not interested."""

    return await servers.call(tool, arguments, timeout=STARTING, progress=progress or ignore, idempotency_key="key-1")


async def test_every_tool_says_what_it_may_do(demo: Servers) -> None:
    note = await demo.tool("demo.note")
    assert note is not None
    assert (note.read_only, note.destructive, note.idempotent) == (False, True, False)
    harmless = [tool for tool in demo.tools() if tool != note]
    assert {tool.name for tool in harmless} == {"demo.add", "demo.slow", "demo.fail"}
    for tool in harmless:
        assert (tool.read_only, tool.destructive, tool.idempotent) == (True, False, True)


async def test_add_adds_numbers_and_keeps_whole_ones_whole(demo: Servers) -> None:
    assert await call(demo, "demo.add", a=2, b=3) == Outcome("completed", {"result": 5})
    assert (await call(demo, "demo.add", a=0.5, b=2)).result == {"result": 2.5}
    assert (await call(demo, "demo.add", a="two", b=3)).code == "tool_error"


async def test_every_note_is_one_line(demo: Servers, notes: Path) -> None:
    for text in ("one", "one", "two\nlines"):
        assert (await call(demo, "demo.note", text=text)).status == "completed"
    assert lines(notes) == ["one", "one", "two lines"]


async def test_a_note_without_a_file_fails() -> None:
    async with Servers(load(None, env={}).servers, patience=STARTING) as servers:
        assert (await call(servers, "demo.note", text="lost")).code == "tool_error"


async def test_fail_fails_with_exactly_its_text(demo: Servers) -> None:
    outcome = await call(demo, "demo.fail", text="the disk is full")
    assert outcome == Outcome("failed", error="the disk is full", code=outcome.code)
    assert outcome.code == "tool_error"


async def test_slow_reports_progress_until_it_is_done(demo: Servers) -> None:
    reports: list[tuple[float, float | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        reports.append((progress, total))

    assert (await call(demo, "demo.slow", progress=note, seconds=1)).status == "completed"
    assert len(reports) > 3
    assert reports == sorted(reports)
    assert reports[-1] == (5, 5)


async def test_slow_can_be_cancelled_and_the_server_goes_on(demo: Servers) -> None:
    begun = asyncio.Event()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        begun.set()

    running = asyncio.create_task(call(demo, "demo.slow", progress=note, seconds=3600))
    async with asyncio.timeout(STARTING):
        await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await call(demo, "demo.add", a=1, b=1)).status == "completed"
