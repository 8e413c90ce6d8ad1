"""Prefix: a topic's facts, folded up to some sequence, for all holders of the topic in this process.

A session may have many: its turn that runs, those that wait behind it, the calls that run side by side. One fold is
enough for them, and whoever is told of a fact that another one has folded need not read it.
"""

import asyncio
from collections import deque
from typing import Generic, Protocol, TypeVar

from contracts.events import AnyEvent

RECENT = 64
"""Facts that are known by their message id to have been folded."""


class Fold(Protocol):
    """State that a holder keeps: what its topic's facts, applied in order, amount to."""

    @property
    def weight(self) -> int:
        """Bytes of memory that it takes, roughly; cheap to ask for."""

    def apply(self, seq: int, event: AnyEvent) -> None:
        """Take in the fact at `seq`."""


F = TypeVar("F", bound=Fold)


class Prefix(Generic[F]):
    """The fold. It is read, and its topic appended to, by whoever has the `lock`: one after another."""

    def __init__(self, state: F, seq: int = 0) -> None:
        self.state = state
        self.seq = seq
        self.number = 0
        """How many facts were folded since it was last kept beside the log."""
        self.holders = 0
        self.lock = asyncio.Lock()
        self._recent: deque[bytes] = deque(maxlen=RECENT)
        self._grown = asyncio.Event()

    def begin_again(self, state: F, seq: int) -> None:
        """Go on from another state."""
        self.state, self.seq = state, seq

    def apply(self, seq: int, event: AnyEvent | None, message_id: bytes) -> None:
        """Take in the next fact; None is one that nobody here can read."""
        if event is not None:
            self.state.apply(seq, event)
            self.number += 1
        self.seq = seq
        if message_id:  # what is stored by hand may have none
            self._recent.append(message_id)

    def knows(self, message_ids: set[bytes]) -> bool:
        """Whether all these were folded lately."""
        return message_ids.issubset(self._recent)

    def forget_recent(self) -> None:
        """Nobody holds it any more: what was folded lately is nobody's news."""
        self._recent.clear()

    def has_grown(self) -> None:
        """Tell those that wait for it."""
        self._grown.set()
        self._grown = asyncio.Event()

    async def growth(self) -> None:
        """Wait until something more is folded."""
        await self._grown.wait()
