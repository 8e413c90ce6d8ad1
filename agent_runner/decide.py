"""What a holder of a message does next: pure decisions over the folded session."""

from math import inf
from typing import Any

from msgspec import Struct

from broker.acts import Act, Drop, Perform, Put, Settle, Wait
from contracts import events
from contracts.errors import Code
from contracts.events import Failure, TurnStatus, new_id, timestamp, unix_time
from contracts.session import Session, Turn
from contracts.streams import DELTA_TTL


class Outcome(Struct, frozen=True):
    """How the holder's run of the turn ended."""

    status: TurnStatus
    error: Failure | None = None


class Holding(Struct):
    """What a holder knows beside the log: its trigger, the claim it found at its first look, its own claim.

    `limit`: attempts without a finished step between. `seconds`: how long the turn may take from its first claim.
    `usage`: what its attempt has used, to be told however the turn ends.
    """

    session_id: str
    message_id: str
    trigger: int
    joined: int = 0
    claim: int = 0
    limit: int = 5
    seconds: float = DELTA_TTL
    outcome: Outcome | None = None
    usage: dict[str, int] = {}


class CloseAnswer(Struct, frozen=True):
    """An answer is open though its turn ends: append its `stream_end` with what was streamed. It is not whole."""

    message_id: str
    finish_reason: events.FinishReason


def first_look(session: Session, holding: Holding) -> None:
    """Remember the claim that was there when the delivery came: newer foreign ones make the holder drop."""
    turn = session.turns.get(holding.message_id)
    holding.joined = turn.claim if turn else 0


def decide(session: Session, holding: Holding, now: float = 0) -> Act | CloseAnswer:  # noqa: PLR0911 - one return a rule
    """The next act of the holder of a message. `now` is the broker's time."""
    turn = session.turns.get(holding.message_id)
    if turn is None or turn.seq != holding.trigger:
        return Settle()  # it has ended, or the same message stands earlier in the log
    if holding.claim and holding.claim != turn.claim:
        return Drop()
    if not holding.claim and turn.claim > holding.joined:
        return Drop()
    if session.first != holding.message_id:
        return Wait()
    late = now >= deadline(turn, holding)
    if not holding.claim and not late:
        return _claim(turn, holding, now)
    if turn.stopping:
        return _end(turn, holding, Outcome("cancelled"), "cancelled")
    if told := _tell_missed(turn, holding):
        return told
    if outcome := holding.outcome or _failed(turn, holding, late):
        return _end(turn, holding, outcome, "error")
    return Perform()


def _failed(turn: Turn, holding: Holding, late: bool) -> Outcome | None:
    """What the log says of an attempt's failure: the turn ends with it, whoever tells so; or the time is over."""
    failure = turn.failure
    if late and not failure:
        failure = Failure(Code.TURN_TIMEOUT, f"the turn took more than {holding.seconds:g} s", retryable=True)
    return Outcome("failed", failure) if failure else None


def _claim(turn: Turn, holding: Holding, now: float) -> Put | CloseAnswer:
    if turn.failures >= holding.limit and not turn.stopping:
        failure = Failure(Code.AGENT_FAILED, f"{turn.failures} attempts ended without an answer", retryable=True)
        return _end(turn, holding, Outcome("failed", failure), "error")
    start = events.TurnStart(**{**reply(holding), "timestamp": timestamp(now)}, attempt=turn.attempt + 1)
    return Put(start, claim=True)


def deadline(turn: Turn, holding: Holding) -> float:
    """When the turn is to be over: some time after its first attempt began, both in the broker's time."""
    return unix_time(turn.began) + holding.seconds if turn.began else inf


def steer(session: Session, holding: Holding) -> Put | None:
    """At a boundary between steps: the fact that takes in the next steering message, if there is one.

    `turn_end(steered)` takes it in; `steer_applied` follows, also by a later attempt. One that comes after the
    last boundary is not taken in: nothing would answer it. It has a turn of its own.
    """
    turn = session.turns[holding.message_id]
    for message_id, other in session.turns.items():
        if other.seq > turn.seq and other.message.policy == "steer" and not other.stopping:
            return Put(events.TurnEnd(**base(holding), reply_to=message_id, status="steered"))
    return tell_steer(turn, holding)


def tell_steer(turn: Turn, holding: Holding) -> Put | None:
    """The `steer_applied` of a message that was taken in, where it is missing."""
    for message_id, taken in turn.steered.items():
        if not taken.told:
            return Put(events.SteerApplied(**base(holding), message_id=message_id, reply_to=holding.message_id))
    return None


def _tell_missed(turn: Turn, holding: Holding) -> Put | None:
    """The `steer_missed` of a message that no running turn took in; not where it is itself to be stopped."""
    if turn.aim is None or turn.stopping:
        return None
    return Put(events.SteerMissed(**base(holding), message_id=holding.message_id, reply_to=turn.aim))


def release(session: Session, holding: Holding) -> Put | None:
    """What a holder that is told to stop appends before it hands its message over, where its claim is the last one."""
    turn = session.turns.get(holding.message_id)
    if turn is None or not holding.claim or turn.claim != holding.claim:
        return None
    return Put(events.TurnRelease(**reply(holding)))


def _end(turn: Turn, holding: Holding, outcome: Outcome, reason: events.FinishReason) -> Put | CloseAnswer:
    if told := tell_steer(turn, holding) or _tell_missed(turn, holding):
        return told  # however the turn ends: nobody could tell it afterwards
    if answer := turn.open_answer:
        return CloseAnswer(answer.message_id, reason)
    return Put(
        events.TurnEnd(
            **reply(holding),
            status=outcome.status,
            error=outcome.error,
            usage=holding.usage or None,
        )
    )


def base(holding: Holding) -> dict[str, Any]:
    """What every event of the session has."""
    return {"id": new_id(), "timestamp": timestamp(), "session_id": holding.session_id}


def reply(holding: Holding) -> dict[str, Any]:
    """What every event of the turn has."""
    return {**base(holding), "reply_to": holding.message_id}
