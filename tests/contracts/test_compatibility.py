"""The wire does not change: every golden file is read and written as it always was."""

import json
from types import MappingProxyType

import msgspec
import pytest
from msgspec import Struct

from contracts import events, frames
from tests.contracts.examples import EXAMPLES, GOLDEN, tag

DECODERS = MappingProxyType(
    {
        "event": msgspec.json.Decoder(events.AnyEvent),
        "client": frames.client_decoder,
        "server": msgspec.json.Decoder(frames.AnyServerFrame),
    }
)
TYPES = MappingProxyType(
    {f"event.{tag(event_type)}": event_type for event_type in events.EVENT_TYPES}
    | {f"client.{tag(frame)}": frame for frame in frames.CLIENT_FRAMES}
    | {f"server.{tag(frame)}": frame for frame in frames.SERVER_FRAMES}
)
ALWAYS = MappingProxyType(
    {
        "event.message": "message_id role content user_id client_message_id",
        "event.turn_start": "reply_to attempt",
        "event.stream_start": "message_id reply_to agent",
        "event.stream_delta": "message_id delta offset",
        "event.stream_reset": "message_id attempt reason",
        "event.stream_end": "message_id content finish_reason",
        "event.turn_end": "reply_to status",
        "event.tool_call": "tool_call_id reply_to tool arguments",
        "event.tool_approval_request": "tool_call_id reply_to tool arguments expires_at",
        "event.tool_approval": "tool_call_id approved decided_by decided_at",
        "event.tool_progress": "tool_call_id progress",
        "event.tool_result": "tool_call_id reply_to status result error",
        "event.agent_status": "status details",
        "event.workflow_progress": "workflow_id step progress",
        "event.external_event": "event_id source event_type event_data",
        "event.agent_update": "agent_id status",
        "event.memory_update": "memory_id agent_id operation",
        "event.steer_applied": "message_id reply_to",
        "event.steer_missed": "message_id reply_to",
        "event.session_updated": "title state",
        "event.error": "code error message retryable",
        "server.connected": "connection_id session_id agent heartbeat_interval heartbeat_timeout expires_at",
        "server.snapshot": "cursor last messages before active queue approvals workflows",
        "server.replay_complete": "cursor replayed",
        "server.resume_gap": "reason",
        "server.message_accepted": "client_message_id message_id cursor",
        "server.ack": "",
        "server.typing": "user_id is_typing",
        "server.error": "code error message retryable",
        "server.subscribed": "session_id",
        "server.unsubscribed": "session_id code",
        "server.reconnect": "reconnect_after reason",
        "server.ping": "timestamp",
        "server.pong": "timestamp",
    }
)
"""The fields that WIRE.md section 1 lists without a question mark, for what clients receive."""


def golden(name: str) -> bytes:
    """The bytes of a golden file."""
    return (GOLDEN / f"{name}.json").read_bytes().rstrip(b"\n")


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_golden_file_is_read_as_the_same_struct(name: str) -> None:
    """Standard: what is stored, or what an older client sends, stays readable."""
    assert DECODERS[name.split(".")[0]].decode(golden(name)) == EXAMPLES[name]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_same_struct_is_written_as_the_same_bytes(name: str) -> None:
    """Standard: what clients receive does not change."""
    assert frames.encoder.encode(EXAMPLES[name]) == golden(name)


def test_every_type_has_a_golden_file_and_no_file_is_without_a_type() -> None:
    """`python -m tests.contracts.examples` adds a missing one once the type has an example."""
    assert EXAMPLES.keys() == TYPES.keys()
    assert {path.name.removesuffix(".json") for path in GOLDEN.iterdir()} == TYPES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_type_comes_first(name: str) -> None:
    """WIRE: `type` first."""
    assert next(iter(json.loads(golden(name)))) == "type"
    assert events.type_of(golden(name)) == name.split(".")[1]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_shows_every_field_of_its_type(name: str) -> None:
    """But what names the topic: that is one field of several."""
    shown = json.loads(golden(name)).keys() | {"session_id", "project_id", "tenant", "user_id"}
    assert shown >= {field.encode_name for field in msgspec.structs.fields(TYPES[name])}


@pytest.mark.parametrize("name", EXAMPLES)
def test_unknown_fields_are_ignored(name: str) -> None:
    """Standard: a newer writer may add fields."""
    grown = json.loads(golden(name)) | {"a_new_field": {"of": [1]}}
    assert DECODERS[name.split(".")[0]].decode(json.dumps(grown)) == EXAMPLES[name]


@pytest.mark.parametrize(
    ("name", "within"),
    [
        ("event.message", b'{"name":'),
        ("client.message", b'{"name":'),
        ("event.turn_end", b'{"code":'),
        ("server.snapshot", b'{"message_id":"a_1"'),
    ],
)
def test_unknown_fields_are_ignored_also_in_what_a_type_contains(name: str, within: bytes) -> None:
    """Standard: a message with a newer attachment must not stop whoever reads the log."""
    grown = golden(name).replace(within, b'{"a_new_field":1,' + within[1:])
    assert grown != golden(name)
    assert DECODERS[name.split(".")[0]].decode(grown) == EXAMPLES[name]


@pytest.mark.parametrize("name", ALWAYS)
def test_what_the_wire_lists_is_always_there(name: str) -> None:
    """WIRE: only a field with a question mark may be missing; a default would be left out."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(TYPES[name])}
    missing = [field for field in ALWAYS[name].split() if not fields[field].required]
    assert missing == []


def test_whatever_clients_receive_is_listed() -> None:
    """What is not listed is internal."""
    sent = {name for name in TYPES if name.startswith(("event.", "server."))}
    assert sent - ALWAYS.keys() == {f"event.{name}" for name in events.INTERNAL}


def test_the_error_of_a_turn_says_whether_it_may_be_tried_again() -> None:
    """WIRE: `error`? `{code, error, retryable}`."""
    failure = json.loads(frames.encoder.encode(events.Failure("agent_failed", "no")))
    assert failure == {"code": "agent_failed", "error": "no", "retryable": False}


def test_an_event_of_an_unknown_type_is_none(caplog: pytest.LogCaptureFixture) -> None:
    """Standard: a newer writer may add types."""
    assert events.decode(b'{"type":"dream","id":"e","timestamp":"t"}') is None
    assert events.decode(b'{"type":"\xff","id":"e"}') is None
    assert not caplog.messages


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{}", id="no type"),
        pytest.param(b'{"id":"e","type":"dream"}', id="the type is not first"),
        pytest.param(b'{"type":"turn_start","id":"e"}', id="fields are missing"),
        pytest.param(b'{"type":"turn_start","id', id="cut off"),
        pytest.param(b'{"type":"turn_start","id":"\xff"}', id="a field is no text"),
    ],
)
def test_what_is_no_event_of_its_type_is_passed_over_and_logged(
    stored: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Our choice: that is damage, not a newer writer; and yet not the end of its session."""
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        events.check(stored)
    assert events.decode(stored) is None
    assert caplog.messages == ["not an event"]


@pytest.mark.parametrize("name", [name for name in TYPES if name.startswith("event.")])
def test_every_event_has_a_lane_of_one_writer(name: str) -> None:
    """Our choice: but deltas, and what event_ingest routes."""
    routed = {"workflow_progress", "external_event", "agent_update", "memory_update"}
    has_lane = TYPES[name] in events.LANE_OF
    assert has_lane != (name.split(".")[1] in routed | {"stream_delta"})


def test_structs_of_the_wire_are_frozen() -> None:
    """What was read once is the same for everybody who has it."""
    thawed: list[type[Struct]] = [t for t in TYPES.values() if not t.__struct_config__.frozen]
    assert thawed == []
