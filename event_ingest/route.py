"""Routes: which topic a CloudEvent is for, and the event that it becomes there. Pure.

The attributes decide: `sessionid`, `userid` or `projectid`, and without any of them the tenant. The
tenant is the publisher's; nothing in a message can name another. The subject that an event was
published to is for the publisher's own order.
"""

import hashlib
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from contracts.cloudevents import CloudEvent, InvalidEvent
from contracts.errors import Code
from contracts.events import AgentUpdate, ExternalEvent, MemoryUpdate, WorkflowProgress
from contracts.subjects import Kind, Topic, is_token

Routed = ExternalEvent | WorkflowProgress | AgentUpdate | MemoryUpdate

_TARGETS: MappingProxyType[str, Kind] = MappingProxyType(
    {"sessionid": "session", "userid": "user", "projectid": "project"}
)
_Name = Annotated[str, Meta(min_length=1, max_length=256)]
_Text = Annotated[str, Meta(max_length=1024)]
_Count = Annotated[int, Meta(ge=0)]


class _Progress(Struct):
    workflow_id: _Name
    step: _Text
    progress: Annotated[float, Meta(ge=0, le=1)]
    completed: _Count | None = None
    total: _Count | None = None


class _Agent(Struct):
    agent_id: _Name
    status: Annotated[_Text, Meta(min_length=1)]


class _Memory(Struct):
    memory_id: _Name
    agent_id: _Name
    operation: _Name


_TYPED: MappingProxyType[str, tuple[type[Struct], type[Routed]]] = MappingProxyType(
    {
        "workflow.progress": (_Progress, WorkflowProgress),
        "agent.update": (_Agent, AgentUpdate),
        "memory.update": (_Memory, MemoryUpdate),
    }
)
"""Types whose data are the fields of a frame; what else the data holds is ignored."""


def identity(tenant: str, event: CloudEvent) -> str:
    """The id of what an event becomes: the same for a tenant's (source, id), only for it."""
    place = f"event\0{tenant}\0{event.source}\0{event.id}"
    return hashlib.sha256(place.encode()).hexdigest()[:32]


def topic_of(tenant: str, event: CloudEvent) -> Topic:
    """The one topic that an event is for. Raises InvalidEvent."""
    named = {name: event.attributes[name] for name in _TARGETS if name in event.attributes}
    if len(named) > 1:
        raise InvalidEvent(Code.INVALID_EVENT, f"{' and '.join(named)} name more than one target")
    for name, value in named.items():
        if not is_token(value):  # also null and empty: what was meant for one must not reach all
            raise InvalidEvent(Code.INVALID_EVENT, f"{name} is not a name [A-Za-z0-9_-]{{1,64}}")
        return Topic(tenant, _TARGETS[name], value)
    return Topic.everybody(tenant)


def routed(topic: Topic, event: CloudEvent, timestamp: str) -> Routed:
    """What an event becomes in its topic. Raises InvalidEvent where its data are not its type's."""
    common: dict[str, Any] = {"id": identity(topic.tenant, event), "timestamp": timestamp}
    common |= _address(topic)
    if event.type not in _TYPED:
        return ExternalEvent(
            event_id=event.id,
            source=event.source,
            event_type=event.type,
            event_data=event.data,
            **common,
        )
    fields, becomes = _TYPED[event.type]
    try:
        data = msgspec.convert(event.data, fields)
    except msgspec.ValidationError as error:
        text = f"the data are not those of {event.type}: {error}"
        raise InvalidEvent(Code.INVALID_EVENT, text) from None
    return becomes(**common, **msgspec.structs.asdict(data))


def _address(topic: Topic) -> dict[str, str]:
    """The one field that names the topic."""
    if topic.kind == "tenant":
        return {"tenant": topic.tenant}
    return {f"{topic.kind}_id": topic.id}
