"""Mutants: the code's own decisions with one rule broken. The exploration must object to each."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple
from unittest.mock import patch

from msgspec.structs import replace as changed

from agent_runner import decide as agent
from broker.acts import Act, Drop, Put, Settle, Wait
from contracts import events
from contracts.session import Call, Session
from tests.model.cases import STEER, TOOL, TWO
from tests.model.rules import Case
from tool_runner import decide as tool

MANY = 10**9
IDEMPOTENT = Case(tool="idempotent")

_agent, _tool = agent.decide, tool.decide


class Mutant(NamedTuple):
    """A case, and what replaces which attribute of the code in it."""

    case: Case
    owner: Any
    name: str
    replacement: Callable[..., object]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The code is broken here."""
        with patch.object(self.owner, self.name, self.replacement):
            yield


def newcomer_claims(session: Session, holding: tool.Holding, now: float) -> Act:
    """A start that is newer than the first look is taken for an older one."""
    joined = holding.joined if holding.claim else MANY
    return _tool(session, changed(holding, joined=joined), now)


def fenced_acks(session: Session, holding: agent.Holding) -> Act | agent.CloseAnswer:
    """Who was overtaken settles the delivery."""
    act = _agent(session, holding)
    return Settle() if isinstance(act, Drop) else act


def fenced_waits(session: Session, holding: agent.Holding) -> Act | agent.CloseAnswer:
    """Who was overtaken keeps the delivery."""
    act = _agent(session, holding)
    return Wait() if isinstance(act, Drop) else act


def ended_first(session: Session, holding: tool.Holding, now: float) -> Act:
    """Whether the turn has ended is asked before whether the call was started."""
    call = session.calls.get(holding.call_id)
    if call and session.over(call) and not holding.claim:
        session = changed(session, calls={holding.call_id: changed(call, started=0)})
    return _tool(session, holding, now)


def restart_cancels(session: Session, holding: tool.Holding, now: float) -> Act:
    """Who starts a call again forgets that it was started before."""
    return _tool(session, changed(holding, joined=0) if holding.claim else holding, now)


def runs_again(session: Session, holding: tool.Holding, now: float) -> Act:
    """A tool is taken for one that may run twice."""
    permit = changed(holding.permit, repeatable=True)
    return _tool(session, changed(holding, permit=permit), now)


def asks_nobody(session: Session, holding: tool.Holding, now: float) -> Act:
    """A tool that a person is to be asked about is started."""
    permit = changed(holding.permit, decision="allow")
    return _tool(session, changed(holding, permit=permit), now)


def late_executes(session: Session, holding: tool.Holding, now: float) -> Act:
    """Who comes too late executes all the same."""
    return _tool(session, changed(holding, late=False), now)


def starts_without_end(session: Session, holding: tool.Holding, now: float) -> Act:
    """There is no limit of executions."""
    return _tool(session, changed(holding, limit=MANY), now)


def attempts_without_end(session: Session, holding: agent.Holding) -> Act | agent.CloseAnswer:
    """There is no limit of attempts."""
    return _agent(session, changed(holding, limit=MANY))


def no_order(session: Session, holding: agent.Holding) -> Act | agent.CloseAnswer:
    """A message does not wait for the earlier ones."""
    mine = {m: turn for m, turn in session.turns.items() if m == holding.message_id}
    return _agent(changed(session, turns=mine), holding)


def duplicate_is_held(session: Session, holding: agent.Holding) -> Act | agent.CloseAnswer:
    """The same message stored again is a message of its own."""
    turn = session.turns.get(holding.message_id)
    return _agent(session, changed(holding, trigger=turn.seq) if turn else holding)


def steer_applied_first(session: Session, holding: agent.Holding) -> Put | None:
    """A steer is said to be applied before its turn ends."""
    turn = session.turns[holding.message_id]
    for m, other in session.turns.items():
        steers = other.seq > turn.seq and other.message.policy == "steer" and not other.stopping
        if steers and m not in turn.steered:
            applied = events.SteerApplied(id="e", timestamp="t", message_id=m, reply_to=holding.message_id)
            return Put(applied)
        if steers:
            return Put(events.TurnEnd(id="e", timestamp="t", reply_to=m, status="steered"))
    return None


def steers_the_stopped(session: Session, holding: agent.Holding) -> Put | None:
    """A steer that was itself cancelled is taken in."""
    for m, other in session.turns.items():
        if other.message.policy == "steer" and m != holding.message_id:
            return Put(events.TurnEnd(id="e", timestamp="t", reply_to=m, status="steered"))
    return None


def takes_the_late_in(session: Session, holding: agent.Holding) -> Act | agent.CloseAnswer:
    """A steer that comes after the answer is taken in all the same."""
    act = _agent(session, holding)
    late = agent.steer(session, holding) if holding.outcome and isinstance(act, Put) else None
    return late or act


def cancel_is_no_end(session: Session, call: Call) -> bool:
    """A call whose turn is to be stopped may be started."""
    return call.call.reply_to not in session.turns


MUTANTS = {
    mutant.replacement.__name__: mutant
    for mutant in (
        Mutant(replace(TOOL, pause=1), tool, "decide", newcomer_claims),
        Mutant(replace(TWO, pause=1, crash=1), agent, "decide", fenced_acks),
        Mutant(Case(pause=1, crash=1), agent, "decide", fenced_waits),
        Mutant(replace(TOOL, cancel=1, crash=1), tool, "decide", ended_first),
        Mutant(replace(IDEMPOTENT, cancel=1, pause=1), tool, "decide", restart_cancels),
        Mutant(replace(TOOL, crash=1), tool, "decide", runs_again),
        Mutant(TOOL, tool, "decide", asks_nobody),
        Mutant(replace(TOOL, pause=1), tool, "decide", late_executes),
        Mutant(replace(IDEMPOTENT, starts=1, crash=1), tool, "decide", starts_without_end),
        Mutant(Case(limit=1, crash=1), agent, "decide", attempts_without_end),
        Mutant(TWO, agent, "decide", no_order),
        Mutant(Case(duplicate=1), agent, "decide", duplicate_is_held),
        Mutant(replace(STEER, cancel=1), agent, "steer", steer_applied_first),
        Mutant(replace(STEER, cancel=1), agent, "steer", steers_the_stopped),
        Mutant(STEER, agent, "decide", takes_the_late_in),
        Mutant(replace(TOOL, cancel=1), Session, "over", cancel_is_no_end),
    )
}
