"""State: what an agent runner folds of a session: its open turns, and the conversation that a model is shown. Pure.

It is of bounded size, whatever the session's length, and can be kept and gone on with.
"""

import hashlib
from typing import Self

import msgspec
from msgspec import Struct, field

from agent_runner.conversation import Conversation
from contracts import events, kept
from contracts.events import AnyEvent
from contracts.session import Session

REMEMBERED = 4096
"""Ended messages that are known by their id; older ones by a digest."""

DIGEST = 8
"""Bytes of a digest: among 70,000 messages, none is taken for another."""

PAST = 65_536
"""Digests that are kept. A message that is stored again after more than that has a second turn."""


class _More(Struct, frozen=True):
    conversation: Conversation
    past: bytes


class State(Struct):
    """The fold. Folding a prefix and then the rest gives what folding everything gives."""

    session: Session = field(default_factory=Session)
    conversation: Conversation = field(default_factory=Conversation)
    past: bytes = b""

    @classmethod
    def empty(cls, room: int) -> Self:
        """The state of a session without a fact; prompts of at most `room` bytes will be built from it."""
        return cls(conversation=Conversation(room=room))

    @property
    def weight(self) -> int:
        """Bytes of memory that it takes, roughly."""
        return self.session.weight + self.conversation.weight + len(self.past)

    def apply(self, seq: int, event: AnyEvent) -> None:
        """Take in the fact at `seq`. A message that was stored before, however long ago, opens no turn."""
        if isinstance(event, events.Message) and self._has_ended(event.message_id):
            return
        self.session.apply(seq, event)
        self.conversation.apply(seq, event)
        if isinstance(event, events.TurnEnd):
            self._forget()

    def _has_ended(self, message_id: str) -> bool:
        return message_id in self.session.ended or self._is_past(message_id)

    def _is_past(self, message_id: str) -> bool:
        digest = _digest(message_id)
        at = self.past.find(digest)
        while at % DIGEST and at > 0:
            at = self.past.find(digest, at + 1)
        return at >= 0

    def _forget(self) -> None:
        ended = self.session.ended
        while len(ended) > REMEMBERED:
            oldest = next(iter(ended))
            del ended[oldest]
            self.past += _digest(oldest)
        if len(self.past) > PAST * DIGEST:
            self.past = self.past[-(PAST - REMEMBERED) * DIGEST :]

    def kept(self, epoch: str, upto: int) -> bytes:
        """The state to be kept. Raises OverflowError, TypeError or ValueError for what cannot be."""
        return kept.encode(self.session, epoch, upto, _More(self.conversation, self.past))

    @classmethod
    def again(cls, stored: bytes, epoch: str, room: int) -> tuple[Self, int] | None:
        """A kept state and how far it goes; None for what is none, of another log, or holds too little for `room`."""
        found = kept.decode(stored, epoch)
        if found is None:
            return None
        try:
            more = msgspec.msgpack.decode(found.more, type=_More)
        except msgspec.DecodeError:
            return None
        if more.conversation.room < room:
            return None
        return cls(found.session, more.conversation, more.past), found.upto


def _digest(message_id: str) -> bytes:
    return hashlib.sha256(message_id.encode()).digest()[:DIGEST]
