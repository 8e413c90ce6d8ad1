"""View: what a client is shown of a session, a fold over its facts. Pure; no I/O.

It is bounded, whatever the session's length, and can be kept and gone on with: a joiner of a long session reads what
came since. What is open is always there in full. `Session.ended` would grow for ever; here the last REMEMBERED ended
messages are known by their id. An older one that is stored again is taken for new until the next turn is claimed: a
runner, which knows them all, claims a message only when every earlier one has ended, and so what
stands before it unclaimed was no new message.
"""

import re
from typing import Any, Self

import msgspec
from msgspec import Struct, field

from contracts import events
from contracts.events import AnyEvent
from contracts.frames import Active, Snapshot
from contracts.session import Session
from contracts.subjects import Topic

MESSAGES = 50
WORKFLOWS = 100
REMEMBERED = 4096
"""Ended messages that are known when they are stored again."""

REPEATS = 1024
"""Places of messages that were stored again, so that they are shown once."""

LONG = 4096
"""Bytes of a message from which on a kept view holds its place only; it is read from the log again."""

FORMAT = 2
"""Of a kept view. One of another format is not read: it is a cache."""


class View(Struct):
    """The fold: the session's open turns, its last messages, and what is shown beside them.

    `messages` are places in the log and what is shown, one more than a snapshot has; empty where it must be
    read again (`missing`). `created` is the session's first record and `session.about` its last.
    """

    session: Session = field(default_factory=Session)
    created: events.SessionUpdated | None = None
    last: str | None = None
    last_seq: int = 0
    messages: list[tuple[int, bytes]] = field(default_factory=list)
    more: bool = False
    agents: dict[str, str] = field(default_factory=dict)
    requests: dict[str, bytes] = field(default_factory=dict)
    workflows: dict[str, bytes] = field(default_factory=dict)
    repeats: list[int] = field(default_factory=list)
    forgot: bool = False

    @property
    def is_deleted(self) -> bool:
        """Whether the session was deleted, which is for ever: nothing that comes later is taken in."""
        return self.session.about is not None and self.session.about.state == "deleted"

    def apply(self, seq: int, event: AnyEvent, stored: bytes) -> None:  # noqa: C901, PLR0912 - one case a type
        """Take in the fact at `seq`."""
        if self.is_deleted:
            return
        repeated = self._is_repeated(event)
        self.session.apply(seq, event)
        if events.type_of(stored) not in events.INTERNAL:
            self.saw(seq, event.id)
        if repeated:
            self._repeated(seq)
            return
        match event:
            case events.Message():
                self._show(seq, stored)
            case events.StreamStart(message_id=message_id, agent=agent):
                self.agents[message_id] = agent
            case events.StreamEnd():
                self._show(seq, answer(event))
            case events.ToolApprovalRequest(tool_call_id=call_id):
                self.requests[call_id] = stored
            case events.ToolApproval(tool_call_id=call_id) | events.ToolResult(tool_call_id=call_id):
                self.requests.pop(call_id, None)
            case events.WorkflowProgress(workflow_id=workflow_id):
                self.workflows.pop(workflow_id, None)
                self.workflows[workflow_id] = stored
                if len(self.workflows) > WORKFLOWS:
                    del self.workflows[next(iter(self.workflows))]
            case events.TurnStart(reply_to=reply_to):
                self._claimed(reply_to)
            case events.TurnEnd():
                self._turn_ended()
            case events.SessionUpdated():
                self._updated(event)

    def saw(self, seq: int, event_id: str) -> None:
        """An event that clients receive stands at `seq`."""
        if seq > self.last_seq:
            self.last_seq, self.last = seq, event_id

    def missing(self) -> list[int]:
        """The places of those messages of a snapshot that must be read from the log again."""
        return [seq for seq, shown in self.messages[-MESSAGES:] if not shown]

    def fill(self, found: dict[int, bytes]) -> None:
        """Take in what the log holds at those places."""
        self.messages = [(seq, shown or shown_as(found.get(seq)) or b"") for seq, shown in self.messages]

    def frame(self, topic: Topic, cursor: str, active: Active | None) -> Snapshot:
        """The frame for this state. A message that the log does not hold any more is left out."""
        shown = self.messages[-MESSAGES:]
        first = self.session.first
        running = first if first and self.session.turns[first].claim else None
        return Snapshot(
            session_id=topic.id,
            cursor=cursor,
            last=self.last,
            messages=[msgspec.json.decode(message) for _, message in shown if message],
            before=str(shown[0][0]) if shown and (self.more or len(self.messages) > MESSAGES) else None,
            active=active,
            running=running,
            queue=[message_id for message_id in self.session.turns if message_id != running],
            approvals=self.approvals,
            workflows=[msgspec.json.decode(stored) for stored in self.workflows.values()],
        )

    @property
    def approvals(self) -> list[Any]:
        """The open requests for a decision, in order, as clients receive them."""
        return [msgspec.json.decode(stored) for stored in self.requests.values()]

    def open_answer(self) -> tuple[Active, int] | None:
        """The answer that is being streamed, still without its text, and where its deltas begin."""
        for message_id, turn in self.session.turns.items():
            if answer := turn.open_answer:
                active = Active(
                    message_id=answer.message_id,
                    reply_to=message_id,
                    agent=self.agents.get(answer.message_id, ""),
                    content="",
                    thinking="",
                    attempt=turn.attempt,
                )
                return active, answer.since
        return None

    def kept(self, epoch: str, upto: int) -> bytes:
        """The view to be kept: of the log with that epoch, every fact up to `upto` taken in.

        Raises OverflowError or TypeError for what JSON holds and this cannot.
        """
        view = msgspec.structs.replace(
            self,
            session=msgspec.structs.replace(self.session, ended={}),
            messages=[(seq, shown if len(shown) < LONG else b"") for seq, shown in self.messages],
        )
        ended = [packed(message_id) for message_id in self.session.ended]
        return msgspec.msgpack.encode(_Kept(FORMAT, epoch, upto, ended, view))

    @classmethod
    def again(cls, kept: bytes, epoch: str) -> tuple[Self, int] | None:
        """A kept view and how far it goes; None for what is none, or is of another log."""
        try:
            read = _kept.decode(kept)
            if (read.format, read.epoch) != (FORMAT, epoch):
                return None
            ended = [unpacked(message_id) for message_id in read.ended]
        except (msgspec.DecodeError, ValueError):
            return None
        view = read.view
        view.session.ended = dict.fromkeys(ended, "completed")
        return view, read.upto  # type: ignore[return-value] # nobody derives from it

    def _is_repeated(self, event: AnyEvent) -> bool:
        session = self.session
        match event:
            case events.Message(message_id=message_id):
                return message_id in session.turns or message_id in session.ended
            case events.StreamEnd(message_id=message_id, reply_to=reply_to) if turn := session.turns.get(reply_to):
                closed = turn.answers.get(message_id)
                return closed is not None and closed.end is not None
        return False

    def _repeated(self, seq: int) -> None:
        self.repeats = [*self.repeats[-REPEATS + 1 :], seq]

    def _show(self, seq: int, message: bytes) -> None:
        self.messages.append((seq, message))
        if len(self.messages) > MESSAGES + 1:
            del self.messages[0]
            self.more = True

    def _claimed(self, reply_to: str) -> None:
        """Whatever stands before a claimed message without a claim had ended before it was stored again."""
        if not self.forgot or reply_to not in self.session.turns:
            return
        for message_id in tuple(self.session.turns):
            if message_id == reply_to:
                return
            self.drop(message_id)

    def drop(self, message_id: str) -> None:
        """The open message was stored before and has ended, which was forgotten. Claimed ones stay."""
        turn = self.session.turns[message_id]
        if turn.claim:
            return
        del self.session.turns[message_id]
        self.session.ended[message_id] = "completed"
        self.messages = [message for message in self.messages if message[0] != turn.seq]
        self._repeated(turn.seq)

    def _turn_ended(self) -> None:
        answers = {message_id for turn in self.session.turns.values() for message_id in turn.answers}
        self.agents = {message_id: agent for message_id, agent in self.agents.items() if message_id in answers}
        ended = self.session.ended
        while len(ended) > REMEMBERED:
            del ended[next(iter(ended))]
            self.forgot = True

    def _updated(self, event: events.SessionUpdated) -> None:
        self.created = self.created or event
        if self.is_deleted:
            self.session = Session(about=event)
            self.messages, self.more = [], False
            self.agents, self.requests, self.workflows, self.repeats = {}, {}, {}, []


class _Kept(Struct, frozen=True, array_like=True):
    format: int
    epoch: str
    upto: int
    ended: list[Any]
    view: View


_kept = msgspec.msgpack.Decoder(_Kept)
_MADE = re.compile(r"m_[0-9a-f]{32}")


def packed(message_id: str) -> bytes | str:
    """An id in less than half of the bytes, where it is one that an edge made."""
    return bytes.fromhex(message_id[2:]) if _MADE.fullmatch(message_id) else message_id


def unpacked(stored: object) -> str:
    """The id again. Raises ValueError for what is none."""
    if isinstance(stored, bytes):
        return f"m_{stored.hex()}"
    if isinstance(stored, str):
        return stored
    raise ValueError("not an id")


def answer(event: events.StreamEnd) -> bytes:
    """An answer as a message of the session, JSON."""
    shown: dict[str, Any] = {
        "message_id": event.message_id,
        "role": "assistant",
        "content": event.content,
        "reply_to": event.reply_to,
        "finish_reason": event.finish_reason,
        "timestamp": event.timestamp,
        **({"thinking": event.thinking} if event.thinking else {}),
    }
    return msgspec.json.encode(shown)


def shown_as(stored: bytes | None) -> bytes | None:
    """What is shown of a stored event in a list of messages, JSON; None for what is no message."""
    event = events.decode(stored) if stored else None
    if isinstance(event, events.StreamEnd):
        return answer(event)
    return stored if isinstance(event, events.Message) else None
