"""Agents: `/ws/agents/{session_id}`: the answers of a session in chunks, and how far its workflows are.

A reset has no frame of its own here: the answer's `stream_start` comes again, and whatever was shown of that
`message_id` is void. A failed turn is one `error`, made from its `turn_end`: the log's own `error` says the same, and
not every failure has one.
"""

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from contracts import frames
from contracts.errors import Code, MillraceError
from contracts.frames import AnyClientFrame, RequestId, Token
from contracts.subjects import KINDS, Kind
from edge.dialects.dialect import PASSED_ON, Frame, pick, progress, sign_of_life, tag_of


class _Message(Struct, tag="message"):
    content: str
    metadata: dict[str, Any] | None = None
    client_message_id: Token | None = None
    request_id: RequestId | None = None
    session_id: Token | UnsetType = UNSET


_decoder = msgspec.json.Decoder(_Message)


class Agents:
    """Needs what a session's socket carries. It remembers nothing."""

    name = "agents"
    topics: tuple[Kind, ...] = KINDS
    shared = True

    def frames(self, event: Frame) -> list[Frame]:
        """One frame, or none."""
        frame = _spelled(event)
        return [frame] if frame else []

    def own(self, frame: Frame) -> list[Frame]:
        """A snapshot becomes the open answer so far and the last word of each workflow."""
        match frame["type"]:
            case "snapshot":
                return [*_open(frame), *map(progress, frame["workflows"])]
            case "message_accepted" if "request_id" in frame:
                return [frame]
            case passed if passed in PASSED_ON:
                return [frame]
        return []

    def command(self, data: str | bytes) -> AnyClientFrame:
        """`message {content, metadata?}`; also `ping` and `pong`. Raises MillraceError."""
        if tag_of(data) != "message":
            return sign_of_life(data)
        try:
            said = _decoder.decode(data)
        except msgspec.DecodeError as error:
            raise MillraceError(Code.BAD_REQUEST, str(error)) from None
        return frames.SendMessage(**msgspec.structs.asdict(said))

    def heartbeat(self, timestamp: str) -> Frame | None:
        """The WebSocket's own pings have to do."""
        return None


def _spelled(event: Frame) -> Frame | None:
    frame: Frame | None = None
    about = pick(event, "id", "timestamp", "session_id")
    match event["type"]:
        case "stream_start":
            frame = {"type": "stream_start", **about, **pick(event, "message_id", "reply_to", "agent")}
        case "stream_reset":
            frame = {"type": "stream_start", **about, **pick(event, "message_id", "attempt")}
        case "stream_delta" if event.get("kind", "text") == "text":
            frame = _chunk(about, event["message_id"], event["delta"])
        case "stream_end":
            end = {"total_content": event["content"], **pick(event, "reply_to", "finish_reason")}
            frame = {"type": "stream_end", **about, "message_id": event["message_id"], **end}
        case "workflow_progress":
            frame = progress(event)
        case "turn_end" if event["status"] == "failed":
            frame = {"type": "error", **about, "reply_to": event["reply_to"], **_failure(event)}
    return frame


def _chunk(about: Frame, message_id: str, content: str) -> Frame:
    return {"type": "stream_chunk", **about, "message_id": message_id, "content": content}


def _open(snapshot: Frame) -> list[Frame]:
    active = snapshot["active"]
    if active is None:
        return []
    about = pick(snapshot, "session_id")
    start = {"type": "stream_start", **about, **pick(active, "message_id", "reply_to", "agent", "attempt")}
    return [start, _chunk(about, active["message_id"], active["content"])] if active["content"] else [start]


def _failure(event: Frame) -> Frame:
    error = event.get("error") or {"code": Code.AGENT_FAILED, "error": "The turn failed.", "retryable": False}
    return {"code": error["code"], "error": error["error"], "message": error["error"], "retryable": error["retryable"]}
