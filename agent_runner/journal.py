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
from typing import Any, Literal, NoReturn

from msgspec import Struct

from agent_runner import decide, step
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
    steps: int = 0
    bytes: int = 0


_WORDS = {
    "requests": "model requests",
    "calls": "tool calls",
    "steps": "steps and reports of progress",
    "bytes": "bytes of answers and of what steps return",
}


class Journal:
    """One attempt's view of its turn. Whatever is awaited raises Interrupted once the attempt is over."""

    def __init__(self, hold: Hold[State], holding: decide.Holding, name: str, agent: Agent) -> None:
        self.hold = hold
        self.holding = holding
        self.name = name
        self.agent = agent
        self.spent = Spent()
        holding.usage = {}
        self.seen = 0
        """How much of what is recorded this attempt has come by, or recorded itself."""
        self.closed = False
        self.interrupted = False
        """Whether the agent was told, or cancelled, whatever it made of that."""
        self.ending: MillraceError | None = None
        """What has ended this attempt for good, whatever the agent makes of it."""
        self._defied = False
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
            self.interrupt()
            raise Interrupted
        return turn

    async def next(self, what: str) -> int:
        """The place of what the agent does next. Raises Mismatch where something else is recorded there.

        Raises RuntimeError within a step: where that is recorded, it would not come by this place again.
        """
        if step.is_within():
            raise RuntimeError(f"{what} within a step: a later attempt would not find it")
        await self.check()
        self.place += 1
        recorded = self._recorded(self.place)
        if recorded not in (None, what) and (recorded, what) != ("an answer", "a model response"):
            self.end(Mismatch(self.place, str(recorded), what))
        return self.place

    def _recorded(self, place: int) -> str | None:
        turn = self.turn
        if done := turn.steps.get(place):
            return "a model response" if done.name == RESPONSE else f"the step {done.name!r}"
        if (call_id := self.id("c", place)) in turn.calls:
            return f"the call of {self.session.calls[call_id].call.tool}"
        return "an answer" if self.id("a", place) in turn.answers else None

    def end(self, error: MillraceError) -> NoReturn:
        """Raise what ends this attempt for good: whatever the agent does from now on raises it again.

        An agent that goes on with other places than those before it would do again what is recorded.
        """
        self.ending = self.ending or error
        raise self.ending

    def finish(self) -> None:
        """The agent is done. Raises what has ended the attempt, and Mismatch where more is recorded than it did now.

        Raises Interrupted where the agent was interrupted and has swallowed that, as a TaskGroup does: what it has left
        out is for a later attempt.
        """
        if self.ending:
            raise self.ending
        if self.interrupted:
            raise Interrupted
        if self.seen < self.turn.recorded:
            self.end(Mismatch(self.place + 1, "more", "the end"))

    def id(self, kind: Literal["a", "c"], place: int) -> str:
        """The id of the answer or call at a place."""
        made = f"{self.holding.session_id}/{self.holding.message_id}/{kind}/{place}"
        return f"{kind}_{hashlib.sha256(made.encode()).hexdigest()[:24]}"

    def spend(self, what: Literal["requests", "calls", "steps", "bytes"], amount: int = 1) -> None:
        """Use up some of what a turn may have, also where it is recorded: every attempt counts the same.

        Raises MillraceError `turn_limit`, or what has ended the attempt.
        """
        if self.ending:
            raise self.ending
        most = getattr(self.agent, f"max_{what}")
        spent = getattr(self.spent, what) + amount
        setattr(self.spent, what, spent)
        if spent > most:
            self.end(MillraceError(Code.TURN_LIMIT, f"the turn reached its limit of {most} {_WORDS[what]}"))

    def used(self, usage: dict[str, int] | None) -> None:
        """Count a response's tokens. Raises TypeError for what is no number of them."""
        told = self.holding.usage
        for name, count in (usage or {}).items():
            if type(count) is not int:
                raise TypeError(f"{name}: {count!r} is no number of tokens")
            told[name] = told.get(name, 0) + count

    @property
    def is_ours(self) -> bool:
        """Whether the turn is still to go on, and by this attempt."""
        now = self.hold.broker.now()
        going = isinstance(decide.decide(self.session, self.holding, now), Perform)
        return going and not self.closed and not self.hold.stopping

    @property
    def wanted(self) -> bool:
        """Whether the agent is still to run: not one that goes on though what ended its attempt was raised."""
        return self.is_ours and not self._defied

    async def check(self) -> None:
        """Raise what has ended the attempt, or Interrupted where the turn is not to go on.

        Others run before that: an agent that catches it and tries again, for ever, must not keep its own process
        from cancelling it.
        """
        if not self.ending:
            return await self._check_wanted()
        self._defied = True
        self.hold.news.set()  # its holder looks whether it is still wanted
        await asyncio.sleep(0)
        raise self.ending.with_traceback(None)

    async def _check_wanted(self) -> None:
        if not self.wanted:
            self.interrupt()
            await asyncio.sleep(0)
            raise Interrupted

    def interrupt(self) -> None:
        """This attempt is over: what its agent does from now on decides nothing."""
        self.interrupted = True

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
        await self.check()

    async def put(
        self, event: events.AnyEvent, context: dict[str, str] | None = None, *, lane: Lane | None = None
    ) -> None:
        """Append a fact. Where something else came first, go on only if the turn still is to go on."""
        await self.check()
        while await self.hold.append(event, lane, context) is None:
            await self.check()

    async def put_delta(self, delta: events.StreamDelta) -> None:
        """Append a delta, likewise. What was produced before the attempt ended is still told."""
        await self._check_wanted()
        while not await self.hold.append_delta(delta):
            await self._check_wanted()

    async def fail(self, failure: events.Failure) -> None:
        """Tell of the failure that the turn ends with. Raises Interrupted where it is not this attempt's to end."""
        told = events.Error(
            **self.base, code=failure.code, error=failure.error, message=failure.error, retryable=failure.retryable
        )
        while self.is_ours:
            if await self.hold.append(told) is not None:
                return
        raise Interrupted

    async def status(self, status: str, **details: object) -> None:
        """Tell what the agent is at, for display."""
        told: Any = status
        await self.put(events.AgentStatus(**self.reply, status=told, details=details or None))
