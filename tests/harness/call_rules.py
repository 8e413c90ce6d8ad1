"""Rules of tool calls: asked for as they are, run as often as they may be, one result each."""

from collections.abc import Callable
from datetime import datetime

from msgspec import Struct, field

from tests.harness.history import Fault, Frame, Record

NEVER_RAN = ("rejected", "expired", "cancelled")
EXPECTED = "Nats-Expected-Last-Subject-Sequence"
DEADLY = ("tool_runner", "nats-server")
"""Whose fault may leave a call that was started without anybody who knows its outcome."""


class Call(Struct):
    """A tool call so far."""

    call: Frame
    asked: bool = False
    approved: bool | None = None
    started: list[Record] = field(default_factory=list)
    progress: float = 0
    result: Frame | None = None


class Calls:
    """The calls of one session. `over`: the turns that have ended or are to be stopped, by what tells so first."""

    def __init__(self, wrong: Callable[[str, str], None], faults: list[Fault], asks: Callable[[str], bool]) -> None:
        self.calls: dict[str, Call] = {}
        self.over: dict[str, Record] = {}
        self._wrong = wrong
        self._faults = faults
        self._asks = asks

    def take(self, record: Record) -> None:
        """Read the next record of the session."""
        handler = getattr(self, f"_{record.type}", None)
        if handler is None:
            return
        call_id, event = record.event["tool_call_id"], record.event
        if record.type == "tool_call":
            self._tool_call(call_id, event)
            return
        call = self.calls.get(call_id)
        if call is None:
            self._wrong("no tool_call", f"{record.type} of {call_id}")
            return
        if call.started and record.lane == "tool" and unix(event["timestamp"]) < stored(call.started[-1]):
            self._wrong("old attempt", f"{record.type} of {call_id} was made before its last tool_started")
        handler(call, record, event)

    def without_result(self, turn: str) -> list[str]:
        """The calls of a turn that have none."""
        return [name for name, call in self.calls.items() if call.call["reply_to"] == turn and call.result is None]

    def _tool_call(self, call_id: str, event: Frame) -> None:
        if call_id in self.calls:
            self._wrong("called twice", call_id)
        else:
            self.calls[call_id] = Call(event)

    def _tool_approval_request(self, call: Call, _record: Record, event: Frame) -> None:
        if call.asked:
            self._wrong("asked twice", event["tool_call_id"])
        if event["arguments"] != call.call["arguments"]:
            self._wrong("approval", f"{event['tool_call_id']} is asked for other arguments")
        call.asked = True

    def _tool_approval(self, call: Call, _record: Record, event: Frame) -> None:
        if call.approved is not None:
            self._wrong("decided twice", event["tool_call_id"])
        if not call.asked or call.result:
            self._wrong("approval", f"{event['tool_call_id']} is decided and not asked for")
        call.approved = event["approved"]

    def _tool_started(self, call: Call, record: Record, event: Frame) -> None:
        if self._asks(call.call["tool"]) and not call.approved:
            self._wrong("without approval", event["tool_call_id"])
        stopped = self.over.get(call.call["reply_to"])
        if stopped and stopped.seq <= named(record):
            self._wrong("started after its stop", event["tool_call_id"])
        if call.result:
            self._wrong("started after its result", event["tool_call_id"])
        if call.started and self._asks(call.call["tool"]):
            self._wrong("started again", event["tool_call_id"])
        call.started.append(record)
        call.progress = 0

    def _tool_progress(self, call: Call, _record: Record, event: Frame) -> None:
        if not call.started or call.result:
            self._wrong("progress", f"of {event['tool_call_id']}, which does not run")
        if event["progress"] < call.progress:
            self._wrong("old attempt", f"{event['tool_call_id']} goes back from {call.progress} to {event['progress']}")
        call.progress = event["progress"]

    def _tool_result(self, call: Call, record: Record, event: Frame) -> None:
        if call.result:
            self._wrong("two results", event["tool_call_id"])
        status = event["status"]
        if status == "unknown" and not self._may_be_unknown(call, record):
            self._wrong("unknown", f"{event['tool_call_id']}, and nobody died")
        if status == "completed" and not call.started:
            self._wrong("never started", event["tool_call_id"])
        if status == "rejected" and call.approved is not False:
            self._wrong("rejected unasked", event["tool_call_id"])
        if status == "cancelled" and call.call["reply_to"] not in self.over:
            self._wrong("cancelled unasked", event["tool_call_id"])
        call.result = event

    def _may_be_unknown(self, call: Call, told: Record) -> bool:
        if not call.started:
            return False
        start, end = stored(call.started[0]), stored(told)
        stopped = self.over.get(call.call["reply_to"])
        if stopped and start <= stored(stopped) <= end:
            return True
        made = unix(call.started[0].event["timestamp"])  # what a sleeper had sent is stored when it wakes
        return any(
            fault.service in DEADLY and fault.since <= end and (fault.until is None or fault.until >= made)
            for fault in self._faults
        )


def named(record: Record) -> int:
    """The fact that it was conditional on: what its writer knew of the session."""
    return int(record.headers.get(EXPECTED, 0))


def unix(time: str) -> float:
    """Unix seconds of a timestamp."""
    return datetime.fromisoformat(time).timestamp()


def stored(record: Record) -> float:
    """When the broker stored it."""
    return unix(record.time)
