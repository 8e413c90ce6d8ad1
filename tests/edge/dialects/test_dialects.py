"""The other spellings of the log (WIRE 4): what each dialect makes of an event, always the same."""

import json
from typing import Any

import msgspec
import pytest

from contracts import events, frames
from contracts.errors import MillraceError
from edge.dialects import written
from edge.dialects.agents import Agents
from edge.dialects.dialect import Dialect, Spelled
from edge.dialects.llm import REMEMBERED, Llm
from tests.contracts.examples import EXAMPLES
from tests.edge.dialects.scenes import DIALECTS, GOLDEN, SCENES, lines, snapshot, spell

S: dict[str, Any] = {"id": "e1", "timestamp": "2026-01-02T03:04:05.678901Z", "session_id": "s-1"}
START = events.StreamStart(**S, message_id="a_1", reply_to="m_1", agent="script")


def delta(text: str, offset: int = 0, answer: str = "a_1") -> events.StreamDelta:
    """A piece of an answer."""
    return events.StreamDelta(**S, message_id=answer, delta=text, offset=offset)


@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect_spells_every_event_as_it_always_did(name: str) -> None:
    """WIRE 4: what clients rely on is only added to."""
    assert lines(name) == (GOLDEN / f"{name}.jsonl").read_bytes()


def test_every_dialect_has_a_golden_file_and_no_file_is_without_a_dialect() -> None:
    """`python -m tests.edge.dialects.scenes` adds a missing one."""
    assert {path.stem for path in GOLDEN.iterdir()} == DIALECTS.keys() == SCENES.keys()


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("example", [name for name in EXAMPLES if not name.startswith("client.")])
def test_a_dialect_takes_every_type_there_is(name: str, example: str) -> None:
    """Standard: one that it has no word for is left out, and fails nothing."""
    given = EXAMPLES[example]
    if isinstance(given, frames.Snapshot):
        given = snapshot()
    for frame in spell(DIALECTS[name](), given):
        assert next(iter(frame)) == "type"
        assert frame["type"] not in events.INTERNAL


@pytest.mark.parametrize("name", DIALECTS)
def test_an_event_that_comes_again_is_spelled_the_same(name: str) -> None:
    """Our choice: a connection that was too slow reads the log again from what was written."""
    dialect = DIALECTS[name]()
    given = [event for event in SCENES[name] if isinstance(event, events.Event)]
    once = [spell(dialect, event) for event in given]
    assert [spell(dialect, event) for event in given] == once


@pytest.mark.parametrize("name", DIALECTS)
def test_what_the_agent_thinks_is_no_text(name: str) -> None:
    """WIRE 1: `kind`."""
    dialect = DIALECTS[name]()
    spell(dialect, START)
    thought = events.StreamDelta(**S, message_id="a_1", delta="secret", offset=0, kind="thinking")
    assert spell(dialect, thought) == []


def test_agents_an_answer_that_streams_again_begins_with_its_start() -> None:
    """Our choice: what is shown of a `message_id` is what came since its last `stream_start`."""
    dialect = Agents()
    shown: dict[str, str] = {}
    reset = events.StreamReset(**S, message_id="a_1", attempt=2, reason="a new attempt")
    for event in (START, delta("Hello wor"), reset, delta("Hello"), delta(" world", 5)):
        for frame in spell(dialect, event):
            text = frame.get("content", "")
            shown[frame["message_id"]] = shown["a_1"] + text if frame["type"] == "stream_chunk" else text
    assert shown == {"a_1": "Hello world"}


def test_agents_a_turn_that_fails_is_told_once() -> None:
    """The log tells of most failures twice: for display, and as the end of the turn."""
    failed = events.TurnEnd(**S, reply_to="m_1", status="failed", error=events.Failure("model_unavailable", "no", True))
    shown = events.Error(**S, code="model_unavailable", error="no", message="no", retryable=True)
    dialect = Agents()
    [told] = spell(dialect, shown) + spell(dialect, failed)
    assert (told["type"], told["code"], told["retryable"]) == ("error", "model_unavailable", True)


def test_agents_a_message_may_be_sent() -> None:
    """WIRE 4: `message {content, metadata}`."""
    sent = Agents().command('{"type": "message", "content": "hi", "metadata": {"a": 1}, "policy": "reject"}')
    assert sent == frames.SendMessage(content="hi", metadata={"a": 1})
    again = Agents().command(b'{"type": "message", "content": "hi", "client_message_id": "c", "request_id": "r"}')
    assert again == frames.SendMessage(content="hi", client_message_id="c", request_id="r")
    assert Agents().command('{"type": "ping"}') == frames.SendPing()
    assert Agents().command('{"type": "pong"}') == frames.SendPong()


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("", "bad_request"),
        ("[]", "bad_request"),
        ("{}", "bad_request"),
        ("[" * 100_000, "bad_request"),
        (b"\xff", "bad_request"),
        ('{"type": "message"}', "bad_request"),
        ('{"type": "message", "content": 1}', "bad_request"),
        ('{"type": "message", "content": "x", "metadata": []}', "bad_request"),
        ('{"type": 7, "content": "x"}', "bad_request"),
        ('{"type": "cancel"}', "unknown_type"),
        ('{"type": "tool_approval", "tool_call_id": "c", "approved": true}', "unknown_type"),
    ],
)
def test_agents_anything_else_is_refused(sent: str | bytes, code: str) -> None:
    """Our choice: as on the session socket."""
    with pytest.raises(MillraceError) as refused:
        Agents().command(sent)
    assert refused.value.code == code


@pytest.mark.parametrize("name", ["project", "user", "llm"])
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ('{"type": "message", "content": "x"}', "unknown_type"),
        ('{"type": "ping", "request_id": 1}', "bad_request"),
        ("{}", "bad_request"),
        ("[1]", "bad_request"),
        (b"\xff", "bad_request"),
        ("[" * 100_000, "bad_request"),
    ],
)
def test_the_others_take_only_signs_of_life(name: str, sent: str | bytes, code: str) -> None:
    """WIRE 4 has no client's frames for them."""
    dialect = DIALECTS[name]()
    assert dialect.command('{"type": "pong"}') == frames.SendPong()
    with pytest.raises(MillraceError) as refused:
        dialect.command(sent)
    assert refused.value.code == code


def test_llm_a_client_that_places_chunks_by_offset_has_the_answer() -> None:
    """Our choice: an answer that streams again is never taken for more of it."""
    dialect, text = Llm(), ""
    reset = events.StreamReset(**S, message_id="a_1", attempt=2, reason="a new attempt")
    for event in (START, delta("Hello wor"), reset, delta("Good "), delta("day", 5)):
        for chunk in spell(dialect, event):
            text = text[: chunk["offset"]] + chunk["chunk"]
    assert text == "Good day"


def test_llm_a_question_has_one_final_chunk() -> None:
    """WIRE 4: `turn_end` gives the one `is_final`, also of a turn with two answers."""
    turn = (
        START,
        delta("one"),
        events.StreamEnd(**S, message_id="a_1", reply_to="m_1", content="one", finish_reason="tool_call"),
        events.StreamStart(**S, message_id="a_2", reply_to="m_1", agent="script"),
        delta("two", answer="a_2"),
        events.StreamEnd(**S, message_id="a_2", reply_to="m_1", content="two", finish_reason="stop"),
        events.TurnEnd(**S, reply_to="m_1", status="completed"),
    )
    dialect = Llm()
    chunks = [chunk for event in turn for chunk in spell(dialect, event)]
    assert [(chunk["chunk"], chunk["is_final"]) for chunk in chunks] == [("one", False), ("two", False), ("", True)]
    assert {chunk["request_id"] for chunk in chunks} == {"m_1"}


def test_llm_an_answer_whose_question_was_seeded_goes_on() -> None:
    """A client that resumes in mid-answer."""
    dialect = Llm()
    dialect.seed("a_1", "m_1")
    assert [chunk["request_id"] for chunk in spell(dialect, delta("lo", 3))] == ["m_1"]


def test_llm_what_is_remembered_is_bounded_and_in_use_longest() -> None:
    """P9: by the number of answers, not by how long the connection lives."""
    dialect = Llm()
    dialect.seed("a_1", "m_1")
    for number in range(REMEMBERED):
        dialect.seed(f"b_{number}", "m_2")
    assert spell(dialect, delta("x")) == []
    assert spell(dialect, delta("x", answer="b_0")) != []


def test_a_question_that_was_answered_before_the_client_came_is_final_at_once() -> None:
    """Our choice: who asks over REST and then listens does not wait for ever."""
    told = spell(Llm("m_1"), snapshot(active=None, running=None))
    assert [chunk["is_final"] for chunk in told] == [False, True]
    assert [chunk["is_final"] for chunk in spell(Llm("m_3"), snapshot(active=None, running=None))] == []


def socket(dialect: Dialect) -> Spelled:
    """As on a WebSocket."""
    return Spelled(dialect, written.websocket)


def test_only_the_last_frame_of_an_event_carries_the_cursor() -> None:
    """P2: who resumes from the first of two would never see the second."""
    stored = msgspec.json.encode(snapshot())
    written_frames = Spelled(Agents(), written.sse).own(stored, "e.1").decode().split("\n\n")[:-1]
    assert [frame.startswith("id: e.1\n") for frame in written_frames] == [False, False, True]


def test_a_frame_on_a_websocket_carries_the_cursor_inside() -> None:
    """As on the session socket."""
    frame = socket(Agents()).event(events.encode(delta("x")), b"e.7")
    payload = frame[frame.index(b"{") :]
    assert json.loads(payload)["cursor"] == "e.7"
    assert int.from_bytes(frame[2:4], "big") == len(payload)


def test_nothing_is_written_for_what_has_no_frame() -> None:
    """An empty frame moves the cursor on without being sent."""
    for spelled in (socket(Agents()), Spelled(Agents(), written.sse)):
        assert spelled.event(events.encode(events.TurnStart(**S, reply_to="m_1", attempt=1)), b"e.7") == b""
        assert spelled.own(b'{"type":"connected"}') == b""


def test_frames_are_shared_only_between_connections_that_are_told_the_same() -> None:
    """P10, and the fan-out: a dialect that remembers something is each connection's own."""
    assert socket(Agents()).key == socket(Agents()).key is not None
    assert socket(Agents()).key != Spelled(Agents(), written.sse).key
    assert socket(Llm()).key is None
