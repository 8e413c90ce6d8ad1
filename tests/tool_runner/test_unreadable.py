"""Tool servers whose answers nobody can read, or that die of a call: each call has its end, and soon."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.config import ToolServer
from contracts.errors import Code
from tests.harness.wait import until
from tests.tool_runner.conftest import STARTING, Reports, call
from tool_runner import runner
from tool_runner.decide import Holding, Permit
from tool_runner.runner import CallHolder
from tool_runner.servers import Servers

pytestmark = pytest.mark.anyio


@pytest.fixture
async def raw(tmp_path: Path) -> AsyncIterator[Servers]:
    """A server with those tools."""
    env = {"RAW_LOG": str(tmp_path / "calls")}
    server = ToolServer(command=(sys.executable, "-m", "tests.harness.raw_mcp"), env=env, trusted=True)
    async with Servers({"raw": server}, patience=STARTING) as servers:
        yield servers


@pytest.mark.parametrize("tool", ["surrogate", "deep", "null", "error"])
async def test_an_answer_that_cannot_be_read_fails_its_call_at_once(raw: Servers, tool: str) -> None:
    """Promise: as over HTTP; and a line of a log among the answers harms nobody."""
    outcome = await call(raw, f"raw.{tool}", within=600.0)
    assert (outcome.status, outcome.code) == ("failed", Code.TOOL_ERROR)
    assert (await call(raw, "raw.well")).result == "well"


async def test_lines_of_a_log_that_are_json_are_no_answers(raw: Servers) -> None:
    """Our choice: whatever they have in common with one."""
    outcome = await call(raw, "raw.logs")
    assert (outcome.status, outcome.result) == ("completed", "well")


async def test_progress_that_is_no_number_is_left_out(raw: Servers) -> None:
    """Promise: it breaks no call off."""
    totals: list[float | None] = []

    class Told(Reports):
        async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
            totals.append(total)
            await super().__call__(progress, total, message)

    reports = Told()
    assert (await call(raw, "raw.odd", progress=reports)).status == "completed"
    assert (reports.values, totals) == ([0.5], [None])


async def test_a_tool_that_ends_its_server_each_time_is_not_called_for_ever(
    raw: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our choice: as often as holders may start it."""
    monkeypatch.setattr(runner, "RETRY_PAUSE", 0.01)
    tools: Any = SimpleNamespace(servers=raw)
    hold: Any = SimpleNamespace()
    called: Any = SimpleNamespace(tool="raw.crash")
    holder = CallHolder(hold, called, Holding("s", "c", Permit("allow", repeatable=True)), tools)
    outcome = await holder._call("raw.crash", {})
    assert (outcome.status, outcome.code) == ("failed", Code.TOOL_ERROR)
    assert (tmp_path / "calls").read_text().split() == ["crash"] * 3
    await until(lambda: raw.ready("raw"), within=STARTING)  # the loop has taken notice of the end of the one before
