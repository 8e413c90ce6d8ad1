"""Agent mutants: what a message's holder decides, with one rule broken."""

from math import inf
from typing import Any

from msgspec.structs import replace as changed

from agent_runner import decide as agent
from broker.acts import Act, Drop, Put, Settle, Wait
from contracts import events
from contracts.session import Session, Turn

MANY = 10**9
BASE: dict[str, Any] = {"id": "e", "timestamp": "t"}

_agent, _deadline, _release = agent.decide, agent.deadline, agent.release


def fenced_acks(session: Session, holding: agent.Holding, now: float) -> Act | agent.CloseAnswer:
    """Who was overtaken settles the delivery."""
    act = _agent(session, holding, now)
    return Settle() if isinstance(act, Drop) else act


def fenced_waits(session: Session, holding: agent.Holding, now: float) -> Act | agent.CloseAnswer:
    """Who was overtaken keeps the delivery."""
    act = _agent(session, holding, now)
    return Wait() if isinstance(act, Drop) else act


def attempts_without_end(session: Session, holding: agent.Holding, now: float) -> Act | agent.CloseAnswer:
    """There is no limit of attempts."""
    return _agent(session, changed(holding, limit=MANY), now)


def no_order(session: Session, holding: agent.Holding, now: float) -> Act | agent.CloseAnswer:
    """A message does not wait for the earlier ones."""
    mine = {m: turn for m, turn in session.turns.items() if m == holding.message_id}
    return _agent(changed(session, turns=mine), holding, now)


def duplicate_is_held(session: Session, holding: agent.Holding, now: float) -> Act | agent.CloseAnswer:
    """The same message stored again is a message of its own."""
    turn = session.turns.get(holding.message_id)
    return _agent(session, changed(holding, trigger=turn.seq) if turn else holding, now)


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


def takes_the_late_in(session: Session, holding: agent.Holding, now: float) -> Act | agent.CloseAnswer:
    """A steer that comes after the answer is taken in all the same."""
    act = _agent(session, holding, now)
    late = agent.steer(session, holding) if holding.outcome and isinstance(act, Put) else None
    return late or act


def missed_is_not_told(session: Session, holding: agent.Holding, now: float) -> Act | agent.CloseAnswer:
    """A steer that has a turn of its own is not told that it came too late."""
    turns = {m: changed(turn, aim=None) for m, turn in session.turns.items()}
    return _agent(changed(session, turns=turns), holding, now)


def misses_another(session: Session, holding: agent.Holding, now: float) -> Act | agent.CloseAnswer:
    """A steer is told that it missed itself."""
    act = _agent(session, holding, now)
    if isinstance(act, Put) and isinstance(act.event, events.SteerMissed):
        return Put(events.SteerMissed(**BASE, message_id=holding.message_id, reply_to=holding.message_id))
    return act


def tells_the_cancelled(session: Session, holding: agent.Holding, now: float) -> Act | agent.CloseAnswer:
    """A steer that is to be cancelled is told that it is answered as its own."""
    turn = session.turns.get(holding.message_id)
    if turn and turn.aim and turn.stopping and holding.claim == turn.claim > 0:
        return Put(events.SteerMissed(**BASE, message_id=holding.message_id, reply_to=turn.aim))
    return _agent(session, holding, now)


def applied_is_not_told(_turn: Turn, _holding: agent.Holding) -> None:
    """A steer that was taken in is told nothing."""


def never_overdue(_turn: Turn, _holding: agent.Holding) -> float:
    """A turn may take for ever."""
    return inf


def claims_the_overdue(session: Session, holding: agent.Holding, now: float) -> Act | agent.CloseAnswer:
    """Who takes an overdue turn over claims it first."""
    return _agent(session, holding, now if holding.claim else 0)


def leaves_the_overdue(session: Session, holding: agent.Holding, now: float) -> Act | agent.CloseAnswer:
    """An overdue turn is ended only by who has run it."""
    turn, act = session.turns.get(holding.message_id), _agent(session, holding, now)
    overdue = turn is not None and now >= _deadline(turn, holding)
    return Wait() if isinstance(act, Put) and overdue and not holding.claim else act


def runs_the_overdue(session: Session, holding: agent.Holding, now: float) -> Act | agent.CloseAnswer:
    """An overdue turn is ended by who takes it over, and goes on where it runs."""
    return _agent(session, holding, 0 if holding.claim else now)


def overdue_before_cancelled(session: Session, holding: agent.Holding, now: float) -> Act | agent.CloseAnswer:
    """A turn that is overdue and cancelled has failed."""
    turn = session.turns.get(holding.message_id)
    if turn and now >= _deadline(turn, holding):
        session = changed(session, turns=session.turns | {holding.message_id: changed(turn, stopping=False)})
    return _agent(session, holding, now)


def keeps_its_claim(_session: Session, _holding: agent.Holding) -> None:
    """Who is told to stop hands nothing over."""


def gives_back_what_was_taken_over(session: Session, holding: agent.Holding) -> Put | None:
    """Who is told to stop gives the last claim back, whosever it is."""
    turn = session.turns.get(holding.message_id)
    return _release(session, changed(holding, claim=turn.claim) if turn and holding.claim else holding)
