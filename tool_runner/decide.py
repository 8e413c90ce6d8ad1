"""What a holder of a tool call does next: pure decisions over the folded session."""

from typing import Any

from msgspec import Struct

from broker.acts import Act, Drop, Perform, Put, Settle, Wait
from contracts import events
from contracts.errors import Code
from contracts.events import ToolStatus, new_id, timestamp, unix_time
from contracts.session import Call, Session


class Permit(Struct, frozen=True):
    """What the rules and the tool's own hints say of a call: who may decide, and may it run twice."""

    decision: str
    expires: float = 300.0
    repeatable: bool = False
    problem: str | None = None
    code: str | None = None


class Outcome(Struct, frozen=True):
    """How the holder's execution of the call ended."""

    status: ToolStatus
    result: Any = None
    error: str | None = None
    code: str | None = None


UNKNOWN = Outcome("unknown", error="it was started and may or may not have run; it is not run again")


def too_often(executions: int) -> Outcome:
    """No more of them."""
    return Outcome("failed", error=f"{executions} executions ended without a result", code=Code.TOOL_ERROR)


class Holding(Struct):
    """What a holder knows beside the log: its call, the start it found at its first look, its own start.

    `late`: it did not come to execute within `ack_wait` of its start, and must not any more.
    """

    session_id: str
    call_id: str
    permit: Permit = Permit("deny")
    joined: int = 0
    claim: int = 0
    limit: int = 3
    late: bool = False
    outcome: Outcome | None = None


def first_look(session: Session, holding: Holding) -> None:
    """Remember the start that was there when the delivery came."""
    call = session.calls.get(holding.call_id)
    holding.joined = call.started if call else 0


def decide(session: Session, holding: Holding, now: float) -> Act:  # noqa: C901, PLR0911 - one return a rule
    """The next act of the holder of a tool call; `now` is the broker's time."""
    call = session.calls.get(holding.call_id)
    if call is None or call.result:
        return Settle()
    over = session.over(call)
    if holding.claim:
        if holding.claim != call.started or holding.late:
            return Drop()
        if holding.outcome:
            return _result(call, holding, holding.outcome)
        if over:
            return _result(call, holding, UNKNOWN if holding.joined else Outcome("cancelled"))
        return Perform()
    if call.started > holding.joined:
        return Drop()
    if call.started:
        if over or not holding.permit.repeatable:
            return _result(call, holding, UNKNOWN)
        if call.starts >= holding.limit:
            return _result(call, holding, too_often(call.starts))
        return _start(call, holding)
    if over:
        return _result(call, holding, Outcome("cancelled"))
    return _ask(call, holding, now)


def _ask(call: Call, holding: Holding, now: float) -> Act:  # noqa: PLR0911 - one return a rule
    permit = holding.permit
    is_asked = call.request is not None and permit.code == Code.TOOL_ERROR
    if permit.problem and not is_asked:  # a server that is away for now takes nobody's approval back
        return _result(call, holding, Outcome("failed", error=permit.problem, code=permit.code))
    if permit.decision == "deny":
        return _result(call, holding, Outcome("failed", error="a rule denies this tool", code="tool_denied"))
    if permit.decision == "allow" and call.request is None:
        return _start(call, holding)  # who was asked decides, also where a changed rule would not ask any more
    if call.request is None:
        return Put(
            events.ToolApprovalRequest(
                **_base(holding, call),
                tool=call.call.tool,
                arguments=call.call.arguments,
                expires_at=timestamp(now + permit.expires),
            )
        )
    if call.decision is None:
        expires_at = unix_time(call.request.expires_at)
        return _result(call, holding, Outcome("expired")) if now >= expires_at else Wait(expires_at)
    if not call.decision.approved:
        return _result(call, holding, Outcome("rejected", error=call.decision.reason))
    return _start(call, holding)


def _start(call: Call, holding: Holding) -> Put:
    return Put(events.ToolStarted(**_base(holding, call), attempt=call.starts + 1), claim=True)


def _result(call: Call, holding: Holding, outcome: Outcome) -> Put:
    return Put(
        events.ToolResult(
            **_base(holding, call),
            status=outcome.status,
            result=outcome.result,
            error=outcome.error,
            code=outcome.code,
        )
    )


def _base(holding: Holding, call: Call) -> dict[str, Any]:
    return {
        "id": new_id(),
        "timestamp": timestamp(),
        "session_id": holding.session_id,
        "tool_call_id": holding.call_id,
        "reply_to": call.call.reply_to,
    }
