"""What one message led to, read frame by frame; no I/O."""

import asyncio
from array import array

from msgspec import Struct


class Incoming(Struct):
    """The fields of all server frames that a measurement looks at."""

    type: str
    message_id: str | None = None
    client_message_id: str | None = None
    reply_to: str | None = None
    delta: str = ""
    offset: int = 0
    content: str | None = None
    status: str | None = None
    code: str | None = None


class Turn:
    """A turn whose answer consists of scripted deltas, one line `<i> <monotonic ns> …` each.

    `lost` and `repeated` count deltas against i = 0, 1, 2, … since the last `stream_reset`;
    `misplaced` counts frames whose `offset` is not the characters before them.
    """

    def __init__(self, latencies: "array[int]") -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.client_message_id = ""
        self.status = ""
        self.sent = self.accepted = self.first = self.last = self.ended = 0
        self.starts: list[int] = []
        self.frames = self.received = self.next = self.lost = self.repeated = self.misplaced = 0
        self.resets = self.gaps = 0
        self.content: str | None = None
        self._latencies = latencies
        self._message_id: str | None = None
        self._answer: str | None = None
        self._parts: list[str] = []
        self._chars = 0

    def take(self, frame: Incoming, now: int) -> bool:
        """Account for `frame`; False when it belongs to another turn or comes after the end."""
        match frame.type:
            case "stream_delta":
                return self._delta(frame, now)
            case "turn_start" | "turn_end" if not self._is_ours(frame.reply_to):
                return False
            case "turn_start":
                self.starts.append(now)
            case "turn_end":
                self.end(now, frame.status or "no status")
            case "error" if self._message_id is None:  # refused; later ones end with `turn_end`
                self.end(now, f"error {frame.code}")
            case _:
                self._note(frame, now)
        return True

    def _note(self, frame: Incoming, now: int) -> None:
        match frame.type:
            case "message" | "message_accepted":
                if frame.client_message_id == self.client_message_id:
                    self._message_id = frame.message_id
                    self.accepted = now if frame.type == "message_accepted" else self.accepted
            case "stream_start":
                self._answer = frame.message_id
            case "stream_reset":
                self.resets += 1
                self.next = self._chars = 0
                self._parts.clear()
            case "stream_end":
                self.content = frame.content
            case "resume_gap":
                self.gaps += 1

    def end(self, now: int, status: str) -> None:
        """Fix the status; the first end counts."""
        if not self.done.done():
            self.status, self.ended = status, now
            self.done.set_result(None)

    async def reach(self, deltas: int) -> None:
        """Return when `deltas` of them are here, at the end, or after a minute."""
        for _ in range(30_000):  # an event would cost time at every delta
            if self.next >= deltas or self.done.done():
                return
            await asyncio.sleep(0.002)

    def is_clean(self, deltas: int) -> bool:
        """True when it completed and what was streamed is gapless and equals `stream_end`."""
        faults = self.lost + self.repeated + self.misplaced + self.gaps
        whole = self.content is not None and self.content == "".join(self._parts)
        return self.status == "completed" and faults == 0 and self.next == deltas and whole

    def _is_ours(self, reply_to: str | None) -> bool:
        return not self.done.done() and self._message_id in (None, reply_to)

    def _delta(self, frame: Incoming, now: int) -> bool:
        if self.done.done() or self._answer not in (None, frame.message_id):
            return False
        if not self.first:
            self.first = now
        self.last = now
        text = frame.delta
        self.misplaced += frame.offset != self._chars
        self._chars += len(text)
        self._parts.append(text)
        self.frames += 1
        expected = self.next
        late = self._latencies.append
        for line in text.splitlines():
            index, stamp, *_ = line.split(None, 2)
            late(now - int(stamp))
            i = int(index)
            if i != expected:
                self.lost += max(0, i - expected)
                self.repeated += i < expected
            expected = max(expected, i + 1)
            self.received += 1
        self.next = expected
        return True
