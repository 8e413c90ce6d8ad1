"""Events: the facts of the log, and the deltas that fade. The stored bytes are what clients receive.

Writers never reuse a tag; readers ignore unknown fields and unknown tags. `type` is always first in
the stored JSON, so a reader can tell the type without decoding the rest.
"""

import logging
import os
import time
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct

from contracts.subjects import Lane

logger = logging.getLogger(__name__)

Policy = Literal["enqueue", "reject", "interrupt", "steer"]
FinishReason = Literal["stop", "tool_call", "length", "cancelled", "error"]
TurnStatus = Literal["completed", "failed", "cancelled", "steered"]
ToolStatus = Literal["completed", "failed", "rejected", "expired", "cancelled", "unknown"]
SessionState = Literal["active", "suspended", "closed", "deleted"]


class Event(Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """Base of every event: `id` is unique and the same for everybody; the topic is named by one field."""

    id: str
    timestamp: str
    session_id: str | None = None
    project_id: str | None = None
    tenant: str | None = None


class Attachment(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A reference (`url`) or up to 32 KiB inline (`data`, base64). Millrace stores no files."""

    name: str
    media_type: str
    url: str | None = None
    data: str | None = None


class Message(Event, frozen=True, kw_only=True, tag="message"):
    """Somebody said something. Accepted once it is stored; answered by exactly one `turn_end`."""

    message_id: str
    role: Literal["user"]
    content: str
    user_id: str
    client_message_id: str
    policy: Policy = "enqueue"
    attachments: list[Attachment] | None = None
    metadata: dict[str, Any] | None = None


class Cancel(Event, frozen=True, kw_only=True, tag="cancel"):
    """Somebody asked for work to stop: of that message, or of the first one without `turn_end`."""

    message_id: str | None = None
    user_id: str


class ToolApproval(Event, frozen=True, kw_only=True, tag="tool_approval"):
    """One person's decision on one tool call."""

    tool_call_id: str
    approved: bool
    decided_by: str
    decided_at: str
    reason: str | None = None
    arguments: dict[str, Any] | None = None


class SessionUpdated(Event, frozen=True, kw_only=True, tag="session_updated"):
    """The session was created, renamed, closed or deleted. The first fact of every session."""

    user_id: str
    title: str | None
    state: SessionState
    agent: str | None = None
    created_at: str | None = None
    metadata: dict[str, Any] | None = None


class SessionListed(Event, frozen=True, kw_only=True, tag="session_listed"):
    """An entry of a user's index of sessions, in the user's topic. Internal."""

    listed_id: str


class TurnStart(Event, frozen=True, kw_only=True, tag="turn_start"):
    """A runner claimed the message. `attempt` counts from 1."""

    reply_to: str
    attempt: int


class TurnRelease(Event, frozen=True, kw_only=True, tag="turn_release"):
    """A runner that was told to stop gave its claim back: no attempt was spent. Internal."""

    reply_to: str


class AgentStatus(Event, frozen=True, kw_only=True, tag="agent_status"):
    """What the agent is at, for display."""

    status: Literal["thinking", "streaming", "waiting_tool", "waiting_approval", "idle", "cancelled", "failed"]
    reply_to: str | None = None
    details: dict[str, Any] | None


class StreamStart(Event, frozen=True, kw_only=True, tag="stream_start"):
    """An answer begins."""

    message_id: str
    reply_to: str
    agent: str


class StreamDelta(Event, frozen=True, kw_only=True, tag="stream_delta"):
    """The next piece of an answer. `offset` counts the characters of that kind before it."""

    message_id: str
    delta: str
    offset: int
    kind: Literal["text", "thinking"] = "text"


class StreamReset(Event, frozen=True, kw_only=True, tag="stream_reset"):
    """What was streamed of this answer is void; it streams again without a new `stream_start`."""

    message_id: str
    attempt: int
    reason: str


class StreamEnd(Event, frozen=True, kw_only=True, tag="stream_end"):
    """The whole answer: it replaces what was streamed."""

    message_id: str
    reply_to: str
    content: str
    finish_reason: FinishReason
    thinking: str | None = None
    usage: dict[str, int] | None = None


class Failure(Struct, frozen=True):
    """Why a turn failed: a code of the catalogue and a sentence."""

    code: str
    error: str
    retryable: bool = False


class TurnEnd(Event, frozen=True, kw_only=True, tag="turn_end"):
    """The only end of a turn; exactly one for every accepted message."""

    reply_to: str
    status: TurnStatus
    error: Failure | None = None
    usage: dict[str, int] | None = None


class SteerApplied(Event, frozen=True, kw_only=True, tag="steer_applied"):
    """The running turn took the steering message in."""

    message_id: str
    reply_to: str


class SteerMissed(Event, frozen=True, kw_only=True, tag="steer_missed"):
    """The steering message came too late for the running turn: it is answered as its own."""

    message_id: str
    reply_to: str


class Step(Event, frozen=True, kw_only=True, tag="step"):
    """The recorded outcome of a step, so that no later attempt does it again. Internal.

    `place` counts what the turn's agent did before it.
    """

    reply_to: str
    name: str
    place: int = 0
    result: Any = None


class ToolCall(Event, frozen=True, kw_only=True, tag="tool_call"):
    """The agent wants a tool run. The id is made from message and step, so an attempt finds it again."""

    tool_call_id: str
    reply_to: str
    tool: str
    arguments: dict[str, Any]


class ToolApprovalRequest(Event, frozen=True, kw_only=True, tag="tool_approval_request"):
    """A person is asked. `expires_at` is the broker's time."""

    tool_call_id: str
    reply_to: str
    tool: str
    arguments: dict[str, Any]
    expires_at: str


class ToolStarted(Event, frozen=True, kw_only=True, tag="tool_started"):
    """A tool runner claimed the call and is about to run it. Internal."""

    tool_call_id: str
    reply_to: str
    attempt: int


class ToolProgress(Event, frozen=True, kw_only=True, tag="tool_progress"):
    """How far a running tool is."""

    tool_call_id: str
    progress: float
    total: float | None = None
    message: str | None = None


class ToolResult(Event, frozen=True, kw_only=True, tag="tool_result"):
    """The only end of a tool call."""

    tool_call_id: str
    reply_to: str
    status: ToolStatus
    result: Any
    error: str | None
    code: str | None = None


class WorkflowProgress(Event, frozen=True, kw_only=True, tag="workflow_progress"):
    """How far a workflow is: `progress` from 0 to 1, never falling."""

    workflow_id: str
    step: str
    progress: float
    completed: int | None = None
    total: int | None = None
    user_id: str | None = None


class ExternalEvent(Event, frozen=True, kw_only=True, tag="external_event"):
    """A CloudEvent from another system."""

    event_id: str
    source: str
    event_type: str
    event_data: Any
    user_id: str | None = None


class AgentUpdate(Event, frozen=True, kw_only=True, tag="agent_update"):
    """Another system's word on an agent."""

    agent_id: str
    status: str
    user_id: str | None = None


class MemoryUpdate(Event, frozen=True, kw_only=True, tag="memory_update"):
    """Another system's word on an agent's memory."""

    memory_id: str
    agent_id: str
    operation: str
    user_id: str | None = None


class Error(Event, frozen=True, kw_only=True, tag="error"):
    """Something went wrong, for display; `message` repeats `error`."""

    code: str
    error: str
    message: str
    retryable: bool
    details: dict[str, Any] | None = None
    trace_id: str | None = None


AnyEvent = (
    Message | Cancel | ToolApproval | SessionUpdated | SessionListed
    | TurnStart | TurnRelease | AgentStatus | StreamStart | StreamDelta | StreamReset | StreamEnd | TurnEnd
    | SteerApplied | SteerMissed | Step | ToolCall
    | ToolApprovalRequest | ToolStarted | ToolProgress | ToolResult
    | WorkflowProgress | ExternalEvent | AgentUpdate | MemoryUpdate | Error
)  # fmt: skip
EVENT_TYPES: tuple[type[Event], ...] = get_args(AnyEvent)
TAGS = frozenset(str(event_type.__struct_config__.tag) for event_type in EVENT_TYPES)

INTERNAL = frozenset({"cancel", "session_listed", "turn_release", "step", "tool_started"})
"""Types that the services tell one another; no client receives them."""

_LANES: dict[Lane, tuple[type[Event], ...]] = {
    "message": (Message,),
    "client": (Cancel, ToolApproval, SessionUpdated, SessionListed),
    "agent": (TurnStart, TurnRelease, AgentStatus, StreamStart, StreamReset, StreamEnd, TurnEnd, SteerApplied,
              SteerMissed, Step, Error),
    "call": (ToolCall,),
    "tool": (ToolApprovalRequest, ToolStarted, ToolProgress, ToolResult),
}  # fmt: skip
LANE_OF: MappingProxyType[type[Event], Lane] = MappingProxyType(
    {event_type: lane for lane, event_types in _LANES.items() for event_type in event_types}
)
"""Which lane a service writes each type to. What event_ingest routes is in the lane `event`; a runner's
`workflow_progress` is in `agent`; deltas have a subject of their own."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(AnyEvent)
_PREFIX = b'{"type":"'


def encode(event: Event) -> bytes:
    """The bytes that are stored, and that clients receive."""
    return _encoder.encode(event)


def type_of(stored: bytes) -> str:
    """The type of a stored event, without decoding it."""
    return stored[len(_PREFIX) : stored.index(b'"', len(_PREFIX))].decode(errors="replace")


def decode(stored: bytes) -> AnyEvent | None:
    """The event; None where a newer writer used a type that is unknown here, and for what is none, which is logged.

    Whoever reads the log passes both over: one fact that nobody can read must not be the end of its session.
    """
    try:
        return check(stored)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        if not _is_newer(stored):
            logger.error("not an event", extra={"reason": str(error)})
        return None


def check(stored: bytes) -> AnyEvent:
    """The event. Raises msgspec.DecodeError, UnicodeDecodeError or RecursionError for what is none.

    Fields are not checked where an event is made: ask before one is stored that somebody else gave values for.
    """
    event: AnyEvent = _decoder.decode(stored)
    return event


def _is_newer(stored: bytes) -> bool:
    return stored.startswith(_PREFIX) and b'"' in stored[len(_PREFIX) :] and type_of(stored) not in TAGS


def new_id() -> str:
    """A random id: 128 bits."""
    return os.urandom(16).hex()


def timestamp(at: float | None = None) -> str:
    """RFC 3339 in UTC with microseconds; `at` is Unix time in seconds, now by default."""
    moment = datetime.fromtimestamp(time.time() if at is None else at, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def unix_time(text: str) -> float:
    """The Unix time of an RFC 3339 timestamp. Raises ValueError."""
    return datetime.fromisoformat(text).timestamp()
