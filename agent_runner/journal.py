"""Journal: what an attempt at a turn does, in order, beside what earlier attempts have recorded of the same turn.

Everything that an agent does has a place, counted from 1 in the order in which it begins. Ids are made from message
and place, so a later attempt finds at each place what was recorded there, and does not do it again. What it finds
must be what it is about to do: an agent whose code has changed in the meantime, or does things in another order
each time, fails with a sentence that names the place.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal

from msgspec import Struct

from agent_runner import decide
from agent_runner.prompt import RESPONSE
from agent_runner.state import State
from broker.acts import Perform
from broker.hold import Hold
from contracts import events
from contracts.config import Agent
from contracts.errors import Code, MillraceError
from contracts.session import Session
from contracts.session import Turn as Open
from contracts.subjects import Lane

ROOM = 64 * 1024
"""Bytes of the largest event that are left for what is not its text or result."""


class Interrupted(asyncio.CancelledError):
    """The turn is not this attempt's to continue: cancelled, overdue, taken over, or the process stops."""


class Mismatch(MillraceError):
    """What an earlier attempt recorded is not what the agent's code does now."""

    def __init__(self, place: int, recorded: str, now: str) -> None:
        text = f"the agent's code does not match what this turn has recorded: {recorded} at place {place}, now {now}"
        super().__init__(Code.AGENT_FAILED, text)


class Spent(Struct):
    """What a turn has used up of its agent's limits."""

    requests: int = 0
    calls: int = 0
    bytes: int = 0


class Journal:
    """One attempt's view of its turn. Whatever is awaited raises Interrupted once the attempt is over."""

    def __init__(self, hold: Hold[State], holding: decide.Holding, name: str, agent: Agent) -> None:
        self.hold = hold
        self.holding = holding
        self.name = name
        self.agent = agent
        self.spent = Spent()
        self.usage: dict[str, int] = {}
        self.seen = 0
        """How much of what is recorded this attempt has come by, or recorded itself."""
        self.closed = False
        self._works = self._waits = 0
        self.place = 0

    @property
    def session(self) -> Session:
        """The session, as far as it is folded."""
        return self.hold.state.session

    @property
    def turn(self) -> Open:
        """The turn, as far as it is folded."""
        turn = self.session.turns.get(self.holding.message_id)
        if turn is None:
            raise Interrupted
        return turn

    def next(self, what: str) -> int:
        """The place of what the agent does next. Raises Mismatch where something else is recorded there."""
        self.check()
        self.place += 1
        recorded = self._recorded(self.place)
        if recorded not in (None, what) and (recorded, what) != ("an answer", "a model response"):
            raise Mismatch(self.place, str(recorded), what)
        return self.place

    def _recorded(self, place: int) -> str | None:
        turn = self.turn
        if step := turn.steps.get(place):
            return "a model response" if step.name == RESPONSE else f"the step {step.name!r}"
        if (call_id := self.id("c", place)) in turn.calls:
            return f"the call of {self.session.calls[call_id].call.tool}"
        return "an answer" if self.id("a", place) in turn.answers else None

    def finish(self) -> None:
        """The agent is done. Raises Mismatch where earlier attempts recorded more than it did now."""
        if self.seen < self.turn.recorded:
            raise Mismatch(self.place + 1, "more", "the end")

    def id(self, kind: Literal["a", "c"], place: int) -> str:
        """The id of the answer or call at a place."""
        made = f"{self.holding.session_id}/{self.holding.message_id}/{kind}/{place}"
        return f"{kind}_{hashlib.sha256(made.encode()).hexdigest()[:24]}"

    def spend(self, what: Literal["requests", "calls", "bytes"], amount: int, most: int) -> None:
        """Use up some of what a turn may have. Raises MillraceError `turn_limit`."""
        spent = getattr(self.spent, what) + amount
        setattr(self.spent, what, spent)
        if spent > most:
            words = {"requests": "model requests", "calls": "tool calls", "bytes": "bytes of answers"}
            raise MillraceError(Code.TURN_LIMIT, f"the turn reached its limit of {most} {words[what]}")

    def used(self, usage: dict[str, int] | None) -> None:
        """Count a response's tokens."""
        for name, count in (usage or {}).items():
            self.usage[name] = self.usage.get(name, 0) + count

    @property
    def wanted(self) -> bool:
        """Whether the turn is still to go on, and by this attempt."""
        now = self.hold.broker.now()
        going = isinstance(decide.decide(self.session, self.holding, now), Perform)
        return going and not self.closed and not self.hold.stopping

    def check(self) -> None:
        """Raise Interrupted where the turn is not to go on."""
        if not self.wanted:
            raise Interrupted

    @property
    def base(self) -> dict[str, Any]:
        """What every event has."""
        return decide.base(self.holding)

    @property
    def reply(self) -> dict[str, Any]:
        """What every event of the turn has."""
        return decide.reply(self.holding)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """The agent does something itself."""
        self._works += 1
        try:
            await self.go_on()
            yield
        finally:
            self._works -= 1
            self._rest()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The agent waits for others. Where it does nothing else, its delivery may rest."""
        self._waits += 1
        self._rest()
        try:
            yield
        finally:
            self._waits -= 1

    def _rest(self) -> None:
        if self._waits and not self._works:
            self.hold.delivery.rest(True)

    async def go_on(self) -> None:
        """Go on after waiting. Raises Interrupted where the turn is to go on elsewhere."""
        await self.hold.delivery.go_on()
        self.check()

    async def put(
        self, event: events.AnyEvent, context: dict[str, str] | None = None, *, lane: Lane | None = None
    ) -> None:
        """Append a fact. Where something else came first, go on only if the turn still is to go on."""
        self.check()
        while await self.hold.append(event, lane, context) is None:
            self.check()

    async def put_delta(self, delta: events.StreamDelta) -> None:
        """Append a delta, likewise."""
        self.check()
        while not await self.hold.append_delta(delta):
            self.check()

    async def status(self, status: str, **details: object) -> None:
        """Tell what the agent is at, for display."""
        told: Any = status
        await self.put(events.AgentStatus(**self.reply, status=told, details=details or None))
