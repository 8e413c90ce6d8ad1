"""Answer: one text that is streamed to the clients and recorded whole."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from agent_runner.journal import ROOM, Journal
from agent_runner.model import Piece, Said
from agent_runner.outgoing import Kind, Outgoing
from agent_runner.state import State
from broker.connect import Unavailable
from broker.hold import Hold
from broker.read import read
from contracts import events, session

PART = 65_536
"""Characters that are counted and streamed at a time: what a producer gives at once may be of any size."""


class Answer:
    """The answer at one place of a turn. Without any piece there is none."""

    def __init__(self, journal: Journal, place: int) -> None:
        self._journal = journal
        self.id = journal.id("a", place)
        self._fresh = False  # whether what the log holds of it was streamed by this try
        self._texts: dict[Kind, str] = {"text": "", "thinking": ""}
        self._size = 0

    @property
    def recorded(self) -> events.StreamEnd | None:
        """The end that an earlier attempt recorded."""
        answer = self._journal.turn.answers.get(self.id)
        return answer.end if answer else None

    @property
    def is_open(self) -> bool:
        """Whether something of it was streamed."""
        return self.id in self._journal.turn.answers

    @property
    def text(self) -> str:
        """What was streamed by this try."""
        return self._texts["text"]

    @property
    def thinking(self) -> str | None:
        """What was thought aloud."""
        return self._texts["thinking"] or None

    async def stream(self, pieces: AsyncGenerator[Piece | Said]) -> Said:
        """Stream the pieces. What an earlier attempt or try had streamed is void first.

        One that would exceed the largest event ends before that, with `length`. Raises MillraceError `turn_limit`;
        then nothing beyond the limit was streamed, however large the pieces are.
        """
        journal = self._journal
        said, self._size = Said(), 0
        async with Outgoing(journal.put_delta, journal.holding.session_id, self.id) as outgoing, aclosing(pieces):
            async for piece in pieces:
                if isinstance(piece, Said):
                    said = piece
                elif not await self._push(piece, outgoing):
                    said = Said("length")
                    break
        self._texts = {"text": outgoing.whole("text"), "thinking": outgoing.whole("thinking")}
        return said

    async def _push(self, piece: Piece, outgoing: Outgoing) -> bool:
        """Whether all of it has room in the largest event, with what was streamed before."""
        journal = self._journal
        for at in range(0, len(piece.text), PART):
            part = piece.text[at : at + PART]
            size = json_bytes(part)
            self._size += size
            if self._size > journal.hold.broker.max_event_bytes - ROOM:
                return False
            journal.spend("bytes", size)
            await self._begin()
            await outgoing.push(part, piece.kind)
        return True

    async def _begin(self) -> None:
        if self._fresh:
            return
        if self.is_open:
            await self.reset("a new attempt")
        else:
            start = events.StreamStart(**self._journal.reply, message_id=self.id, agent=self._journal.name)
            await self._journal.put(start)
        self._fresh = True

    async def reset(self, reason: str) -> None:
        """Tell that what was streamed is void, if anything was."""
        journal = self._journal
        if self.is_open:
            reset = events.StreamReset(**journal.base, message_id=self.id, attempt=journal.turn.attempt, reason=reason)
            await journal.put(reset)
        self._fresh = self.is_open

    async def end(self, said: Said, text: str | None = None, thinking: str | None = None) -> None:
        """Record it whole; another text than what was streamed by this try if given."""
        end = events.StreamEnd(
            **self._journal.reply,
            message_id=self.id,
            content=self.text if text is None else text,
            thinking=self.thinking if text is None else thinking,
            finish_reason=said.finish_reason,
            usage=said.usage,
        )
        await self._journal.put(end)


def json_bytes(*texts: str | None) -> int:
    """How many bytes those texts take in an event."""
    return sum(len(msgspec.json.encode(text)) - len('""') for text in texts if text)


async def close(hold: Hold[State], base: dict[str, Any], answer: session.Answer, reason: events.FinishReason) -> None:
    """End an open answer with what was streamed of it, also by an earlier attempt. Its turn is about to end."""
    texts: dict[Kind, list[str]] = {"text": [], "thinking": []}
    decided = hold.seq
    try:
        async for records in read(hold.broker, hold.topic.delta, answer.since):
            for record in records:
                delta = events.decode(record.data)
                if isinstance(delta, events.StreamDelta) and delta.message_id == answer.message_id:
                    texts[delta.kind].append(delta.delta)
    except (Unavailable, TimeoutError):
        return await hold.look()  # waits for the broker; then it is decided again
    end = events.StreamEnd(
        **base,
        message_id=answer.message_id,
        content="".join(texts["text"]),
        thinking="".join(texts["thinking"]) or None,
        finish_reason=reason,
    )
    if hold.seq == decided:  # another holder may have folded what makes this one's word void: it is decided again
        await hold.append(end)
