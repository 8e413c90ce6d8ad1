"""Outbox: frames waiting to be written to one client, bounded in bytes.

While the transport has room nothing waits here. A log frame that finds no room is refused, and its reader
goes back to the log, from what was last sent: the log is the buffer. Answers to the client's own frames always
find room; who asks for many and reads none is held back by not being read from.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from typing import Protocol

LIMIT = 256 * 1024
"""Bytes of log frames that may wait."""


class Sink(Protocol):
    """Where frames go: a WebSocket's protocol, or an HTTP response."""

    on_room: Callable[[], None] | None

    @property
    def has_room(self) -> bool:
        """Whether more is taken at once."""

    @property
    def is_open(self) -> bool:
        """Whether anything is taken at all."""

    def write_frame(self, frame: bytes) -> None:
        """Write one encoded frame."""


class Source(Protocol):
    """Whose log frame waits: it is told when it is written."""

    def was_sent(self, seq: int) -> None:
        """The frame of the event at `seq` was written."""


class Outbox:
    """What waits for one client, in order."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._waiting: deque[tuple[bytes, Source | None, int]] = deque()
        self._bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._empty = asyncio.Event()
        sink.on_room = self._flush

    @property
    def has_room(self) -> bool:
        """Whether a log frame would be taken."""
        return self._bytes < LIMIT

    @property
    def waiting_bytes(self) -> int:
        """What waits, in bytes."""
        return self._bytes

    @property
    def is_waiting(self) -> bool:
        """Whether anything waits."""
        return bool(self._waiting)

    def put(self, frame: bytes, source: Source | None = None, seq: int = 0) -> None:
        """Write the frame now, or as soon as there is room. `source`: it is a log frame, the one of `seq`.

        An empty frame is not written, and its source is told when it would have been.
        """
        if not self._waiting and self._sink.has_room:
            if frame:
                self._sink.write_frame(frame)
            if source:
                source.was_sent(seq)
            return
        self._waiting.append((frame, source, seq))
        self._bytes += len(frame)
        if self._bytes >= LIMIT:
            self._room.clear()

    async def room(self) -> None:
        """Wait until a log frame would be taken. Raises ConnectionError when the client is gone."""
        while not self._room.is_set():
            await self._room.wait()
        if not self._sink.is_open:
            raise ConnectionError

    async def flushed(self) -> None:
        """Wait until nothing waits. Raises ConnectionError when the client is gone."""
        while self._waiting:
            self._empty.clear()
            await self._empty.wait()
        if not self._sink.is_open:
            raise ConnectionError

    def drop_frames_of(self, sources: Collection[Source]) -> None:
        """Forget the log frames of these that wait; what else waits stays, the answers to the client first of all."""
        self._waiting = deque(entry for entry in self._waiting if entry[1] not in sources)
        self._count()

    def _flush(self) -> None:
        if not self._sink.is_open:
            self._waiting.clear()
        while self._waiting and self._sink.has_room:
            frame, source, seq = self._waiting.popleft()
            if frame:
                self._sink.write_frame(frame)
            if source:
                source.was_sent(seq)
        self._count()

    def _count(self) -> None:
        self._bytes = sum(len(frame) for frame, _, _ in self._waiting)
        if self._bytes < LIMIT // 2 or not self._sink.is_open:
            self._room.set()
        if not self._waiting:
            self._empty.set()
