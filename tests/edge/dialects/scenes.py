"""What each dialect is given, one scene each; the golden files pin what it makes of them.

`python -m tests.edge.dialects.scenes` adds the golden files that are missing. A golden file is never edited: clients
rely on it. A line is one input, a log event or a frame of the edge's own, and the frames that it becomes.
"""

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from contracts import events, frames
from edge.dialects.agents import Agents
from edge.dialects.dialect import Dialect
from edge.dialects.llm import Llm
from edge.dialects.project import Project
from edge.dialects.user import User

GOLDEN = Path(__file__).parent / "golden"

_AT = "2026-01-02T03:04:05.678901Z"
_LOG: dict[str, Any] = {"id": "e1", "timestamp": _AT}
_S: dict[str, Any] = {**_LOG, "session_id": "s-1"}
_TURN: dict[str, Any] = {**_S, "reply_to": "m_1"}
_FLOW: dict[str, Any] = {"workflow_id": "w", "step": "build", "progress": 0.257}
_ERROR = frames.ErrorFrame(code="rate_limited", error="too many", message="too many", retryable=True)
_ACTIVE = frames.Active(message_id="a_2", reply_to="m_1", agent="script", content="more", thinking="", attempt=1)
_PASSED: tuple[frames.ServerFrame, ...] = (
    _ERROR,
    frames.Reconnect(reconnect_after=1.5, reason="restarting"),
    frames.ResumeGap(session_id="s-1", reason="lost"),
    frames.Ping(timestamp=_AT),
    frames.ReplayComplete(session_id="s-1", cursor="e.1", replayed=0),
)

_START = events.StreamStart(**_TURN, message_id="a_1", agent="script")
_DELTA = events.StreamDelta(**_S, message_id="a_1", delta="Hel", offset=0)
_TURN_EVENTS: tuple[events.Event, ...] = (
    events.Message(**_S, message_id="m_1", role="user", content="hi", user_id="ada", client_message_id="c"),
    events.TurnStart(**_TURN, attempt=1),
    _START,
    events.StreamDelta(**_S, message_id="a_1", delta="Hm.", offset=0, kind="thinking"),
    _DELTA,
    events.StreamDelta(**_S, message_id="a_1", delta="lo 🌍", offset=3),
    events.StreamReset(**_S, message_id="a_1", attempt=2, reason="a new attempt"),
    events.StreamDelta(**_S, message_id="a_1", delta="Good day", offset=0),
    events.StreamEnd(**_TURN, message_id="a_1", content="Good day", finish_reason="stop", thinking="Hm."),
    events.ToolCall(**_TURN, tool_call_id="c_1", tool="demo.add", arguments={}),
    events.WorkflowProgress(**_S, **_FLOW),
    events.WorkflowProgress(**_S, **{**_FLOW, "progress": 1.0}, completed=4, total=4),
    events.Error(**_S, code="agent_failed", error="no", message="no", retryable=False),
    events.TurnEnd(**_TURN, status="failed", error=events.Failure("agent_failed", "no", False)),
    events.TurnEnd(**{**_TURN, "reply_to": "m_2"}, status="completed", usage={"input_tokens": 1}),
)
_UNKNOWN_ANSWER: tuple[events.Event, ...] = (
    events.StreamDelta(**_S, message_id="a_9", delta="tail", offset=20),
    events.StreamEnd(**_TURN, message_id="a_9", content="head and tail", finish_reason="stop"),
)
_TOLD: tuple[events.Event, ...] = (
    events.ExternalEvent(
        **_LOG, user_id="ada", event_id="ce-1", source="billing", event_type="invoice.paid", event_data={"sum": 3}
    ),
    events.ExternalEvent(
        **_LOG, tenant="acme", event_id="ce-2", source="ops", event_type="maintenance", event_data=None
    ),
    events.WorkflowProgress(**_LOG, user_id="ada", **_FLOW),
    events.AgentUpdate(**_LOG, tenant="acme", agent_id="agent-1", status="ready"),
    events.MemoryUpdate(**_LOG, user_id="ada", memory_id="mem-1", agent_id="agent-1", operation="created"),
    events.SessionListed(**_LOG, listed_id="s-1"),
)


def snapshot(active: frames.Active | None = _ACTIVE, running: str | None = "m_1") -> frames.Snapshot:
    """A session in which one answer was given and another is open."""
    asked = {"type": "message", **_S, "message_id": "m_1", "role": "user", "content": "hi"}
    said = {"message_id": "a_1", "role": "assistant", "content": "Good day", "reply_to": "m_1"}
    return frames.Snapshot(
        session_id="s-1",
        cursor="e.1",
        last="e1",
        messages=[asked, said],
        before=None,
        active=active,
        running=running,
        queue=["m_3"],
        approvals=[],
        workflows=[msgspec.to_builtins(events.WorkflowProgress(**_S, **_FLOW))],
    )


_ACCEPTED = frames.MessageAccepted(session_id="s-1", client_message_id="c", message_id="m_1", cursor="e.1")

DIALECTS: MappingProxyType[str, Callable[[], Dialect]] = MappingProxyType(
    {"agents": Agents, "project": Project, "user": User, "llm": Llm, "llm_filtered": lambda: Llm("m_1")}
)
SCENES: MappingProxyType[str, tuple[msgspec.Struct, ...]] = MappingProxyType(
    {
        "agents": (
            *_TURN_EVENTS,
            snapshot(),
            snapshot(active=None, running=None),
            _ACCEPTED,
            msgspec.structs.replace(_ACCEPTED, request_id="r-1"),
            *_PASSED,
        ),
        "project": (
            events.WorkflowProgress(**_LOG, project_id="p-1", **_FLOW),
            events.WorkflowProgress(**_LOG, project_id="p-1", **_FLOW, completed=3, total=7),
            events.AgentUpdate(**_LOG, project_id="p-1", agent_id="agent-1", status="ready"),
            *_PASSED,
        ),
        "user": (*_TOLD, *_PASSED),
        "llm": (*_TURN_EVENTS, *_UNKNOWN_ANSWER, snapshot(), snapshot(active=None, running=None), *_PASSED),
        "llm_filtered": (
            *_TURN_EVENTS,
            events.StreamStart(**{**_TURN, "reply_to": "m_2"}, message_id="a_3", agent="script"),
            events.StreamDelta(**_S, message_id="a_3", delta="not asked for", offset=0),
            snapshot(),
            snapshot(active=None, running=None),
        ),
    }
)


def spell(dialect: Dialect, given: msgspec.Struct) -> list[dict[str, Any]]:
    """What the dialect makes of an event or a frame, both as they are written."""
    plain = msgspec.json.decode(msgspec.json.encode(given))
    return dialect.frames(plain) if isinstance(given, events.Event) else dialect.own(plain)


def lines(name: str) -> bytes:
    """The golden file of a dialect, as it is spoken now."""
    dialect = DIALECTS[name]()
    spelled = [{"given": given, "frames": spell(dialect, given)} for given in SCENES[name]]
    return b"".join(msgspec.json.encode(line) + b"\n" for line in spelled)


def main() -> None:
    """Add the golden files that are missing."""
    for name in DIALECTS:
        path = GOLDEN / f"{name}.jsonl"
        if not path.exists():
            path.write_bytes(lines(name))
            print(path)


if __name__ == "__main__":
    main()
