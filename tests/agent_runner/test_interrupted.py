"""Agents that are interrupted, whatever they make of it: what they leave out is for a later attempt."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from agent_runner.decide import Holding, decide
from agent_runner.state import State
from agent_runner.turn import Turn
from broker.acts import Put
from broker.settle import settle
from contracts import events
from tests.contracts import facts as a
from tests.harness.attempts import Log, ended, holder
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

TOOLS = {"tools": ("demo.*",)}


async def swallows(turn: Turn) -> None:
    """Takes being interrupted for something to clean up after."""

    async def pieces() -> AsyncIterator[str]:
        yield "half "
        await asyncio.Event().wait()

    with suppress(asyncio.CancelledError):
        await turn.say(pieces())


async def test_an_agent_that_swallows_its_interruption_has_not_completed(log: Log) -> None:
    """Promise: a deployment hands the turn over; half an answer is no whole one."""
    hold: Any = log
    running = asyncio.create_task(settle(hold, holder(log, swallows)))
    await until(lambda: log.said)
    log.stopping = log.delivery.stopping = True
    log.news.set()
    async with asyncio.timeout(5):
        await running
    assert not log.of(events.StreamEnd)
    assert not log.of(events.TurnEnd)
    assert log.of(events.TurnRelease)


async def polls(turn: Turn) -> None:
    """Computes for long, and looks whether it is to stop."""
    while not turn.cancelled:  # noqa: ASYNC110 - it stands for computing
        await asyncio.sleep(0)


async def test_an_agent_that_heeds_its_interruption_has_not_completed(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: a deployment hands its turn over, also where it returns before it is cancelled."""
    never = asyncio.Event()

    async def slowly(_seconds: float = 0) -> None:
        await never.wait()

    monkeypatch.setattr(log, "news_folded", slowly)
    hold: Any = log
    running = asyncio.create_task(settle(hold, holder(log, polls)))
    await until(lambda: log.of(events.TurnStart))
    await asyncio.sleep(0)
    log.stopping = log.delivery.stopping = True
    async with asyncio.timeout(5):
        await running
    assert log.of(events.TurnRelease)
    assert not log.of(events.TurnEnd)


async def groups(turn: Turn) -> None:
    """A TaskGroup takes the interruption of one of its tasks for that task's own."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(turn.call("demo.note", {}))


async def test_a_turn_that_finds_no_room_in_a_group_of_tasks_has_not_completed(log: Log) -> None:
    """Promise: what was left out is done by a later attempt."""
    hold: Any = log
    running = asyncio.create_task(settle(hold, holder(log, groups, **TOOLS)))
    await until(lambda: log.delivery.resting)

    async def no_room(_delivery: object) -> None:
        await asyncio.sleep(0)
        log.stopping = log.delivery.stopping = True

    log.delivery.admitted = no_room
    log.add(a.tool_result(log.of(events.ToolCall)[0].tool_call_id, "m1"))
    async with asyncio.timeout(5):
        await running
    assert not log.of(events.TurnEnd)


async def turns_it_into_another(turn: Turn) -> None:
    """Its clean-up raises something else."""
    try:
        await swallows_nothing(turn)
    except asyncio.CancelledError:
        raise ValueError from None


async def swallows_nothing(turn: Turn) -> None:
    """Streams until it is interrupted."""

    async def pieces() -> AsyncIterator[str]:
        yield "half "
        await asyncio.Event().wait()

    await turn.say(pieces())


async def test_what_an_agent_raises_because_it_is_cut_off_fails_no_turn(log: Log) -> None:
    """Promise: a process that ends in a hurry takes no turn with it."""
    hold: Any = log
    running = asyncio.create_task(settle(hold, holder(log, turns_it_into_another)))
    await until(lambda: log.said)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not log.of(events.Error)


async def fails_and_goes_on(turn: Turn) -> None:
    """What it streams breaks off, and it does without."""

    async def pieces() -> AsyncIterator[str]:
        yield "The dose is 5"
        raise ConnectionError

    with suppress(ConnectionError):
        await turn.say(pieces())


async def test_an_answer_that_broke_off_is_not_told_as_whole(log: Log) -> None:
    """Promise: partial text is kept as such."""
    assert (await ended(log, fails_and_goes_on)).status == "completed"
    (end,) = log.of(events.StreamEnd)
    assert (end.content, end.finish_reason) == ("The dose is 5", "error")


def test_a_turn_that_was_cancelled_ends_so_though_its_attempts_are_used_up() -> None:
    """Promise: nobody redrives what a person has cancelled."""
    state = State()
    for seq, fact in enumerate([a.message("m1"), a.turn_start("m1"), a.turn_start("m1", 2), a.cancel("m1")], 1):
        state.apply(seq, fact)
    holding = Holding("s", "m1", 1, joined=3, limit=2)
    act = decide(state.session, holding)
    assert isinstance(act, Put)
    assert act.claim
    state.apply(5, act.event)
    holding.claim = 5
    act = decide(state.session, holding)
    assert isinstance(act, Put)
    assert isinstance(act.event, events.TurnEnd)
    assert act.event.status == "cancelled"
