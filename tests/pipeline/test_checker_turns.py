"""The checker's teeth for turns: what attempts and tools may not do, each planted in a recorded history."""

import msgspec
import pytest

from contracts import events
from tests.harness.call_rules import EXPECTED, unix
from tests.harness.checker import check
from tests.harness.history import Fault, History
from tests.harness.planting import RECORDED, Plant, call_id, change, move, plant, remove, repeat, where


@pytest.fixture
def history() -> History:
    """A fresh copy of the recorded history."""
    return History.load(RECORDED)


def made_before(history: History, type_: str, start: str) -> None:
    """An event after a takeover was made before it."""
    place = next(n for n, r in enumerate(history.log) if n > where(history, start, attempt=2) and r.type == type_)
    change(history, place, timestamp=history.log[0].event["timestamp"])


def first_turn(history: History) -> str:
    return str(history.log[where(history, "turn_start")].event["reply_to"])


def same_id(history: History) -> None:
    place = where(history, "stream_end")
    repeat(history, place, place + 1, id=history.log[place].event["id"])


def released(history: History) -> None:
    plant(history, where(history, "stream_start"), "turn_release", reply_to=first_turn(history))


def too_early(history: History) -> None:
    move(history, where(history, "turn_start"), where(history, "stream_start"))


def idle(history: History) -> None:
    plant(history, len(history.log) - 1, "error", code="agent_failed", error="", message="", retryable=False)


def says_again(history: History) -> None:
    place = where(history, "stream_end")
    for type_, more in (("stream_end", {"content": "again"}), ("stream_start", {})):
        repeat(history, where(history, type_), place + 1, message_id="a_again", **more)


def records_again(history: History) -> None:
    for _ in range(2):
        plant(history, where(history, "turn_end"), "step", reply_to=first_turn(history), name="model", place=1)


def calls_again(history: History) -> None:
    place = where(history, "tool_call")
    repeat(history, place, place + 1, tool_call_id="c_again")


def leaves_out(history: History) -> None:
    place = where(history, "message")
    program = msgspec.json.decode(history.log[place].event["content"])
    change(history, place, content=msgspec.json.encode([*program, {"say": "and more"}]).decode())


def fails(history: History) -> None:
    failure = {"code": "agent_failed", "error": "5 attempts ended without an answer", "retryable": True}
    change(history, where(history, "turn_end"), status="failed", error=failure)


def does_not_fail(history: History) -> None:
    change(history, where(history, "message"), content='[{"stream": {"deltas": 30}}, {"fail": "as told"}]')


def of_python(history: History) -> None:
    plant(history, where(history, "turn_start"), "session_updated", "client", agent="stepping")


def does_not_wait(history: History) -> None:
    turn = history.log[where(history, "tool_call")].event["reply_to"]
    move(history, where(history, "tool_result"), where(history, "turn_end", reply_to=turn) + 1)


def steered(history: History, *, policy: str = "steer", told: int = 0) -> None:
    """Another message is taken in by the first turn."""
    turn, said = first_turn(history), {"content": "mind this", "client_message_id": "x", "session_id": "s"}
    plant(history, where(history, "turn_end"), "message", "message", message_id="m_steer", policy=policy, **said)
    plant(history, where(history, "turn_end"), "turn_end", reply_to="m_steer", status="steered")
    for _ in range(told):
        end = where(history, "turn_end", reply_to=turn)
        plant(history, end, "steer_applied", message_id="m_steer", reply_to=turn)


def reports(history: History, before: str, *amounts: float) -> None:
    """Progress of a note before that event of it."""
    call = call_id(history, "taken yes")
    for amount in amounts:
        at = where(history, before, tool_call_id=call) if before else len(history.log) - 1
        plant(history, at, "tool_progress", "tool", tool_call_id=call, progress=amount)


def started_since(history: History) -> None:
    call = call_id(history, "taken yes")
    result = where(history, "tool_result", tool_call_id=call)
    plant(history, result, "tool_started", "tool", tool_call_id=call, attempt=2)


def no_call(history: History) -> None:
    remove(history, where(history, "tool_call"))


def unfence_approval(history: History) -> None:
    history.log[where(history, "tool_approval")].headers[EXPECTED] = "1"


PLANTS: dict[str, tuple[str, Plant]] = {
    "a delta of an old attempt fits": ("old attempt", lambda h: made_before(h, "stream_delta", "turn_start")),
    "an old attempt ends the answer": ("old attempt", lambda h: made_before(h, "stream_end", "turn_start")),
    "an old attempt ends the turn": ("old attempt", lambda h: made_before(h, "turn_end", "turn_start")),
    "an event is stored twice": ("stored twice", same_id),
    "a turn goes on after its release": ("not its turn", released),
    "a turn speaks before it starts": ("not its turn", too_early),
    "something is said and no turn runs": ("not its turn", idle),
    "a recorded answer is given again": ("not its program", says_again),
    "a recorded step is done again": ("recorded twice", records_again),
    "a recorded call is made again": ("not its program", calls_again),
    "a turn leaves something out": ("not its program", leaves_out),
    "a turn fails that was not told to": ("not its program", fails),
    "a turn completes that was told to fail": ("not its program", does_not_fail),
    "an agent in Python says something else": ("not its program", of_python),
    "a turn ends before its tool": ("not waited for", does_not_wait),
    "a plain message is steered": ("steered", lambda h: steered(h, policy="enqueue")),
    "a steering message is told twice": ("steered", lambda h: steered(h, told=2)),
    "a steering message is not told": ("no steer_applied", steered),
    "a tool reports after its result": ("progress", lambda h: reports(h, "", 1)),
    "a tool reports before its start": ("progress", lambda h: reports(h, "tool_started", 1)),
    "an old attempt at a tool reports": ("old attempt", lambda h: reports(h, "tool_result", 3, 1)),
    "an old attempt at a tool tells its result": ("old attempt", started_since),
    "a result has no call": ("no tool_call", no_call),
    "an approval names an older fact": ("unfenced", unfence_approval),
}


@pytest.mark.parametrize(("rule", "broken"), PLANTS.values(), ids=list(PLANTS))
def test_what_no_attempt_may_do_is_found(history: History, rule: str, broken: Plant) -> None:
    broken(history)
    violations = check(history)
    assert any(violation.startswith(f"{rule}:") for violation in violations), violations


@pytest.mark.parametrize(("replicas", "told", "found"), [(1, True, True), (3, True, False), (3, False, True)])
def test_what_a_new_leader_tells_nobody_may_be_missed_if_that_is_told(
    history: History, replicas: int, told: bool, found: bool
) -> None:
    """`resume_gap` and a snapshot follow; silence is a fault, and on one broker either is."""
    history.replicas = replicas
    connection = next(c for c in history.connections if c.after is None and len(c.frames) > 20)
    frames = connection.frames
    del frames[[n for n, frame in enumerate(frames) if frame["type"] == "stream_delta"][2]]
    if told:
        last = next(f["id"] for f in reversed(frames) if "id" in f and f.get("session_id") == connection.session_id)
        snapshot = {"type": "snapshot", "last": last, "active": None, "cursor": ""}
        frames += [{"type": "resume_gap", "reason": "lost"}, snapshot]
    assert bool(check(history)) is found


@pytest.mark.parametrize(
    ("type_", "lane", "found"), [("cancel", "client", False), ("message", "message", False), ("step", "agent", True)]
)
def test_only_an_unconditional_append_may_come_between_on_replicas(
    history: History, type_: str, lane: str, found: bool
) -> None:
    """An append names the last fact that it decided upon; a message, a cancel or an external event may slip in."""
    history.replicas = 3
    later = {"message_id": "m_x", "content": "", "client_message_id": "x", "session_id": "s"}
    fields = {"reply_to": first_turn(history), "name": "x"} if type_ == "step" else later
    plant(history, where(history, "turn_end"), type_, lane, **fields)
    assert any(v.startswith("unfenced") for v in check(history)) is found


@pytest.mark.parametrize(("slept_until", "found"), [(0.5, False), (-0.5, True)])
def test_who_slept_while_its_start_was_on_its_way_may_not_know(
    history: History, slept_until: float, found: bool
) -> None:
    """It is stored when the process wakes, and then it is too late to execute the call."""
    start = history.log[where(history, "tool_started", tool_call_id=call_id(history, "unknown yes"))]
    made = unix(start.event["timestamp"])
    start.event["timestamp"] = events.timestamp(made - 2)
    history.faults[:] = [Fault("tool_runner", "found T", made - 3, made - 2 + slept_until)]
    assert any(violation.startswith("unknown:") for violation in check(history)) is found
