"""Reader: who reads a feed, what it is given, and how it came by what it took.

What comes from the log comes without a hole; what comes live may have one, which shows later.
"""

import asyncio
from typing import Protocol

from contracts import events

Span = tuple[int, int]
"""The sequences after the first and up to the second."""


class Item:
    """One stored event. `visible`: clients receive it. `frames` is the readers' to share what they make of it."""

    __slots__ = ("data", "frames", "seq", "type", "visible")

    def __init__(self, seq: int, data: bytes) -> None:
        self.seq = seq
        self.data = data
        self.type = _DELTA_TYPE if data.startswith(_DELTA) else _type_of(data)
        self.visible = self.type != "" and self.type not in events.INTERNAL
        self.frames: dict[tuple[bytes, bytes, object], bytes] = {}


_DELTA_TYPE = "stream_delta"
_DELTA = b'{"type":"stream_delta"'


def _type_of(data: bytes) -> str:
    try:
        return events.type_of(data)
    except ValueError:  # no event: of all readers, it must not harm those who cannot read it
        return ""


class Reader(Protocol):
    """Somebody who reads a feed. `position`: the last sequence taken."""

    position: int

    def deliver(self, item: Item) -> bool:
        """Take a live event, at once; False where there is no room: the reader goes back to the log."""

    async def push(self, item: Item) -> None:
        """Take an event from the log, waiting for room."""

    def rewind(self) -> None:
        """There was no room: set `position` back to what was sent, and have the feed followed from there."""

    def lost(self) -> None:
        """Something between what was taken cannot be given in order any more: start over. It is not followed."""


class Stay:
    """One reader in one feed, from when it is first followed until it leaves. `task`: it is reading the log."""

    __slots__ = ("_live_from", "_spans", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self._live_from: int | None = None
        self._spans: list[Span] = []

    @property
    def is_live(self) -> bool:
        """Whether it is given what comes live."""
        return self._live_from is not None

    def go_live(self, position: int) -> None:
        """From here on it is given what comes live."""
        self._live_from = position

    def go_back(self, position: int) -> None:
        """From here on it reads the log, also what it was given before."""
        if self._live_from is not None:
            self._spans.append((self._live_from, position))
            self._live_from = None
        self._spans = [(low, min(high, position)) for low, high in self._spans if low < position]

    def confirm(self, seq: int) -> None:
        """Whatever of the feed did not come live up to there is known."""
        self._spans = [span for span in self._spans if span[1] > seq]
        if self._live_from is not None:
            self._live_from = max(self._live_from, seq)

    def taken_live(self, position: int, after: int, upto: int) -> list[Span]:
        """What it took live of the sequences after `after` and up to `upto`; it stands at `position`."""
        spans = self._spans if self._live_from is None else [*self._spans, (self._live_from, position)]
        clipped = [(max(low, after), min(high, upto)) for low, high in spans]
        return [(low, high) for low, high in clipped if low < high]
