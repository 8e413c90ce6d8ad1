"""Conversation: what a model is shown of a session, a fold over the session's facts. Pure; no I/O.

A turn is a user's message and what was said in it. Turns stand in the order of their messages; within a turn
everything stands where it was recorded, and messages that steered it where they were taken in. Each call is followed
by one result, which says what became of it; providers refuse anything else.
"""

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
WORDS = {
    "rejected": "A person rejected this call; the tool was not run.",
    "expired": "Nobody decided in time; the tool was not run.",
    "cancelled": "The call was cancelled; the tool was not run to its end.",
    "unknown": "It is not known whether the tool ran to its end. Look before calling it again.",
}


class Told(Struct):
    """One turn. Entries are kept by id: what is read twice still has one place. `size`: bytes, estimated."""

    entries: dict[str, User | Assistant] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    edited: dict[str, dict[str, Any]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    size: int = 0
    ended: bool = False


class Conversation(Struct):
    """Everything said in a session that a prompt of `room` bytes may need.

    Folding a prefix and then the rest gives what folding everything gives.
    """

    turns: dict[str, Told] = field(default_factory=dict)
    steered: set[str] = field(default_factory=set)
    calls: dict[str, str] = field(default_factory=dict)
    size: int = 0
    room: int = ROOM

    def apply(self, seq: int, event: AnyEvent) -> None:  # noqa: C901, PLR0912 - one case a type
        """Take in the fact at `seq`. Facts come in the order of the log."""
        match event:
            case events.Message(message_id=message_id):
                if message_id not in self.turns and message_id not in self.steered:
                    self.turns[message_id] = Told()
                    self._add(message_id, message_id, User(_said(event)))
            case events.Step(reply_to=reply_to, name=name, place=place, result=result) if name == RESPONSE:
                self._response(reply_to, f"{place}", Response.of(result))
            case events.StreamEnd(message_id=answer_id, reply_to=reply_to):
                told = self.turns.get(reply_to)
                if told and answer_id not in told.answers and (event.content or event.thinking):
                    text = event.content + (f"\n\n{CUT[event.finish_reason]}" if event.finish_reason in CUT else "")
                    self._add(reply_to, answer_id, Assistant(text, event.thinking))
            case events.ToolCall(tool_call_id=call_id, reply_to=reply_to):
                if reply_to in self.turns and call_id not in self.calls:
                    self.calls[call_id] = reply_to
                    use = Use(event.tool, event.arguments, tool_call_id=call_id)
                    self._add(reply_to, call_id, Assistant("", calls=(use,)))
            case events.ToolApproval(tool_call_id=call_id):
                if told := self.turns.get(self.calls.get(call_id, "")):
                    if event.arguments is not None:
                        told.edited.setdefault(call_id, event.arguments)
                    if event.reason:
                        told.reasons.setdefault(call_id, event.reason)
            case events.ToolResult(tool_call_id=call_id):
                if (told := self.turns.get(self.calls.get(call_id, ""))) and call_id not in told.results:
                    told.results[call_id] = _result(event, told, self._tool(told, call_id))
                    self._grow(told, len(told.results[call_id].content))
            case events.TurnEnd(reply_to=reply_to, status=status):
                self._end(reply_to, status)
            case _:
                pass  # nobody said it

    def _response(self, reply_to: str, place: str, response: Response) -> None:
        told = self.turns.get(reply_to)
        if told is None or f"r{place}" in told.entries:
            return
        if response.answer_id:
            told.answers[response.answer_id] = place
        for use in response.calls:
            self.calls[use.tool_call_id] = reply_to
            if use.refused is not None:
                told.results[use.tool_call_id] = Result(use.tool_call_id, use.tool, use.refused, failed=True)
        said = Assistant(response.content, response.thinking, response.signature, response.calls)
        self._add(reply_to, f"r{place}", said)

    def _add(self, message_id: str, key: str, entry: User | Assistant) -> None:
        told = self.turns[message_id]
        if key not in told.entries:
            told.entries[key] = entry
            self._grow(told, _bytes(entry))

    def _grow(self, told: Told, size: int) -> None:
        told.size += size
        self.size += size

    def _tool(self, told: Told, call_id: str) -> str:
        uses = (use for entry in told.entries.values() if isinstance(entry, Assistant) for use in entry.calls)
        return next((use.tool for use in uses if use.tool_call_id == call_id), "")

    def _end(self, reply_to: str, status: events.TurnStatus) -> None:
        told = self.turns.get(reply_to)
        if told is None or told.ended:
            return
        told.ended = True
        if status == "steered":
            self._take_in(reply_to, told)
            return
        for key, entry in told.entries.items():  # thinking is the provider's while its turn runs
            if isinstance(entry, Assistant) and entry.thinking:
                told.entries[key] = msgspec.structs.replace(entry, thinking=None, signature=None)
                self._grow(told, -len(entry.thinking))
        self._forget()

    def _take_in(self, message_id: str, told: Told) -> None:
        """Move a message that steered into the running turn: the first that has not ended."""
        for running in self.turns.values():
            if not running.ended:
                running.entries.update(told.entries)
                running.size += told.size
                del self.turns[message_id]
                self.steered.add(message_id)
                return

    def _forget(self) -> None:
        """Let go of the oldest turns that have ended, beyond what a prompt can hold."""
        while self.size > 2 * self.room:
            oldest = next(iter(self.turns))
            told = self.turns[oldest]
            if not told.ended or self.size - told.size < self.room:
                return
            self.size -= told.size
            del self.turns[oldest]
            uses = (use for entry in told.entries.values() if isinstance(entry, Assistant) for use in entry.calls)
            for use in uses:
                self.calls.pop(use.tool_call_id, None)

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
        before = list(self.turns)[: list(self.turns).index(message_id)]
        for earlier in reversed(before):
            shown = _shown(self.turns[earlier])
            used += sum(map(_cost, shown))
            if used > room:
                break
            entries.append(shown)
        return Prompt(instructions, tuple(entry for shown in reversed(entries) for entry in shown), tools)


def _shown(told: Told) -> list[Entry]:
    """A turn's entries, each call followed by its result."""
    shown: list[Entry] = []
    for entry in told.entries.values():
        if isinstance(entry, User):
            shown.append(entry)
        elif entry.content or entry.calls:
            shown.append(entry)
            never = NEVER if told.ended else "There is no result yet."
            for use in entry.calls:
                missing = Result(use.tool_call_id, use.tool, never, failed=True)
                shown.append(told.results.get(use.tool_call_id, missing))
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


def _result(event: events.ToolResult, told: Told, tool: str) -> Result:
    call_id = event.tool_call_id
    if event.status == "completed":
        text = event.result if isinstance(event.result, str) else msgspec.json.encode(event.result).decode()
        if (edited := told.edited.get(call_id)) is not None:
            arguments = msgspec.json.encode(edited).decode()
            text = f"A person changed the arguments to {arguments}. The result of that call: {text}"
        return Result(call_id, tool, text)
    text = WORDS.get(event.status, f"The tool failed: {event.error or event.code or 'without a reason'}")
    if event.status in WORDS and (reason := told.reasons.get(call_id)):
        text = f"{text} The reason: {reason}"
    return Result(call_id, tool, text, failed=True)


def _bytes(entry: Entry) -> int:
    match entry:
        case Assistant(content=content, thinking=thinking, calls=calls):
            return len(content.encode()) + len((thinking or "").encode()) + len(msgspec.json.encode(calls))
        case User(content=content) | Result(content=content):
            return len(content.encode())


def _cost(entry: Entry) -> int:
    return ENTRY + -(-_bytes(entry) // 4)


def _tokens(text: str | bytes) -> int:
    return -(-len(text.encode() if isinstance(text, str) else text) // 4)
