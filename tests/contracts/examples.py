"""One example of every wire type, with every field that it may have.

`python -m tests.contracts.examples` adds the golden files that are missing. A golden file is never
edited: clients and stored logs rely on it.
"""

from pathlib import Path
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from contracts import events, frames

GOLDEN = Path(__file__).parent / "golden"

_AT = "2026-01-02T03:04:05.678901Z"
_LATER = "2026-01-02T03:09:05.678901Z"
_LOG: dict[str, Any] = {"id": "0123456789abcdef0123456789abcdef", "timestamp": _AT}
_S: dict[str, Any] = {**_LOG, "session_id": "s-1"}
_TURN: dict[str, Any] = {**_S, "reply_to": "m_1"}
_CALL: dict[str, Any] = {**_TURN, "tool_call_id": "c_1"}
_USAGE = {"input_tokens": 12, "output_tokens": 34}
_REFERENCE = events.Attachment(name="a.pdf", media_type="application/pdf", url="https://x.test/a")
_INLINE = events.Attachment(name="a.txt", media_type="text/plain", data="aGVsbG8=")

_EVENTS: tuple[events.Event, ...] = (
    events.Message(
        **_S,
        message_id="m_1",
        role="user",
        content="Grüße, 世界 🌍\n",
        user_id="ada",
        client_message_id="cm-1",
        policy="steer",
        attachments=[_REFERENCE, _INLINE],
        metadata={"source": "web", "n": 1, "deep": {"list": [None, True, 1.5]}},
    ),
    events.Cancel(**_S, message_id="m_1", user_id="ada"),
    events.ToolApproval(
        **_S,
        tool_call_id="c_1",
        approved=True,
        decided_by="ada",
        decided_at=_AT,
        reason="fine",
        arguments={"text": "edited"},
    ),
    events.SessionUpdated(
        **_S,
        project_id="p-1",
        user_id="ada",
        title=None,
        state="active",
        agent="script",
        created_at=_AT,
        metadata={"colour": "blue"},
    ),
    events.SessionListed(**_LOG, listed_id="s-1"),
    events.TurnStart(**_TURN, attempt=2),
    events.TurnRelease(**_TURN),
    events.AgentStatus(**_TURN, status="waiting_tool", details={"tool": "demo.add"}),
    events.StreamStart(**_TURN, message_id="a_1", agent="script"),
    events.StreamDelta(**_S, message_id="a_1", delta="Hel", offset=3, kind="thinking"),
    events.StreamReset(**_S, message_id="a_1", attempt=2, reason="a new attempt"),
    events.StreamEnd(
        **_TURN,
        message_id="a_1",
        content="Hello",
        finish_reason="stop",
        thinking="Hm.",
        usage=_USAGE,
    ),
    events.TurnEnd(
        **_TURN,
        status="failed",
        error=events.Failure("agent_failed", "the agent failed", False),
        usage=_USAGE,
    ),
    events.SteerApplied(**_TURN, message_id="m_2"),
    events.SteerMissed(**_TURN, message_id="m_2"),
    events.Step(**_TURN, name="search", place=3, result=[1, "two", None]),
    events.ToolCall(**_CALL, tool="demo.add", arguments={"a": 1, "b": 2}),
    events.ToolApprovalRequest(**_CALL, tool="demo.note", arguments={"text": "x"}, expires_at=_LATER),
    events.ToolStarted(**_CALL, attempt=1),
    events.ToolProgress(**_S, tool_call_id="c_1", progress=0.5, total=1.0, message="half"),
    events.ToolResult(**_CALL, status="failed", result=None, error="no", code="tool_denied"),
    events.WorkflowProgress(
        **_LOG, project_id="p-1", workflow_id="w", step="build", progress=0.25, completed=1, total=4
    ),
    events.ExternalEvent(
        **_LOG,
        user_id="ada",
        event_id="ce-1",
        source="billing",
        event_type="invoice.paid",
        event_data=None,
    ),
    events.AgentUpdate(**_LOG, tenant="acme", agent_id="agent-1", status="ready"),
    events.MemoryUpdate(**_LOG, user_id="ada", memory_id="mem-1", agent_id="agent-1", operation="created"),
    events.Error(
        **_S,
        code="model_unavailable",
        error="away",
        message="away",
        retryable=True,
        details={"retry_after": 1.5},
        trace_id="0af7651916cd43dd8448eb211c80319c",
    ),
)

_CLIENT: tuple[frames.ClientFrame, ...] = (
    frames.SendMessage(
        request_id="r-1",
        content="hello",
        client_message_id="cm-1",
        attachments=[_REFERENCE, _INLINE],
        metadata={"source": "web"},
        policy="interrupt",
    ),
    frames.SendCancel(request_id="r-1", message_id="m_1"),
    frames.SendApproval(request_id="r-1", tool_call_id="c_1", approved=True, reason="ok", arguments={"text": "y"}),
    frames.SendTyping(request_id="r-1", is_typing=False),
    frames.SendAuth(request_id="r-1", token="a.b.c"),
    frames.SendPing(request_id="r-1"),
    frames.SendPong(request_id="r-1"),
    frames.Subscribe(request_id="r-1", session_id="s-1", after="0123abcd.2s.0.1"),
    frames.Unsubscribe(request_id="r-1", session_id="s-1"),
)

_SERVER: tuple[frames.ServerFrame, ...] = (
    frames.Connected(
        connection_id="k-1",
        session_id="s-1",
        agent="script",
        heartbeat_interval=30.0,
        heartbeat_timeout=60.0,
        expires_at=_LATER,
    ),
    frames.Snapshot(
        session_id="s-1",
        cursor="e.a.b",
        last="0123456789abcdef0123456789abcdef",
        messages=[{"type": "message", "message_id": "m_1"}],
        before=None,
        active=frames.Active(message_id="a_1", reply_to="m_1", agent="script", content="He", thinking="", attempt=1),
        running="m_1",
        queue=["m_2"],
        approvals=[{"type": "tool_approval_request", "tool_call_id": "c_1"}],
        workflows=[{"type": "workflow_progress", "workflow_id": "w"}],
    ),
    frames.ReplayComplete(session_id="s-1", cursor="e.a.b", replayed=3),
    frames.ResumeGap(session_id="s-1", reason="expired"),
    frames.MessageAccepted(
        session_id="s-1",
        client_message_id="cm-1",
        message_id="m_1",
        cursor="e.a.b",
        request_id="r-1",
    ),
    frames.Ack(
        session_id="s-1",
        request_id="r-1",
        expires_at=_LATER,
        tool_call_id="c_1",
        message_id="m_1",
    ),
    frames.ErrorFrame(
        code="rate_limited",
        error="too many",
        message="too many",
        retryable=True,
        session_id="s-1",
        details={"retry_after": 1.5},
        trace_id="0af7651916cd43dd8448eb211c80319c",
        request_id="r-1",
    ),
    frames.Typing(session_id="s-1", user_id="ada", is_typing=True),
    frames.Subscribed(session_id="s-1", agent="script", request_id="r-1"),
    frames.Unsubscribed(
        session_id="s-1", code="rate_limited", retryable=True, details={"retry_after": 1.5}, request_id="r-1"
    ),
    frames.Reconnect(reconnect_after=1.5, reason="restarting"),
    frames.Ping(timestamp=_AT),
    frames.Pong(timestamp=_AT),
)


def tag(struct: Struct | type[Struct]) -> str:
    """The wire type of a struct."""
    return str(struct.__struct_config__.tag)


EXAMPLES: MappingProxyType[str, Struct] = MappingProxyType(
    {f"event.{tag(example)}": example for example in _EVENTS}
    | {f"client.{tag(example)}": example for example in _CLIENT}
    | {f"server.{tag(example)}": example for example in _SERVER}
)
"""By the name of the golden file: where the type travels, and its tag."""


def main() -> None:
    """Add the golden files that are missing."""
    for name, example in EXAMPLES.items():
        path = GOLDEN / f"{name}.json"
        if not path.exists():
            path.write_bytes(frames.encoder.encode(example) + b"\n")
            print(path)


if __name__ == "__main__":
    main()
