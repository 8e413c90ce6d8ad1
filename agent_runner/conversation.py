"""Conversation: what a model is shown of a session, a fold over the session's facts. Pure; no I/O.

A turn is a user's message and what was said in it. Turns stand in the order of their messages; within a turn
everything stands where it was recorded, and messages that steered it where they were taken in. Each call is followed
by one result, which says what became of it; providers refuse anything else.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct, field

from agent_runner.prompt import RESPONSE, Assistant, Entry, Prompt, Response, Result, Tool, Use, User
from contracts import events
from contracts.errors import Code, MillraceError
from contracts.events import AnyEvent

ROOM = 128 * 1024
"""Bytes that a prompt may have, unless told otherwise: 32,000 tokens."""

ENTRY = 8
"""Tokens that an entry takes beside its text."""

CUT = {
    "cancelled": "[This answer was stopped before it was complete.]",
    "error": "[This answer broke off before it was complete.]",
}
NEVER = "The turn ended before there was a result; it is not known whether the tool ran."
UNMADE = "The turn ended before this call was made; the tool was not run."
DENIED = "This call is not allowed; the tool was not run."
WORDS = {
    "rejected": "A person rejected this call; the tool was not run.",
    "expired": "Nobody decided in time; the tool was not run.",
    "cancelled": "The call was cancelled; the tool was not run to its end.",
    "unknown": "It is not known whether the tool ran to its end. Look before calling it again.",
}


class Told(Struct, omit_defaults=True):
    """One turn. Entries are kept by id: what is read twice still has one place.

    `made` are the calls that were made and have no result, `decisions` what people said of them. `size` is how many
    bytes of a prompt it takes once it has ended.
    """

    entries: dict[str, User | Assistant] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    decisions: dict[str, events.ToolApproval] = field(default_factory=dict)
    answers: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)
    size: int = 0
    ended: bool = False


class Conversation(Struct):
    """Everything said in a session that a prompt of `room` bytes may need. `size`: of the turns that have ended.

    Folding a prefix and then the rest gives what folding everything gives. Turns that have ended and that no prompt
    can hold are forgotten; that a message that is stored again is not taken for a new one is for others to see to.
    """

    turns: dict[str, Told] = field(default_factory=dict)
    calls: dict[str, str] = field(default_factory=dict)
    size: int = 0
    room: int = ROOM

    @property
    def weight(self) -> int:
        """Bytes of memory, within a tenth of what was measured: short turns take far more than their text."""
        return self.size + 1300 * len(self.turns) + 700 * len(self.calls)

    def apply(self, seq: int, event: AnyEvent) -> None:  # noqa: C901, PLR0912 - one case a type
        """Take in the fact at `seq`. Facts come in the order of the log."""
        match event:
            case events.Message(message_id=message_id):
                if message_id not in self.turns:
                    self.turns[message_id] = Told({message_id: User(_said(event))})
            case events.Step(reply_to=reply_to, name=name) if name == RESPONSE:
                if told := self._open(reply_to):
                    self._response(told, event)
            case events.StreamEnd(message_id=answer_id, reply_to=reply_to):
                if (told := self._open(reply_to)) and answer_id not in told.answers:
                    told.answers.add(answer_id)
                    cut = f"\n\n{CUT[event.finish_reason]}" if event.content and event.finish_reason in CUT else ""
                    told.entries[answer_id] = Assistant(event.content + cut, event.thinking)
            case events.ToolCall(tool_call_id=call_id, reply_to=reply_to):
                if told := self._open(reply_to):
                    self._call(told, event)
            case events.ToolApproval(tool_call_id=call_id):
                if told := self.turns.get(self.calls.get(call_id, "")):
                    told.decisions.setdefault(call_id, event)  # the first one counts
            case events.ToolResult(tool_call_id=call_id):
                if (told := self.turns.get(self.calls.get(call_id, ""))) and call_id not in told.results:
                    self._result(told, event)
            case events.TurnEnd(reply_to=reply_to, status=status):
                if told := self._open(reply_to):
                    self._end(reply_to, told, status)
            case _:
                pass  # nobody said it

    def _open(self, message_id: str) -> Told | None:
        told = self.turns.get(message_id)
        return told if told and not told.ended else None

    def _response(self, told: Told, event: events.Step) -> None:
        try:
            response = Response.of(event.result)
        except msgspec.ValidationError:  # what nobody can read must not end every turn
            return
        place = f"r{event.place}"
        if place in told.entries:
            return
        uses = {use.tool_call_id: use for use in response.calls if use.tool_call_id not in self.calls}
        uses.pop("", None)
        for call_id, use in uses.items():
            self.calls[call_id] = event.reply_to
            if use.refused is not None:
                told.results[call_id] = Result(call_id, use.tool, use.refused, failed=True)
        content = "" if response.answer_id in told.answers else response.content
        told.entries[place] = Assistant(content, response.thinking, response.signature, tuple(uses.values()))
        if response.answer_id:
            told.answers.add(response.answer_id)

    def _call(self, told: Told, event: events.ToolCall) -> None:
        """Of a call that no response has named: an agent in Python made it. Those made side by side stand together."""
        call_id = event.tool_call_id
        if call_id not in self.calls:
            self.calls[call_id] = event.reply_to
            use = Use(event.tool, event.arguments, tool_call_id=call_id)
            last, before = next(reversed(told.entries.items()))
            if last in self.calls and isinstance(before, Assistant) and told.results.keys().isdisjoint(_ids([before])):
                told.entries[last] = msgspec.structs.replace(before, calls=(*before.calls, use))
            else:
                told.entries[call_id] = Assistant("", calls=(use,))
        if call_id not in told.results:
            told.made.add(call_id)

    def _result(self, told: Told, event: events.ToolResult) -> None:
        call_id = event.tool_call_id
        use = next(use for use in _uses(told.entries.values()) if use.tool_call_id == call_id)
        result = _result(event, told.decisions.pop(call_id, None), use.tool)
        if told.ended:  # late, and yet what happened
            self._grow(told, _size(result) - _size(_missing(told, use)))
        told.results[call_id] = result
        told.made.discard(call_id)

    def _grow(self, told: Told, size: int) -> None:
        told.size += size
        self.size += size

    def _end(self, message_id: str, told: Told, status: events.TurnStatus) -> None:
        told.ended = True
        running = next((running for running in self.turns.values() if not running.ended), None)
        if status == "steered" and running:
            self._take_in(message_id, told, running)
            return
        told.answers = set()
        for key, entry in tuple(told.entries.items()):
            if isinstance(entry, Assistant):
                if entry.thinking or entry.signature:  # the provider's, while its turn runs
                    told.entries[key] = entry = msgspec.structs.replace(entry, thinking=None, signature=None)
                if not (entry.content or entry.calls):
                    del told.entries[key]
        self._grow(told, sum(map(_size, _shown(told))))
        self._forget()

    def _take_in(self, message_id: str, told: Told, running: Told) -> None:
        """Move a message that steered into the running turn: the first that has not ended."""
        running.entries[message_id] = told.entries[message_id]
        self._drop(message_id, told)

    def _drop(self, message_id: str, told: Told) -> None:
        del self.turns[message_id]
        for call_id in _ids(told.entries.values()):
            del self.calls[call_id]

    def _forget(self) -> None:
        """Let go of the oldest turns that have ended, beyond what a prompt can hold."""
        while True:
            oldest, told = next(iter(self.turns.items()))
            if not told.ended or self.size - told.size < self.room:
                return
            self.size -= told.size
            self._drop(oldest, told)

    def prompt(
        self, message_id: str, instructions: str = "", context_tokens: int = 32_000, tools: tuple[Tool, ...] = ()
    ) -> Prompt:
        """What the model is shown to answer that message.

        Tokens are estimated: a quarter of the bytes, and ENTRY for each entry. Where there are more than
        `context_tokens`, earlier turns are left out whole, the oldest first. Instructions, tools and the turn itself
        stay; where these alone are too long, the oldest results of the turn are replaced by a note of their length, but
        not those of the last response. Raises KeyError for a message without a turn of its own, MillraceError
        `context_too_long` where nothing of this suffices.
        """
        turn = _shown(self.turns[message_id])
        room = context_tokens - _tokens(instructions) - sum(_tokens(msgspec.json.encode(tool)) for tool in tools)
        turn, used = _within(turn, room)
        entries = [turn]
        names = iter(reversed(self.turns))
        while next(names) != message_id:
            pass
        for name in names:
            shown = _shown(self.turns[name])
            used += sum(map(_cost, shown))
            if used > room:
                break
            entries.append(shown)
        return Prompt(instructions, tuple(entry for shown in reversed(entries) for entry in shown), tools)


def _uses(entries: Iterable[Entry]) -> Iterator[Use]:
    return (use for entry in entries if isinstance(entry, Assistant) for use in entry.calls)


def _ids(entries: Iterable[Entry]) -> list[str]:
    return [use.tool_call_id for use in _uses(entries)]


def _missing(told: Told, use: Use) -> Result:
    made = use.tool_call_id in told.made
    text = (NEVER if made else UNMADE) if told.ended else "There is no result yet."
    return Result(use.tool_call_id, use.tool, text, failed=True)


def _shown(told: Told) -> list[Entry]:
    """A turn's entries, each call followed by its result."""
    shown: list[Entry] = []
    for entry in told.entries.values():
        if isinstance(entry, User) or entry.content or entry.calls:
            shown.append(entry)
        shown += (told.results.get(use.tool_call_id) or _missing(told, use) for use in _uses([entry]))
    return shown


def _within(turn: list[Entry], room: int) -> tuple[list[Entry], int]:
    """The turn, shortened where it must be, and its tokens."""
    used = sum(map(_cost, turn))
    last = max((n for n, entry in enumerate(turn) if isinstance(entry, Assistant)), default=0)
    for n, entry in enumerate(turn[:last]):
        if used <= room:
            break
        if isinstance(entry, Result):
            note = f"[Left out to save space: {len(entry.content)} characters.]"
            if len(note) < len(entry.content):
                turn[n] = msgspec.structs.replace(entry, content=note)
                used += _cost(turn[n]) - _cost(entry)
    if used > room:
        raise MillraceError(Code.CONTEXT_TOO_LONG, f"the turn alone takes about {used} tokens of {max(room, 0)}")
    return turn, used


def _said(message: events.Message) -> str:
    attached = (f"[Attached: {one.name}, {one.media_type}, {one.url or 'inline'}]" for one in message.attachments or ())
    return "\n".join([message.content, *attached] if message.content else [*attached])


def _result(event: events.ToolResult, decision: events.ToolApproval | None, tool: str) -> Result:
    completed = event.status == "completed"
    if completed:
        text = event.result if isinstance(event.result, str) else _json(event.result)
    elif event.code == Code.TOOL_DENIED:
        text = DENIED
    else:
        text = WORDS.get(event.status, f"The tool failed: {event.error or event.code or 'without a reason'}")
    if event.status == "rejected" and decision and decision.reason:
        text = f"{text} The reason: {decision.reason}"
    if decision and decision.approved and decision.arguments is not None:
        of_that = "The result of that call: " if completed else ""
        text = f"A person changed the arguments to {_json(decision.arguments)}. {of_that}{text}"
    return Result(event.tool_call_id, tool, text, failed=not completed)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _bytes(entry: Entry) -> int:
    size = len(entry.content.encode())
    if isinstance(entry, Assistant):
        size += len((entry.thinking or "").encode()) + len((entry.signature or "").encode())
        size += len(msgspec.json.encode(entry.calls)) if entry.calls else 0
    return size


def _cost(entry: Entry) -> int:
    return ENTRY + -(-_bytes(entry) // 4)


def _size(entry: Entry) -> int:
    """Bytes, never more than what it costs: turns of so many bytes fill a prompt of so many."""
    return 4 * ENTRY + _bytes(entry)


def _tokens(text: str | bytes) -> int:
    return -(-len(text.encode() if isinstance(text, str) else text) // 4)
