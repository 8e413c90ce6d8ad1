"""Rules that every session's log must keep, whatever was killed or paused: one scan of its facts and deltas."""

from collections.abc import Callable, Iterator
from datetime import datetime

from msgspec import Struct, field

from tests.harness.history import Fault, Frame, Record

CONDITIONAL = ("agent", "call", "tool", "delta")
EXPECTED = "Nats-Expected-Last-Subject-Sequence"
NEVER_RAN = ("rejected", "expired", "cancelled")
DEADLY = ("tool_runner", "nats-server")
"""Whose fault may leave a call that was started without anybody who knows its outcome."""


class Answer(Struct):
    """An answer as its deltas say it is. `stale`: its attempt is over and nothing was reset yet."""

    reply_to: str
    texts: dict[str, str] = field(default_factory=dict)
    open: bool = True
    stale: bool = False


class Call(Struct):
    """A tool call so far."""

    call: Frame
    asked: bool = False
    approved: bool | None = None
    started: list[Record] = field(default_factory=list)
    result: Frame | None = None


class SessionLog:
    """One session's log, read record by record; what breaks a rule is noted as `rule: what, where`."""

    def __init__(self, faults: list[Fault], asks: Callable[[str], bool]) -> None:
        self.violations: list[str] = []
        self.messages: dict[str, int] = {}
        self.ended: dict[str, str] = {}
        self.calls: dict[str, Call] = {}
        self.answers: dict[str, Answer] = {}
        self._faults = faults
        self._asks = asks
        self._stopped: set[str] = set()
        self._stopped_at: dict[str, float] = {}
        self._running: str | None = None
        self._attempts: dict[str, int] = {}
        self._steered: set[str] = set()
        self._last_fact = 0
        self._at = 0

    def take(self, record: Record) -> None:
        """Read the next record of the session."""
        self._at = record.seq
        if record.lane in CONDITIONAL and record.headers.get(EXPECTED) != str(self._last_fact):
            self._wrong("unfenced", f"{record.type} does not name fact {self._last_fact}")
        if record.lane != "delta":
            self._last_fact = record.seq
        if record.lane in ("agent", "call") and (turn := record.event.get("reply_to")) in self.ended:
            self._wrong("after the end", f"{record.type} of {turn}")
        handler = getattr(self, f"_{record.type}", None)
        if handler:
            handler(record, record.event)

    def over(self) -> None:
        """The log is read: everything that began has ended."""
        for message_id in self.messages:
            if message_id not in self.ended:
                self._wrong("no turn_end", message_id)
        for call_id, call in self.calls.items():
            if call.result is None:
                self._wrong("no tool_result", call_id)

    def _wrong(self, rule: str, what: str) -> None:
        self.violations.append(f"{rule}: {what}, at {self._at}")

    def _waiting(self) -> Iterator[str]:
        return (message_id for message_id in self.messages if message_id not in self.ended)

    def _stop(self, record: Record, *message_ids: str) -> None:
        for message_id in message_ids:
            self._stopped.add(message_id)
            self._stopped_at.setdefault(message_id, unix(record))

    def _message(self, record: Record, event: Frame) -> None:
        message_id = event["message_id"]
        if message_id in self.messages:
            self._wrong("stored twice", f"message {message_id}")
            return
        if event.get("policy") == "interrupt":
            self._stop(record, *self._waiting())
        if event.get("policy") == "reject" and next(self._waiting(), None):
            self._wrong("not refused", f"message {message_id} while a turn is open")
        self.messages[message_id] = record.seq

    def _cancel(self, record: Record, event: Frame) -> None:
        named = event.get("message_id") or next(self._waiting(), None)
        if named in self.answers:
            named = self.answers[named].reply_to
        if named in self.messages and named not in self.ended:
            self._stop(record, named)

    def _turn_start(self, record: Record, event: Frame) -> None:
        turn = event["reply_to"]
        if self._running not in (None, turn):
            self._wrong("overlap", f"turn_start of {turn} inside the turn of {self._running}")
        if (first := next(self._waiting(), None)) != turn:
            self._wrong("out of turn", f"{turn} before {first}")
        if event["attempt"] != self._attempts.get(turn, 0) + 1:
            self._wrong("attempt", f"{event['attempt']} after {self._attempts.get(turn, 0)}")
        self._attempts[turn], self._running = event["attempt"], turn
        for answer in self.answers.values():
            answer.stale = answer.stale or answer.open

    def _turn_release(self, _record: Record, event: Frame) -> None:
        self._attempts[event["reply_to"]] -= 1

    def _turn_end(self, _record: Record, event: Frame) -> None:
        turn, status = event["reply_to"], event["status"]
        if turn not in self.messages:
            self._wrong("turn_end of nothing", turn)
        for answer_id, answer in self.answers.items():
            if answer.reply_to == turn and answer.open:
                self._wrong("left open", f"answer {answer_id} of {turn}")
        if status == "cancelled" and turn not in self._stopped:
            self._wrong("cancelled unasked", turn)
        self.ended[turn] = status
        self._running = None if self._running == turn else self._running

    def _stream_start(self, _record: Record, event: Frame) -> None:
        if event["message_id"] in self.answers:
            self._wrong("started twice", f"answer {event['message_id']}")
        if event["reply_to"] != self._running:
            self._wrong("not its turn", f"stream_start of {event['reply_to']} in {self._running}")
        self.answers[event["message_id"]] = Answer(event["reply_to"])

    def _stream_reset(self, _record: Record, event: Frame) -> None:
        answer = self.answers.get(event["message_id"])
        if answer is None or not answer.open:
            self._wrong("reset", f"of {event['message_id']}, which is not open")
            return
        if event["attempt"] != self._attempts.get(answer.reply_to):
            self._wrong("old attempt", f"stream_reset of attempt {event['attempt']}")
        answer.texts, answer.stale = {}, False

    def _stream_delta(self, _record: Record, event: Frame) -> None:
        answer, kind = self.answers.get(event["message_id"]), event.get("kind", "text")
        if answer is None or not answer.open:
            self._wrong("stream", f"a delta of {event['message_id']}, which is not open")
            return
        if answer.stale:
            self._wrong("old attempt", f"a delta of {event['message_id']} after a newer turn_start")
        text = answer.texts.get(kind, "")
        if event["offset"] != len(text):
            self._wrong("stream", f"offset {event['offset']} after {len(text)} characters")
        answer.texts[kind] = text + event["delta"]

    def _stream_end(self, _record: Record, event: Frame) -> None:
        answer = self.answers.get(event["message_id"])
        if answer is None or not answer.open:
            self._wrong("stream", f"stream_end of {event['message_id']}, which is not open")
            return
        if answer.stale and event["finish_reason"] not in ("cancelled", "error"):
            self._wrong("old attempt", f"stream_end of {event['message_id']} after a newer turn_start")
        if event["content"] != answer.texts.get("text", ""):
            self._wrong("stream", f"{event['message_id']} ends with another text than was streamed")
        answer.open = False

    def _tool_call(self, _record: Record, event: Frame) -> None:
        if event["tool_call_id"] in self.calls:
            self._wrong("called twice", event["tool_call_id"])
        if event["reply_to"] != self._running:
            self._wrong("not its turn", f"tool_call of {event['reply_to']} in {self._running}")
        self.calls[event["tool_call_id"]] = Call(event)

    def _tool_approval_request(self, _record: Record, event: Frame) -> None:
        call = self.calls[event["tool_call_id"]]
        if call.asked:
            self._wrong("asked twice", event["tool_call_id"])
        if event["arguments"] != call.call["arguments"]:
            self._wrong("approval", f"{event['tool_call_id']} is asked for other arguments")
        call.asked = True

    def _tool_approval(self, _record: Record, event: Frame) -> None:
        call = self.calls[event["tool_call_id"]]
        if call.approved is not None:
            self._wrong("decided twice", event["tool_call_id"])
        if not call.asked or call.result:
            self._wrong("approval", f"{event['tool_call_id']} is decided and not asked for")
        call.approved = event["approved"]

    def _tool_started(self, record: Record, event: Frame) -> None:
        call = self.calls[event["tool_call_id"]]
        turn = call.call["reply_to"]
        if self._asks(call.call["tool"]) and not call.approved:
            self._wrong("without approval", event["tool_call_id"])
        if turn in self.ended or turn in self._stopped:
            self._wrong("started after its stop", event["tool_call_id"])
        if call.result:
            self._wrong("started after its result", event["tool_call_id"])
        if call.started and self._asks(call.call["tool"]):
            self._wrong("started again", event["tool_call_id"])
        call.started.append(record)

    def _tool_result(self, record: Record, event: Frame) -> None:
        call = self.calls[event["tool_call_id"]]
        if call.result:
            self._wrong("two results", event["tool_call_id"])
        status, turn = event["status"], call.call["reply_to"]
        if status == "unknown" and not self._may_be_unknown(call, record):
            self._wrong("unknown", f"{event['tool_call_id']}, and nobody died")
        if status == "completed" and not call.started:
            self._wrong("never started", event["tool_call_id"])
        if status == "rejected" and call.approved is not False:
            self._wrong("rejected unasked", event["tool_call_id"])
        if status == "cancelled" and turn not in self.ended and turn not in self._stopped:
            self._wrong("cancelled unasked", event["tool_call_id"])
        call.result = event

    def _may_be_unknown(self, call: Call, told: Record) -> bool:
        if not call.started:
            return False
        start, end = unix(call.started[0]), unix(told)
        if start <= self._stopped_at.get(call.call["reply_to"], start - 1) <= end:
            return True
        return any(
            fault.service in DEADLY and fault.since <= end and (fault.until is None or fault.until >= start)
            for fault in self._faults
        )


def unix(record: Record) -> float:
    """When the broker stored it."""
    return datetime.fromisoformat(record.time).timestamp()
