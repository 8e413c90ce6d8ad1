"""User: `/api/v1/sse`: what the user and the tenant are told outside sessions.

What another system says is a `message`: an `external_event` as it is, a `workflow_progress` as the event
`workflow.progress` that it came in as. No `event:` fields: EventSource has an `error` of its own.
"""

from contracts.frames import AnyClientFrame
from contracts.subjects import Kind
from edge.dialects.dialect import PASSED_ON, Frame, pick, sign_of_life


class User:
    """Needs the user's and the tenant's topics. It remembers nothing."""

    name = "user"
    topics: tuple[Kind, ...] = ("user", "tenant")
    shared = True

    def frames(self, event: Frame) -> list[Frame]:
        """One frame, or none."""
        match event["type"]:
            case "external_event":
                return [_message(event, event["source"], event["event_type"], event["event_data"])]
            case "workflow_progress":
                data = pick(event, "workflow_id", "step", "progress", "completed", "total")
                return [_message(event, None, "workflow.progress", data)]
            case "agent_update" | "memory_update" | "error":
                return [event]
        return []

    def own(self, frame: Frame) -> list[Frame]:
        """What every dialect passes on."""
        return [frame] if frame["type"] in PASSED_ON else []

    def command(self, data: str | bytes) -> AnyClientFrame:
        """Only signs of life may be sent. Raises MillraceError."""
        return sign_of_life(data)

    def heartbeat(self, timestamp: str) -> Frame | None:
        """Every 15 seconds."""
        return {"type": "heartbeat", "timestamp": timestamp}


def _message(event: Frame, source: str | None, event_type: str, data: object) -> Frame:
    return {
        "type": "message",
        **pick(event, "id", "timestamp", "user_id", "tenant", "event_id"),
        "source": source,
        "event_type": event_type,
        "data": data,
    }
