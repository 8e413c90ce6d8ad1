"""The checker itself: it accepts a recorded history, and finds each fault that is planted in it.

The history was recorded from a real system with `python -m tests.harness.record`.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.harness.call_rules import EXPECTED
from tests.harness.checker import FROM_THE_START, check
from tests.harness.history import Connection, Frame, History, Record
from tests.harness.planting import RECORDED, Plant, call_id, change, move, remove, repeat, where


@pytest.fixture
def history() -> History:
    """A fresh copy of the recorded history."""
    return History.load(RECORDED)


def frames_of(connection: Connection, type_: str) -> list[int]:
    """The places of its frames of a type."""
    return [n for n, frame in enumerate(connection.frames) if frame["type"] == type_]


def longest(history: History) -> Connection:
    """The first connection that resumed with a cursor and saw a lot."""
    resumed = [c for c in history.connections if c.after and c.after[0] != FROM_THE_START and len(c.frames) > 20]
    return resumed[0]


def tell(history: History, **frame: Any) -> None:
    """Send a client something at the end."""
    longest(history).frames.append(frame)


def note(history: History, word: str) -> str:
    """The recorded note that ends so."""
    calls = [r.event for r in history.log if r.type == "tool_call"]
    texts: list[str] = [call["arguments"]["text"] for call in calls if "text" in call["arguments"]]
    return next(text for text in texts if text.endswith(word))


def open_call(history: History) -> int:
    """The place of the approval of a note."""
    return where(history, "tool_approval", tool_call_id=call_id(history, "taken yes"))


def drop_frame(history: History) -> None:
    connection = longest(history)
    del connection.frames[frames_of(connection, "stream_delta")[3]]


def double_frame(history: History) -> None:
    connection = longest(history)
    place = frames_of(connection, "stream_delta")[3]
    connection.frames.insert(place, connection.frames[place])


def swap_frames(history: History) -> None:
    frames = longest(history).frames
    place = frames_of(longest(history), "stream_delta")[3]
    frames[place], frames[place + 1] = frames[place + 1], frames[place]


def lose_first_after_resume(history: History) -> None:
    connection = longest(history)
    first = next(n for n, frame in enumerate(connection.frames) if "id" in frame and "cursor" in frame)
    del connection.frames[first]


def other_bytes(history: History) -> None:
    connection = longest(history)
    frame: Frame = connection.frames[frames_of(connection, "stream_delta")[0]]
    connection.frames[frames_of(connection, "stream_delta")[0]] = frame | {"delta": "x"}


def behind(history: History) -> None:
    last = next(connection for connection in reversed(history.connections) if connection.is_last)
    del last.frames[-2:]


def cross(history: History) -> None:
    by_tenant = {connection.tenant: connection for connection in history.connections}
    frame = by_tenant["acme"].frames[frames_of(by_tenant["acme"], "turn_end")[0]]
    by_tenant["globex"].frames.append(frame)


def whisper(history: History) -> None:
    change(history, where(history, "stream_end"), content=f"{history.canaries['globex']}")


def stale_delta(history: History) -> None:
    start = where(history, "turn_start", attempt=2)
    delta = max(n for n in range(start) if history.log[n].type == "stream_delta")
    repeat(history, delta, start + 1, offset=history.log[delta].event["offset"])


def second_claim(history: History) -> None:
    start = where(history, "turn_start", attempt=2)
    change(history, start, attempt=1)


def inside(history: History) -> None:
    start = where(history, "turn_start", nth=2)
    move(history, start, where(history, "stream_end") - 1)


def unfence(history: History) -> None:
    history.log[where(history, "turn_end")].headers[EXPECTED] = "1"


def nobody_died(history: History) -> None:
    history.faults.clear()


def no_start(history: History) -> None:
    remove(history, where(history, "tool_started", tool_call_id=call_id(history, "unknown yes")))


def start_again(history: History) -> None:
    place = where(history, "tool_started", tool_call_id=call_id(history, "taken yes"))
    repeat(history, place, place + 1)


def start_late(history: History) -> None:
    place = where(history, "tool_started", tool_call_id=call_id(history, "taken yes"))
    repeat(history, place, len(history.log))
    history.log[-1].headers[EXPECTED] = str(history.log[-2].seq)


def accept_twice(history: History) -> None:
    history.sent[0].message_ids.append("m_other")


def refuse(history: History) -> None:
    history.sent[0].outcome = "refused"


def forget(history: History) -> None:
    name = history.sent[0].client_message_id
    remove(history, where(history, "message", client_message_id=name))


def unsent(history: History) -> None:
    history.sent.pop(0)


def never_streamed(history: History) -> None:
    shown = next(c for c in history.connections if c.after is None)
    snapshot = shown.frames[frames_of(shown, "snapshot")[0]]
    answer = history.log[where(history, "stream_start")].event["message_id"]
    snapshot["active"] = {"message_id": answer, "content": "never streamed"}


PLANTS: dict[str, tuple[str, Plant]] = {
    "an accepted message is not stored": ("lost", forget),
    "an accepted message is stored twice": ("stored twice", lambda h: repeat(h, where(h, "message"), len(h.log))),
    "a retry gets another message_id": ("two ids", accept_twice),
    "a refused message is stored": ("refused and stored", refuse),
    "a message is stored that nobody sent": ("never sent", unsent),
    "a turn has no end": ("no turn_end", lambda h: remove(h, where(h, "turn_end"))),
    "a turn ends twice": ("after the end", lambda h: repeat(h, where(h, "turn_end"), where(h, "turn_end") + 1)),
    "something is said after the end": ("after the end", lambda h: repeat(h, where(h, "agent_status"), len(h.log))),
    "a turn is cancelled and nobody asked": ("cancelled unasked", lambda h: remove(h, where(h, "cancel"))),
    "two turns overlap": ("overlap", inside),
    "a client misses an event": ("order", drop_frame),
    "a client gets an event twice": ("order", double_frame),
    "two events change places": ("order", swap_frames),
    "a resumed client misses the first event": ("order", lose_first_after_resume),
    "a client gets other bytes": ("changed", other_bytes),
    "a client is not told the end": ("behind", behind),
    "a client is told what is not in the log": ("phantom", lambda h: tell(h, type="x", id="x", cursor="")),
    "replay_complete counts wrongly": (
        "replay_complete",
        lambda h: tell(h, type="replay_complete", cursor="", replayed=9999),
    ),
    "a cursor is not honoured": ("resume_gap", lambda h: tell(h, type="resume_gap", reason="foreign")),
    "a snapshot shows what was not streamed": ("snapshot", never_streamed),
    "a tenant's event reaches another tenant": ("leak", cross),
    "a tenant's words reach another tenant": ("leak", whisper),
    "a delta is missing": ("stream", lambda h: remove(h, where(h, "stream_delta", nth=5))),
    "a delta is stored twice": (
        "stream",
        lambda h: repeat(h, where(h, "stream_delta", nth=5), where(h, "stream_delta", nth=6)),
    ),
    "an answer ends with another text": ("stream", lambda h: change(h, where(h, "stream_end"), content="other")),
    "an answer is left open": ("left open", lambda h: remove(h, where(h, "stream_end"))),
    "the half answer is not withdrawn": ("old attempt", lambda h: remove(h, where(h, "stream_reset"))),
    "an old attempt streams on": ("old attempt", stale_delta),
    "a takeover does not count": ("attempt", second_claim),
    "an append names an older fact": ("unfenced", unfence),
    "a call has no result": ("no tool_result", lambda h: remove(h, where(h, "tool_result"))),
    "a call has two results": ("two results", lambda h: repeat(h, where(h, "tool_result"), len(h.log))),
    "a call is made twice": ("called twice", lambda h: repeat(h, where(h, "tool_call"), where(h, "tool_call") + 1)),
    "a note is started again": ("started again", start_again),
    "a tool is started after its turn": ("started after its stop", start_late),
    "unknown is told without a death": ("unknown", nobody_died),
    "unknown is told without a start": ("unknown", no_start),
    "a note is taken twice": ("ran twice", lambda h: h.notes.append(note(h, "taken yes"))),
    "a rejected note is taken": ("ran without approval", lambda h: h.notes.append(note(h, "rejected no"))),
    "a note is taken and told to be rejected": (
        "ran all the same",
        lambda h: change(h, where(h, "tool_result", tool_call_id=call_id(h, "taken yes")), status="rejected"),
    ),
    "a note is told to be taken and is not": ("never ran", lambda h: h.notes.remove(note(h, "taken yes"))),
    "a note is taken that nobody called for": ("ran without a call", lambda h: h.notes.append("planted")),
    "a note starts without approval": ("without approval", lambda h: remove(h, open_call(h))),
    "an approval is decided twice": ("decided twice", lambda h: repeat(h, open_call(h), open_call(h) + 1)),
    "an external event is lost": ("external event", lambda h: remove(h, where(h, "external_event"))),
    "an external event is stored twice": (
        "external event",
        lambda h: repeat(h, where(h, "external_event"), len(h.log)),
    ),
}  # fmt: skip


def test_the_recorded_history_breaks_no_rule(history: History) -> None:
    assert check(history) == []


def test_the_recorded_history_has_all_that_faults_are_planted_in(history: History) -> None:
    types = {record.type for record in history.log}
    assert types >= {"stream_reset", "cancel", "external_event", "tool_approval_request", "tool_started"}
    assert {r.event["status"] for r in history.log if r.type == "tool_result"} == {"completed", "rejected", "unknown"}
    assert {sent.outcome for sent in history.sent} == {"accepted", "refused"}


@pytest.mark.parametrize(("rule", "plant"), PLANTS.values(), ids=list(PLANTS))
def test_a_planted_fault_is_found(history: History, rule: str, plant: Plant) -> None:
    plant(history)
    violations = check(history)
    assert any(violation.startswith(f"{rule}:") for violation in violations), violations


def test_records_are_read_back_as_they_were_stored(history: History, tmp_path: Path) -> None:
    history.save(tmp_path / "again.json")
    again = History.load(tmp_path / "again.json")
    assert all(isinstance(record, Record) for record in again.log)
    assert again == history
