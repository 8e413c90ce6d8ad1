"""Conversation: what a model is shown of a session, a fold over the session's facts. Pure; no I/O.

A turn is a user's message and what was said in it. Turns stand in the order of their messages;
within a turn, answers stand where they ended, and messages that steered it where they
were taken in.
"""

from typing import Literal

from msgspec import Struct, field

from contracts import events
from contracts.events import AnyEvent


class Entry(Struct, frozen=True):
    """One message of a chat, in the form that language models take."""

    role: Literal["system", "user", "assistant"]
    content: str


class Told(Struct):
    """One turn. `entries` are kept by message id: what is read twice still has one place."""

    entries: dict[str, Entry]
    ended: bool = False


class Conversation(Struct):
    """Everything said in a session.

    Folding a prefix and then the rest gives what folding everything gives.
    """

    turns: dict[str, Told] = field(default_factory=dict)
    steered: set[str] = field(default_factory=set)

    def apply(self, seq: int, event: AnyEvent) -> None:
        """Take in the fact at `seq`. Facts come in the order of the log."""
        match event:
            case events.Message(message_id=message_id, content=content):
                if message_id not in self.turns and message_id not in self.steered:
                    self.turns[message_id] = Told({message_id: Entry("user", content)})
            case events.StreamEnd(message_id=message_id, reply_to=reply_to, content=content):
                if told := self.turns.get(reply_to):
                    told.entries[message_id] = Entry("assistant", content)
            case events.TurnEnd(reply_to=reply_to, status=status):
                if told := self.turns.get(reply_to):
                    told.ended = True
                    if status == "steered":
                        self._take_in(reply_to, told)
            case _:
                pass  # nobody said it

    def _take_in(self, message_id: str, told: Told) -> None:
        """Move a message that steered into the running turn: the first that has not ended."""
        for running in self.turns.values():
            if not running.ended:
                running.entries.update(told.entries)
                del self.turns[message_id]
                self.steered.add(message_id)
                return

    def entries(self, instructions: str, up_to_message_id: str) -> list[Entry]:
        """What the model is shown to answer that message: instructions, then all up to its turn.

        Partial answers of cancelled and failed turns stay; thinking, answers without text and
        messages queued behind are left out. Raises KeyError for a message without its own turn.
        """
        if up_to_message_id not in self.turns:
            raise KeyError(up_to_message_id)
        shown = [Entry("system", instructions)] if instructions else []
        for message_id, told in self.turns.items():
            entries = told.entries.values()
            shown.extend(entry for entry in entries if entry.content or entry.role == "user")
            if message_id == up_to_message_id:
                break
        return shown
