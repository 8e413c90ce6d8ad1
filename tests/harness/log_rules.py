"""Rules that every session's log must keep, whatever was killed or paused: one scan of its facts and deltas.

A turn's events say nothing of the attempt that wrote them, but when they were made: what was made before the turn's
last `turn_start` was stored is of an older attempt, and must not be stored after it.
"""

from collections.abc import Callable, Iterator

from msgspec import Struct, field

from tests.harness.call_rules import EXPECTED, Calls, named, stored, unix
from tests.harness.history import Fault, Frame, Record

CONDITIONAL = ("agent", "call", "tool", "delta")
OF_A_TURN = ("agent", "call", "delta")
CLOSING = ("cancelled", "error")
"""How an answer ends whose turn ends: without a `stream_reset`, also after a newer `turn_start`."""


class Answer(Struct):
    """An answer as its deltas say it is. `stale`: its attempt is over and nothing was reset yet."""

    reply_to: str
    texts: dict[str, str] = field(default_factory=dict)
    open: bool = True
    stale: bool = False


class SessionLog:
    """One session's log, read record by record; what breaks a rule is noted as `rule: what, where`.

    `replicated`: an unconditional append may come between a conditional one and the fact that it names.
    """

    def __init__(self, faults: list[Fault], asks: Callable[[str], bool], *, replicated: bool = False) -> None:
        self.violations: list[str] = []
        self.messages: dict[str, Record] = {}
        self.ended: dict[str, str] = {}
        self.answers: dict[str, Answer] = {}
        self.calls = Calls(self._wrong, faults, asks)
        self._replicated = replicated
        self._running: str | None = None
        self._stopped: set[str] = set()
        self._claimed: dict[str, float] = {}
        self._attempts: dict[str, int] = {}
        self._steered: dict[str, str] = {}
        self._told: set[str] = set()
        self._steps: set[tuple[str, object]] = set()
        self._seen: set[str] = set()
        self._may_name = ["0"]
        self._at = 0

    def take(self, record: Record) -> None:
        """Read the next record of the session."""
        self._at = record.seq
        if record.event["id"] in self._seen:
            self._wrong("stored twice", f"{record.type} {record.event['id']}")
        self._seen.add(record.event["id"])
        self._fence(record)
        if record.lane in OF_A_TURN:
            self._of_its_turn(record)
        handler = getattr(self, f"_{record.type}", None)
        if handler:
            handler(record, record.event)
        self.calls.take(record)

    def over(self) -> None:
        """The log is read: everything that began has ended."""
        for message_id in self.messages:
            if message_id not in self.ended:
                self._wrong("no turn_end", message_id)
        for call_id, call in self.calls.calls.items():
            if call.result is None:
                self._wrong("no tool_result", call_id)
        for message_id, turn in self._steered.items():
            if message_id not in self._told and self.ended.get(turn) == "completed":
                self._wrong("no steer_applied", f"{message_id} in {turn}")

    def _wrong(self, rule: str, what: str) -> None:
        self.violations.append(f"{rule}: {what}, at {self._at}")

    def _fence(self, record: Record) -> None:
        """Who decides something has folded every fact before it."""
        is_conditional = record.lane in CONDITIONAL or record.type == "tool_approval"
        if (is_conditional or record.event.get("policy") == "reject") and (
            record.headers.get(EXPECTED) not in self._may_name
        ):
            self._wrong("unfenced", f"{record.type} does not name fact {self._may_name[-1]}")
        if record.lane != "delta":
            kept = self._may_name if self._replicated and not is_conditional else []
            self._may_name = [*kept, str(record.seq)]

    def _of_its_turn(self, record: Record) -> None:
        """Nothing is said of a turn that does not run, and by nobody who has lost it."""
        event = record.event
        answer = self.answers.get(event.get("message_id", ""))
        turn = event.get("reply_to") or (answer.reply_to if answer else self._running)
        if turn in self.ended and record.type != "steer_missed":
            self._wrong("after the end", f"{record.type} of {turn}")
        if turn is None:
            self._wrong("not its turn", f"{record.type} while no turn runs")
        elif unix(event["timestamp"]) < self._claimed.get(turn, 0):
            self._wrong("old attempt", f"{record.type} of {turn} was made before the last turn_start")
        closes = record.type == "turn_end" or event.get("finish_reason") in CLOSING
        if turn != self._running and not closes and record.type not in ("turn_start", "steer_missed"):
            self._wrong("not its turn", f"{record.type} of {turn} in {self._running}")

    def _waiting(self) -> Iterator[str]:
        return (message_id for message_id in self.messages if message_id not in self.ended)

    def _stop(self, record: Record, *message_ids: str) -> None:
        for message_id in message_ids:
            self._stopped.add(message_id)
            self.calls.over.setdefault(message_id, record)

    def _message(self, record: Record, event: Frame) -> None:
        message_id = event["message_id"]
        if message_id in self.messages:
            self._wrong("stored twice", f"message {message_id}")
            return
        if event.get("policy") == "interrupt":
            self._stop(record, *self._waiting())
        known = (name for name in self._waiting() if self.messages[name].seq <= named(record))
        if event.get("policy") == "reject" and next(known, None):
            self._wrong("not refused", f"message {message_id} while a turn is open")
        self.messages[message_id] = record

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
        self._claimed[turn] = stored(record)
        for answer in self.answers.values():
            answer.stale = answer.stale or answer.open

    def _turn_release(self, _record: Record, event: Frame) -> None:
        self._attempts[event["reply_to"]] = self._attempts.get(event["reply_to"], 0) - 1
        self._running = None

    def _turn_end(self, record: Record, event: Frame) -> None:
        turn, status = event["reply_to"], event["status"]
        if turn not in self.messages:
            self._wrong("turn_end of nothing", turn)
        for answer_id, answer in self.answers.items():
            if answer.reply_to == turn and answer.open:
                self._wrong("left open", f"answer {answer_id} of {turn}")
        if status == "cancelled" and turn not in self._stopped:
            self._wrong("cancelled unasked", turn)
        if status == "completed" and (open_calls := self.calls.without_result(turn)):
            self._wrong("not waited for", f"{open_calls} of {turn}")
        if status == "steered":
            message = self.messages.get(turn)
            if self._running is None or message is None or message.event.get("policy") != "steer":
                self._wrong("steered", f"{turn} into {self._running}")
            self._steered[turn] = self._running or ""
        self.ended[turn] = status
        self.calls.over.setdefault(turn, record)
        self._running = None if self._running == turn else self._running

    def _steer_applied(self, _record: Record, event: Frame) -> None:
        message_id = event["message_id"]
        if message_id in self._told or self._steered.get(message_id) != event["reply_to"]:
            self._wrong("steered", f"{message_id} is told again, or of another turn")
        self._told.add(message_id)

    def _step(self, _record: Record, event: Frame) -> None:
        if (step := (event["reply_to"], event.get("place", 0))) in self._steps:
            self._wrong("recorded twice", f"step {step[1]} of {step[0]}")
        self._steps.add(step)

    def _stream_start(self, _record: Record, event: Frame) -> None:
        if event["message_id"] in self.answers:
            self._wrong("started twice", f"answer {event['message_id']}")
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
        if answer.stale and event["finish_reason"] not in CLOSING:
            self._wrong("old attempt", f"stream_end of {event['message_id']} after a newer turn_start")
        if event["content"] != answer.texts.get("text", ""):
            self._wrong("stream", f"{event['message_id']} ends with another text than was streamed")
        answer.open = False
