"""Attempts at the turn of message `m1`, one after another, over one log in memory: as fast as many tests need them."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from math import inf
from types import SimpleNamespace
from typing import Any

import msgspec

from agent_runner.agents import Agents
from agent_runner.journal import Journal
from agent_runner.prompt import Tool
from agent_runner.runner import MessageHolder
from agent_runner.state import State
from agent_runner.turn import Turn
from broker.delivery import Delivery
from broker.settle import settle
from contracts import events
from contracts.config import Agent, Config
from contracts.events import AnyEvent
from tests.contracts import facts as a
from tests.harness.wait import until

MAX_EVENT_BYTES = 1024 * 1024

Function = Callable[[Turn], Awaitable[None]]


class Log:
    """What a hold is to an attempt: the fold, and the one way to append. Nobody else appends in between."""

    def __init__(self) -> None:
        self.state: Any = State.empty(1 << 16)
        self.seq = 0
        self.facts: list[AnyEvent] = []
        self.said: list[events.StreamDelta] = []
        self.stopping = False
        self.news = asyncio.Event()
        self.topic: Any = SimpleNamespace(id="s")
        broker: Any = SimpleNamespace(
            now=lambda: 0.0, max_event_bytes=MAX_EVENT_BYTES, publish=lambda _reply, _word: None
        )
        self.broker = broker
        self.delivery = Delivery(broker, "subject", "$JS.ACK.LOG.agents.1.1.1.0.0", b"", b"")
        self._folded = asyncio.Event()
        self.add(a.message("m1"))

    def add(self, event: AnyEvent) -> int:
        """Store a fact, the attempt's or anybody's."""
        self.seq += 1
        self.state.apply(self.seq, event)
        self.facts.append(event)
        self.news.set()
        self._folded.set()
        self._folded = asyncio.Event()
        return self.seq

    def of(self, type_: type[AnyEvent]) -> list[Any]:
        """The facts of that type, in order."""
        return [fact for fact in self.facts if isinstance(fact, type_)]

    async def append(self, event: AnyEvent, lane: object = None, context: object = None) -> int:
        """As a hold's."""
        try:
            events.check(events.encode(event))
        except (msgspec.DecodeError, RecursionError) as error:
            raise TypeError(str(error)) from None
        await asyncio.sleep(0)
        return self.add(event)

    async def append_delta(self, delta: events.StreamDelta) -> bool:
        """As a hold's."""
        await asyncio.sleep(0)
        self.said.append(delta)
        return True

    async def folded(self) -> None:
        """As a hold's."""
        await self._folded.wait()

    async def news_folded(self, _seconds: float = inf) -> None:
        """As a hold's."""
        await self.news.wait()
        self.news.clear()


async def _no_tools(_globs: tuple[str, ...]) -> tuple[Tool, ...]:
    return ()


def holder(log: Any, function: Function, **limits: Any) -> MessageHolder:
    """The holder of the message, if that function is what the agent is now."""
    agent = Agent(run=f"{function.__module__}:{function.__name__}", **limits)
    return MessageHolder(log, log.facts[0], Agents(Config({}, {"a": agent}, {}), _no_tools))


async def ended(log: Log, function: Function, **limits: Any) -> events.TurnEnd:
    """How the turn ends if that function is what the agent is now."""
    hold: Any = log
    async with asyncio.timeout(5):
        await settle(hold, holder(log, function, **limits))
    end = log.facts[-1]
    assert isinstance(end, events.TurnEnd)
    return end


async def dies(log: Log, function: Function, upto: int, **limits: Any) -> None:
    """An attempt of which the process dies once so much is recorded."""
    hold: Any = log
    running = asyncio.create_task(settle(hold, holder(log, function, **limits)))
    await until(lambda: running.done() or log.state.session.turns["m1"].recorded >= upto)
    assert running.cancel(), "the attempt has ended"
    with contextlib.suppress(asyncio.CancelledError):
        await running


def journal(log: Log, **limits: Any) -> Journal:
    """The journal of a new attempt."""
    hold: Any = log
    role = holder(log, _nothing, **limits)
    role.holding.claim = log.add(a.turn_start("m1"))
    return Journal(hold, role.holding, "a", Agent(model="script", **limits))


def attempt(log: Log, **limits: Any) -> Turn:
    """A new attempt whose agent is the test."""
    return Turn(journal(log, **limits))


async def _nothing(_turn: Turn) -> None:
    pass
