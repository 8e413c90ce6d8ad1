"""A process that was paused and overtaken in one turn or call, and folds that through another holder of the session."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from agent_runner import answer
from agent_runner.agents import Agents
from agent_runner.prompt import Tool
from agent_runner.runner import MessageHolder
from agent_runner.state import State
from agent_runner.turn import Turn
from broker.append import Append, append
from broker.connect import Broker
from broker.delivery import Delivery
from broker.folded import Folded, holding
from broker.read import read
from broker.settle import settle
from contracts import events
from contracts.config import Agent, Config
from contracts.events import AnyEvent
from contracts.session import Session
from tests.broker.conftest import Connect
from tests.broker.holders import ROOMY, TOPIC
from tests.contracts import facts as a
from tests.harness.wait import until
from tool_runner import rules
from tool_runner.runner import Tools, hold_call

pytestmark = pytest.mark.anyio

_numbers = count()


async def put(broker: Broker, event: AnyEvent) -> int:
    """Store a fact."""
    event = msgspec.structs.replace(event, id=f"x{next(_numbers)}")
    lane = events.LANE_OF[type(event)]
    stored = await append(broker, Append(TOPIC.fact(lane), events.encode(event), event.id))
    assert stored
    return stored.seq


async def delivered(broker: Broker, event: AnyEvent, stored_by: Broker, consumer: str) -> Delivery:
    """A fact, stored and delivered for the first time."""
    seq, lane = await put(stored_by, event), events.LANE_OF[type(event)]
    return Delivery(broker, TOPIC.fact(lane), f"$JS.ACK.LOG.{consumer}.1.{seq}.1.0.0", events.encode(event), b"")


async def stored(broker: Broker, type_: type[AnyEvent]) -> list[Any]:
    """The facts of that type."""
    found: list[Any] = []
    async for records in read(broker, TOPIC.facts, 0):
        found += [event for record in records if isinstance(event := events.decode(record.data), type_)]
    return found


async def half(turn: Turn) -> None:
    """Says the half of it."""

    async def pieces() -> AsyncIterator[str]:
        yield "half"
        await asyncio.Event().wait()

    await turn.say(pieces())


async def no_tools(_globs: tuple[str, ...]) -> tuple[Tool, ...]:
    """None."""
    return ()


async def test_who_closes_an_answer_says_nothing_after_the_turn_was_ended_elsewhere(
    runner: Broker, edge: Broker, service: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise P4: not one event of the old attempt appears after the new attempt's first."""
    going, reached = asyncio.Event(), asyncio.Event()

    async def slow(*given: Any, **more: Any) -> AsyncIterator[Any]:
        reached.set()  # also where no delta came to be stored before the cancel
        await going.wait()
        async for records in read(*given, **more):
            yield records

    monkeypatch.setattr(answer, "read", slow)
    agents = Agents(Config({}, {"a": Agent(run=f"{__name__}:half")}, {}), no_tools)
    folded = Folded(lambda: State.empty(1 << 16), ROOMY)
    messages: list[Any] = [a.message("m1"), a.message("m2")]
    first, second = [await delivered(runner, message, edge, "agent_runner") for message in messages]
    async with (
        holding(runner, first, folded) as hold,
        holding(runner, second, folded) as other,
        service("agent_runner") as elsewhere,
        asyncio.TaskGroup() as tasks,
    ):
        closing = tasks.create_task(settle(hold, MessageHolder(hold, messages[0], agents)))
        waiting = tasks.create_task(settle(other, MessageHolder(other, messages[1], agents)))
        await until(lambda: hold.state.session.turns["m1"].open_answer)
        opened = hold.state.session.turns["m1"].open_answer
        assert opened
        await put(edge, a.cancel("m1"))
        await reached.wait()
        await put(elsewhere, a.turn_start("m1", 2))
        end = a.stream_end(opened.message_id, "m1")
        await put(elsewhere, end)
        last = await put(elsewhere, a.turn_end("m1", "cancelled"))
        await until(lambda: other.seq >= last)
        going.set()
        await closing
        waiting.cancel()
    assert len(await stored(runner, events.StreamEnd)) == 1


async def test_a_call_that_was_started_elsewhere_meanwhile_is_left_alone(
    edge: Broker, agent: Broker, service: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise P5: while its server lists its tools, another process starts it; a holder beside it folds that."""
    going, asked = asyncio.Event(), asyncio.Event()

    async def tool(_name: str) -> Any:
        asked.set()
        await going.wait()
        return SimpleNamespace(read_only=False, idempotent=False)

    monkeypatch.setattr(rules, "decide", lambda *_, **__: SimpleNamespace(action="allow", expires=1))
    config: Any = SimpleNamespace(servers={}, rules=())
    servers: Any = SimpleNamespace(tool=tool)
    await put(edge, a.message("m1"))
    await put(agent, a.turn_start("m1"))
    async with service("tool_runner") as here, service("tool_runner") as elsewhere:
        first, second = [
            await delivered(here, a.tool_call(call_id, "m1"), agent, "tool_runner") for call_id in ("c1", "c2")
        ]
        folded = Folded(Session, ROOMY)
        held = asyncio.create_task(hold_call(here, first, Tools(config, servers, folded, 5.0)))
        await asked.wait()
        async with holding(here, second, folded) as other:
            waits = asyncio.create_task(other.news_folded())
            await put(elsewhere, a.tool_started("c1", "m1"))
            await waits
            going.set()
            await held
        await put(elsewhere, a.tool_result("c1", "m1"))
        assert [result.status for result in await stored(here, events.ToolResult)] == ["completed"]
