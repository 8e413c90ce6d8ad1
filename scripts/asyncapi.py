"""The AsyncAPI 3 document: the sockets and the NATS side, generated from `contracts`.

Channels of the log, who sends to them and who receives come from the permissions that the broker holds the services to.
"""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from broker.dead import Letter
from contracts import events, streams, subjects
from contracts.events import EVENT_TYPES, INTERNAL, LANE_OF, Event
from contracts.frames import CLIENT_FRAMES, SERVER_FRAMES

Json = dict[str, Any]

ROOT = Path(__file__).parents[1]
SOCKETS = {
    "session": ("/api/v1/sessions/{session_id}/ws", "edge", "One session, its user's, project's and tenant's events."),
    "multiplex": ("/api/v1/ws", "edge", "Many sessions over one socket."),
    "session_events": ("/api/v1/sessions/{session_id}/events", "edge_http", "One session as server-sent events."),
}
ONLY_MULTIPLEX = frozenset({"subscribe", "unsubscribe", "subscribed", "unsubscribed"})
ONLY_SOCKET = frozenset({"connected", "message_accepted", "ack", "ping", "pong"}) | ONLY_MULTIPLEX
ROUTED: tuple[type[Event], ...] = (
    events.ExternalEvent, events.WorkflowProgress, events.AgentUpdate, events.MemoryUpdate,
)  # fmt: skip
PARAMETERS = {
    "tenant": "The tenant.",
    "session_id": "The session.",
    "kind": f"What the topic is of: {', '.join(subjects.KINDS)}.",
    "group": "The agents' group, where it is not `default`.",
    "topic_id": "The session, user or project; `all` for the tenant.",
    "user_id": "The user.",
    "source": "The publishing system; one token.",
    "event_type": "The event's type; its dotted parts are tokens.",
}
_QUERY = {
    "token": "The token, where no header can be set.",
    "ticket": "A ticket from `POST /api/v1/tickets`; used once.",
    "after": "The cursor to resume from; 0 for all that the log holds.",
    "takeover": "`true`: take the oldest connection's place when the session is full; `all`: every other's.",
}


def document() -> Json:
    """The whole document, as it is written to docs/asyncapi.json."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    channels = _sockets() | _subjects()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Millrace",
            "version": project["version"],
            "description": f"{project['description']}. Generated from `contracts`; see docs/wire.md.",
            "license": {"name": project["license"]},
        },
        "defaultContentType": "application/json",
        "servers": {
            "edge": {"host": "localhost:8000", "protocol": "ws", "description": "An edge; wss behind TLS."},
            "edge_http": {"host": "localhost:8000", "protocol": "http", "description": "The same edge."},
            "nats": {"host": "localhost:4222", "protocol": "nats", "description": "The broker."},
        },
        "channels": channels,
        "operations": _socket_operations(channels) | _service_operations(channels),
        "components": {"schemas": _schemas(), "messages": _messages()},
    }


def name(where: str, kind: type[Struct]) -> str:
    """The key of a message: where it travels (`client`, `server`, `event`, `told`) and its type."""
    return f"{where}_{kind.__struct_config__.tag}"


def shown() -> list[type[Event]]:
    """The events that clients receive."""
    return [kind for kind in EVENT_TYPES if kind.__struct_config__.tag not in INTERNAL]


def _schemas() -> Json:
    _, components = msgspec.json.schema_components(
        [*EVENT_TYPES, *CLIENT_FRAMES, *SERVER_FRAMES, Letter], ref_template="#/components/schemas/{name}"
    )
    cursor = {"type": "object", "required": ["cursor"], "properties": {"cursor": {"type": "string"}}}
    token = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
    text = {"type": "string", "minLength": 1}
    cloud_event = {
        "type": "object",
        "description": "CloudEvents 1.0, structured; in binary mode the attributes are `ce-` headers.",
        "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": {"const": "1.0"},
            "id": text,
            "source": text,
            "type": text,
            "time": {"type": "string", "format": "date-time"},
            "datacontenttype": {"type": "string"},
            "sessionid": token,
            "userid": token,
            "projectid": token,
            "data": {},
        },
    }
    return {**components, "WithCursor": cursor, "CloudEvent": cloud_event}


def _messages() -> Json:
    found: Json = {}
    for where, kinds in (("client", CLIENT_FRAMES), ("server", SERVER_FRAMES), ("event", EVENT_TYPES)):
        for kind in kinds:
            found[name(where, kind)] = _message(kind, _schema(kind.__name__))
    for told in shown():
        payload = {"allOf": [_schema(told.__name__), _schema("WithCursor")]}
        found[name("told", told)] = _message(told, payload)
    found["cloud_event"] = {"title": "CloudEvent", "payload": _schema("CloudEvent")}
    found["dead_letter"] = {"title": "Dead letter", "payload": _schema(Letter.__name__)}
    return found


def _message(kind: type[Struct], payload: Json) -> Json:
    summary = (kind.__doc__ or "").partition("\n")[0]
    return {"name": kind.__struct_config__.tag, "title": kind.__name__, "summary": summary, "payload": payload}


def _schema(of: str) -> Json:
    return {"$ref": f"#/components/schemas/{of}"}


def _channel(address: str, server: str, messages: Iterable[str], description: str) -> Json:
    parameters = {named: {"description": told} for named, told in PARAMETERS.items() if f"{{{named}}}" in address}
    return {
        "address": address,
        "description": description,
        "servers": [{"$ref": f"#/servers/{server}"}],
        **({"parameters": parameters} if parameters else {}),
        "messages": {key: {"$ref": f"#/components/messages/{key}"} for key in messages},
    }


def _sockets() -> Json:
    found: Json = {}
    query = {key: {"type": "string", "description": told} for key, told in _QUERY.items()}
    for key, (address, server, description) in SOCKETS.items():
        client = [] if server == "edge_http" else [name("client", kind) for kind in CLIENT_FRAMES]
        server_frames = [name("server", kind) for kind in SERVER_FRAMES]
        excluded = {"session": ONLY_MULTIPLEX, "session_events": ONLY_SOCKET}.get(key, frozenset())
        told = [name("told", kind) for kind in shown()]
        messages = [each for each in (*client, *server_frames) if each.partition("_")[2] not in excluded]
        channel = _channel(address, server, [*messages, *told], description)
        if server == "edge":
            schema = {"type": "object", "properties": query}
            channel["bindings"] = {"ws": {"method": "GET", "query": schema, "bindingVersion": "0.1.0"}}
        found[key] = channel
    return found


def _subjects() -> Json:
    """Every subject that a service may write a fact, a delta or a dead letter to, and what comes in."""
    found: Json = {}
    for service in streams.SERVICES:
        for subject in streams.permissions(service, ()).publish:
            if subject.startswith("log."):
                found[_key(subject)] = _channel(_address(subject), "nats", _written(service, subject), "Facts; stay.")
    found[_key(subjects.ANY_DELTA)]["description"] = "Streamed text; fades."
    for kind in ("*", "session"):
        live = subjects.live_of_all(kind)
        everything = [name("event", event) for event in EVENT_TYPES]
        found[_key(live)] = _channel(_address(live), "nats", everything, "The log, republished as it is stored.")
    ingest = "ingest.{tenant}.{source}.{event_type}"
    found["ingest"] = _channel(ingest, "nats", ["cloud_event"], "What a tenant's systems publish.")
    found["dead"] = _channel("dead.{tenant}", "nats", ["dead_letter"], "What could not be accepted.")
    return found


def _address(subject: str) -> str:
    """The subject with its wildcards named."""
    parts = subject.split(".")
    names = {"session": "session_id", "user": "user_id"}
    if parts[2] == "*":
        parts[2] = "{kind}"
    parts[1], parts[3] = "{tenant}", f"{{{names.get(parts[2], 'topic_id')}}}"
    if subject == subjects.ANY_GROUPED:
        parts[-1] = "{group}"
    return ".".join(parts)


def _key(subject: str) -> str:
    if subject == subjects.ANY_GROUPED:
        return f"{_key(subjects.lane_of_all('session', 'message'))}_of_group"
    return "_".join(part for part in subject.replace("*", "any").replace(">", "all").split(".") if part != "any")


def _written(service: str, subject: str) -> list[str]:
    """The messages of a lane."""
    lane = "message" if subject == subjects.ANY_GROUPED else subject.rpartition(".")[2]
    kinds: list[type[Event]] = [kind for kind, its in LANE_OF.items() if its == lane]
    if lane == "delta":
        kinds = [events.StreamDelta]
    elif lane == "event":
        kinds = [*ROUTED]
    elif service == "agent_runner" and lane == "agent":
        kinds.append(events.WorkflowProgress)
    elif lane == "client":
        of_user = ".user." in subject
        kinds = [kind for kind in kinds if (kind is events.SessionListed) == of_user]
    return [name("event", kind) for kind in kinds]


def _operation(action: str, channel: str, messages: Iterable[str], summary: str) -> Json:
    return {
        "action": action,
        "summary": summary,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{key}"} for key in messages],
    }


def _socket_operations(channels: Json) -> Json:
    found: Json = {}
    for key in SOCKETS:
        messages = channels[key]["messages"]
        sent = [each for each in messages if not each.startswith("client_")]
        taken = [each for each in messages if each.startswith("client_")]
        found[f"edge_sends_{key}"] = _operation("send", key, sent, "What an edge tells a client.")
        if taken:
            found[f"edge_receives_{key}"] = _operation("receive", key, taken, "What a client asks for.")
    return found


def _service_operations(channels: Json) -> Json:
    """Who sends and receives what, from the permissions; `tenant` is a tenant's external system."""
    found: Json = {}

    def add(service: str, action: str, channel: str) -> None:
        told = f"{service} {'writes' if action == 'send' else 'reads'} {channels[channel]['address']}"
        found[f"{service}_{action}s_{channel}"] = _operation(action, channel, channels[channel]["messages"], told)

    for service in streams.SERVICES:
        permissions = streams.permissions(service, ())
        for subject in permissions.publish:
            if subject.startswith("log."):
                add(service, "send", _key(subject))
            elif subject == subjects.DEAD_ALL:
                add(service, "send", "dead")
        for subject in permissions.subscribe:
            if subject.startswith("live."):
                wide = subjects.live_of_all("*") if subject == subjects.LIVE_ALL else subject
                add(service, "receive", _key(wide))
    for consumer in streams.consumers(()):
        add(consumer.durable, "receive", _key(consumer.filter_subject))
    add("agent_runner", "receive", _key(subjects.ANY_GROUPED))
    add("event_ingest", "receive", "ingest")
    add("operator", "receive", "dead")
    add("tenant", "send", "ingest")
    return found
