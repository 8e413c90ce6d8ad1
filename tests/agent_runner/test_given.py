"""What an agent gives and is given: it is the agent's own, and what is recorded can be read and stays as it is."""

import asyncio
from typing import Any

import pytest

from contracts import events
from tests.contracts import facts as a
from tests.harness.attempts import Log, attempt
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

TOOLS = {"tools": ("demo.*",)}


async def test_what_a_step_has_returned_is_the_agents_own(log: Log) -> None:
    """Promise: what is recorded stays as it is, whatever the agent does to what it got."""
    (await attempt(log).step("s", lambda: [1])).append(2)
    again = await attempt(log).step("s", int)
    assert again == [1]
    again.append(3)
    assert await attempt(log).step("s", int) == [1]


async def called(log: Log, arguments: dict[str, Any]) -> events.ToolResult:
    """An attempt that calls a tool, whose result is there."""
    calling = asyncio.create_task(attempt(log, **TOOLS).call("demo.x", arguments))
    await until(lambda: log.of(events.ToolCall))
    call_id = log.of(events.ToolCall)[0].tool_call_id
    log.add(
        events.ToolResult(
            **a.BASE, tool_call_id=call_id, reply_to="m1", status="completed", result={"rows": [1]}, error=None
        )
    )
    return await calling


async def test_arguments_and_results_are_the_agents_own(log: Log) -> None:
    """Promise: as above."""
    arguments: dict[str, Any] = {"page": 1}
    (await called(log, arguments)).result["rows"].clear()
    arguments["page"] = 2
    assert (await called(log, {"page": 1})).result == {"rows": [1]}
    assert len(log.of(events.ToolCall)) == 1


async def test_the_message_is_the_agents_own(log: Log) -> None:
    """Promise: as above."""
    assert attempt(log).message is not log.state.session.turns["m1"].message


async def test_a_set_among_arguments_is_the_same_in_every_process(log: Log) -> None:
    """Promise: unchanged code finds its call again; sets have another order in each process."""
    tags = [str(n) for n in range(20)]
    await called(log, {"tags": set(tags), "also": 1})
    assert log.of(events.ToolCall)[0].arguments == {"also": 1, "tags": sorted(tags)}


async def test_keys_that_are_numbers_are_texts(log: Log) -> None:
    """Standard: JSON."""
    names: dict[Any, str] = {1: "a"}
    await called(log, {"names": names, "tags": {"b", "a", "c"}})
    assert log.of(events.ToolCall)[0].arguments == {"names": {"1": "a"}, "tags": ["a", "b", "c"]}


async def test_arguments_keep_their_order(log: Log) -> None:
    """Our choice: people read them."""
    await called(log, {"to": "a", "about": "b"})
    assert list(log.of(events.ToolCall)[0].arguments) == ["to", "about"]


async def test_what_nobody_could_read_is_refused(log: Log) -> None:
    """Promise: one such fact would be the end of its session."""
    turn = attempt(log, **TOOLS)
    before = len(log.facts)
    nothing: Any = None
    number: Any = 1
    fraction: Any = 1.5
    with pytest.raises(TypeError, match="a dict"):
        await turn.call("demo.x", nothing)
    with pytest.raises(TypeError, match="JSON"):
        await turn.call("demo.x", {"x": object()})
    with pytest.raises(TypeError, match="name"):
        await turn.step(number, int)
    with pytest.raises(TypeError, match="completed"):
        await turn.progress("x", 0.5, completed=fraction)
    assert len(log.facts) == before
