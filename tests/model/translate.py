"""Translating facts of the model to events of the code, and back."""

from typing import Any

from contracts import events
from contracts.events import AnyEvent, Event, timestamp
from tests.model.facts import Fact

EXPIRES_AT = timestamp(1_000_000_000)


def message_id(number: int) -> str:
    """The id of a message; the model numbers them."""
    return f"m{number}"


def answer_id(number: int) -> str:
    """The id of the answer to a message."""
    return f"a{number}"


def event_of(fact: Fact) -> AnyEvent:
    """The event that a fact stands for."""
    return _call_event(fact) if isinstance(fact[1], str) else _turn_event(fact)


def _turn_event(fact: Fact) -> AnyEvent:  # noqa: PLR0911 - a table
    base: dict[str, Any] = {"id": "e", "timestamp": timestamp(0), "session_id": "s"}
    m = message_id(fact[1])
    match fact:
        case ("message", _, policy):
            return events.Message(
                **base,
                message_id=m,
                role="user",
                content=m,
                user_id="u",
                client_message_id=m,
                policy=policy,
            )
        case ("cancel", number):
            return events.Cancel(**base, message_id=m if number else None, user_id="u")
        case ("turn_start", _, attempt):
            return events.TurnStart(**base, reply_to=m, attempt=attempt)
        case ("turn_release", _):
            return events.TurnRelease(**base, reply_to=m)
        case ("waits", _):
            return events.AgentStatus(**base, reply_to=m, status="waiting_tool", details=None)
        case ("turn_end", _, status):
            return events.TurnEnd(**base, reply_to=m, status=status)
        case ("answer", number):
            answer = answer_id(number)
            return events.StreamEnd(**base, message_id=answer, reply_to=m, content="", finish_reason="stop")
        case ("steer_missed", _, aim):
            return events.SteerMissed(**base, message_id=m, reply_to=message_id(aim))
        case ("steer_applied", _, taker):
            return events.SteerApplied(**base, message_id=m, reply_to=message_id(taker))
    raise ValueError(fact)


def _call_event(fact: Fact) -> AnyEvent:
    base: dict[str, Any] = {"id": "e", "timestamp": timestamp(0), "session_id": "s", "tool_call_id": fact[1]}
    of_turn = {**base, "reply_to": message_id(1)}
    match fact:
        case ("call", _):
            return events.ToolCall(**of_turn, tool="demo.note", arguments={})
        case ("ask", _):
            return events.ToolApprovalRequest(**of_turn, tool="demo.note", arguments={}, expires_at=EXPIRES_AT)
        case ("approval", _, approved):
            return events.ToolApproval(**base, approved=approved, decided_by="u", decided_at="t")
        case ("started", _, attempt):
            return events.ToolStarted(**of_turn, attempt=attempt)
        case ("result", _, status):
            return events.ToolResult(**of_turn, status=status, result=None, error=None)
    raise ValueError(fact)


def fact_of(event: Event) -> Fact:  # noqa: PLR0911 - a table
    """The fact that an event of the code is."""
    match event:
        case events.TurnStart(reply_to=m, attempt=attempt):
            return ("turn_start", _number(m), attempt)
        case events.TurnRelease(reply_to=m):
            return ("turn_release", _number(m))
        case events.TurnEnd(reply_to=m, status=status):
            return ("turn_end", _number(m), status)
        case events.SteerApplied(message_id=m, reply_to=taker):
            return ("steer_applied", _number(m), _number(taker))
        case events.SteerMissed(message_id=m, reply_to=aim):
            return ("steer_missed", _number(m), _number(aim))
        case events.ToolApprovalRequest(tool_call_id=name):
            return ("ask", name)
        case events.ToolStarted(tool_call_id=name, attempt=attempt):
            return ("started", name, attempt)
        case events.ToolResult(tool_call_id=name, status=status):
            return ("result", name, status)
    raise ValueError(event)


def _number(message: str) -> int:
    return int(message.removeprefix("m"))
