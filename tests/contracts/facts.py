"""Facts of a session for tests: random ones, and those that an honest system writes."""

from collections.abc import Iterator
from typing import Any, Literal, get_args

from hypothesis import strategies as st

from contracts import events
from contracts.events import AnyEvent
from contracts.session import Session

BASE: dict[str, Any] = {"id": "e", "timestamp": events.timestamp(0), "session_id": "s"}
POLICIES: tuple[events.Policy, ...] = ("enqueue", "interrupt", "steer")

Told = Literal["thinking", "waiting_tool", "waiting_approval"]
TOLD: tuple[Told, ...] = get_args(Told)

MESSAGES = ("m1", "m2", "m3", "m4")
CALLS = ("c1", "c2")
ANSWERS = ("a1", "a2")

message_ids = st.sampled_from(MESSAGES)
call_ids = st.sampled_from(CALLS)
answer_ids = st.sampled_from(ANSWERS)


def message(message_id: str, policy: events.Policy = "enqueue") -> AnyEvent:
    """Somebody said something."""
    return events.Message(
        **BASE,
        message_id=message_id,
        role="user",
        content=message_id,
        user_id="u",
        client_message_id=message_id,
        policy=policy,
    )


def turn_start(reply_to: str, attempt: int = 1) -> AnyEvent:
    """A claim."""
    return events.TurnStart(**BASE, reply_to=reply_to, attempt=attempt)


def turn_release(reply_to: str) -> AnyEvent:
    """A claim that is given back."""
    return events.TurnRelease(**BASE, reply_to=reply_to)


def turn_end(reply_to: str, status: events.TurnStatus = "completed") -> AnyEvent:
    """The end of a turn."""
    return events.TurnEnd(**BASE, reply_to=reply_to, status=status)


def cancel(message_id: str | None = None) -> AnyEvent:
    """Somebody asked for work to stop."""
    return events.Cancel(**BASE, message_id=message_id, user_id="u")


def stream_start(message_id: str, reply_to: str) -> AnyEvent:
    """An answer begins."""
    return events.StreamStart(**BASE, message_id=message_id, reply_to=reply_to, agent="a")


def stream_reset(message_id: str) -> AnyEvent:
    """What was streamed is void."""
    return events.StreamReset(**BASE, message_id=message_id, attempt=2, reason="r")


def stream_end(message_id: str, reply_to: str, reason: events.FinishReason = "stop") -> AnyEvent:
    """An answer ends."""
    return events.StreamEnd(**BASE, message_id=message_id, reply_to=reply_to, content="x", finish_reason=reason)


def steer_applied(message_id: str, reply_to: str) -> AnyEvent:
    """A turn has taken a message in."""
    return events.SteerApplied(**BASE, message_id=message_id, reply_to=reply_to)


def step(reply_to: str, name: str = "step") -> AnyEvent:
    """A recorded step."""
    return events.Step(**BASE, reply_to=reply_to, name=name)


def status(reply_to: str, told: Told = "waiting_tool") -> AnyEvent:
    """What the agent is at."""
    return events.AgentStatus(**BASE, reply_to=reply_to, status=told, details=None)


def error(text: str) -> AnyEvent:
    """What an agent failed with."""
    return events.Error(**BASE, code="agent_failed", error=text, message=text, retryable=False)


def workflow_progress(progress: float) -> AnyEvent:
    """How far a workflow is."""
    return events.WorkflowProgress(**BASE, workflow_id="w", step="s", progress=progress)


def tool_call(call_id: str, reply_to: str) -> AnyEvent:
    """The agent wants a tool run."""
    return events.ToolCall(**BASE, tool_call_id=call_id, reply_to=reply_to, tool="demo.note", arguments={"text": "x"})


def request(call_id: str, reply_to: str, expires_at: float = 100) -> AnyEvent:
    """A person is asked."""
    return events.ToolApprovalRequest(
        **BASE,
        tool_call_id=call_id,
        reply_to=reply_to,
        tool="demo.note",
        arguments={"text": "x"},
        expires_at=events.timestamp(expires_at),
    )


def approval(call_id: str, approved: bool = True, **more: Any) -> AnyEvent:
    """A person decides."""
    return events.ToolApproval(
        **BASE,
        tool_call_id=call_id,
        approved=approved,
        decided_by="u",
        decided_at=events.timestamp(1),
        **more,
    )


def tool_started(call_id: str, reply_to: str, attempt: int = 1) -> AnyEvent:
    """A claim of a call."""
    return events.ToolStarted(**BASE, tool_call_id=call_id, reply_to=reply_to, attempt=attempt)


def tool_result(call_id: str, reply_to: str, status: events.ToolStatus = "completed") -> AnyEvent:
    """The end of a call."""
    return events.ToolResult(**BASE, tool_call_id=call_id, reply_to=reply_to, status=status, result=1, error=None)


arbitrary: st.SearchStrategy[AnyEvent] = st.one_of(
    st.builds(message, message_ids, st.sampled_from(POLICIES)),
    st.builds(cancel, st.none() | message_ids | answer_ids),
    st.builds(turn_start, message_ids),
    st.builds(turn_release, message_ids),
    st.builds(turn_end, message_ids, st.sampled_from(("completed", "cancelled", "steered"))),
    st.builds(stream_start, answer_ids, message_ids),
    st.builds(stream_end, answer_ids, message_ids),
    st.builds(stream_reset, answer_ids),
    st.builds(steer_applied, message_ids, message_ids),
    st.builds(step, message_ids),
    st.builds(status, message_ids, st.sampled_from(TOLD)),
    st.builds(tool_call, call_ids, message_ids),
    st.builds(request, call_ids, message_ids),
    st.builds(approval, call_ids, st.booleans()),
    st.builds(tool_started, call_ids, message_ids),
    st.builds(tool_result, call_ids, message_ids),
    st.builds(workflow_progress, st.floats(0, 1)),
)
"""Any fact at any time, also where nobody would write it."""


@st.composite
def honest(draw: st.DrawFn) -> list[AnyEvent]:
    """What clients and runners write who keep to the rules, crash and come back."""
    session, facts, held = Session(), list[AnyEvent](), False
    for _ in range(draw(st.integers(0, 30))):
        possible = [*_clients_say(session), *_agents_write(session, held), *_tools_write(session)]
        fact = draw(st.sampled_from(possible))
        if isinstance(fact, events.TurnStart | events.TurnRelease | events.TurnEnd):
            ends = isinstance(fact, events.TurnRelease) or fact.reply_to == session.first
            held = isinstance(fact, events.TurnStart) or (held and not ends)
        facts.append(fact)
        session.apply(len(facts), fact)
    return facts


def _clients_say(session: Session) -> Iterator[AnyEvent]:
    known = len(session.turns) + len(session.ended)
    yield from (message(name, policy) for name in MESSAGES[: known + 1] for policy in POLICIES)
    yield from (cancel(name) for name in (None, *session.turns, *ANSWERS))
    for call_id, call in session.calls.items():
        if call.request and not call.decision and not session.over(call):
            yield from (approval(call_id, approved) for approved in (True, False))


def _agents_write(session: Session, held: bool) -> Iterator[AnyEvent]:
    if session.first is None:
        return
    m, turn = session.first, session.turns[session.first]
    yield turn_start(m, turn.attempt + 1)
    if not held:
        return
    yield turn_release(m)
    if turn.stopping:
        yield turn_end(m, "cancelled")
        return
    yield from (step(m), error("no"))
    yield from (status(m, told) for told in TOLD)
    yield from (turn_end(m, "completed"), turn_end(m, "failed"))
    yield from (tool_call(f"{m}-{name}", m) for name in CALLS if f"{m}-{name}" not in session.calls)
    if answer := turn.open_answer:
        yield stream_end(answer.message_id, m)
    else:
        yield stream_start(f"{m}-{ANSWERS[len(turn.answers) % 2]}", m)
    for name, other in session.turns.items():
        if other.message.policy == "steer" and name != m and not other.stopping:
            yield turn_end(name, "steered")
    yield from (steer_applied(name, m) for name, applied in turn.steered.items() if not applied)


def _tools_write(session: Session) -> Iterator[AnyEvent]:
    for call_id, call in session.calls.items():
        if call.result:
            continue
        m = call.call.reply_to
        yield tool_result(call_id, m, "cancelled" if session.over(call) else "completed")
        if not session.over(call):
            yield tool_started(call_id, m, call.starts + 1)
            if call.request is None:
                yield request(call_id, m)
