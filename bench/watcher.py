"""A socket that watches one session: what the scenarios of the edge are made of."""

import asyncio
import time
from array import array
from collections.abc import Sequence
from functools import partial
from secrets import token_hex

import msgspec

from bench.client import Session

OPEN_LIMIT = 60.0


class Seen(msgspec.Struct):
    """The fields of a frame that a watcher looks at."""

    type: str
    id: str | None = None
    cursor: str | None = None
    delta: str = ""


class Watcher(Session):
    """Keeps the ids of all events in order, the cursor, and the latency of every scripted delta."""

    def __init__(self, uri: str, token: str, latencies: "array[int]") -> None:
        super().__init__(uri, token, latencies)
        self._seen = msgspec.json.Decoder(Seen).decode
        self.began = time.monotonic_ns()
        self.first_byte = self.joined = 0
        self.ids: list[str] = []
        self.cursor: str | None = None
        self.deltas = 0
        self.ended = asyncio.Event()
        self.reached = asyncio.Event()
        self.goal = 0

    def data_received(self, data: bytes) -> None:
        """Note the first byte."""
        self.first_byte = self.first_byte or time.monotonic_ns()
        super().data_received(data)

    def stall(self) -> None:
        """Read nothing from now on."""
        assert self._transport
        self._transport.pause_reading()

    def say(self, program: str) -> None:
        """Send a message; nobody waits for its turn."""
        self._ws.send_text(
            msgspec.json.encode({"type": "message", "content": program, "client_message_id": token_hex(8)})
        )
        self._flush()

    async def after(self, deltas: int) -> None:
        """Wait until so many deltas were received, or the turn has ended."""
        self.goal = deltas
        if self.deltas < deltas and not self.ended.is_set():
            self.reached.clear()
            await self.reached.wait()

    def _frame(self, now: int, data: bytes | bytearray | memoryview) -> None:
        frame = self._seen(data)
        if frame.id is not None:
            self.ids.append(frame.id)
            self.cursor = frame.cursor
        match frame.type:
            case "replay_complete":
                self.cursor = frame.cursor
                self.joined = now
                if not self.ready.done():
                    self.ready.set_result(None)
            case "stream_delta":
                for line in frame.delta.splitlines():
                    self.deltas += 1
                    self._latencies.append(now - int(line.split(None, 2)[1]))
            case "turn_end":
                self.ended.set()
        if self.deltas >= self.goal or self.ended.is_set():
            self.reached.set()


async def watch(port: int, token: str, session_id: str, latencies: "array[int]", after: str | None = None) -> Watcher:
    """A socket that has joined. Raises OSError or TimeoutError where it is not let in."""
    uri = f"ws://127.0.0.1:{port}/api/v1/sessions/{session_id}/ws" + (f"?after={after}" if after else "")
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(OPEN_LIMIT):
        _, watcher = await loop.create_connection(partial(Watcher, uri, token, latencies), "127.0.0.1", port)
        await watcher.ready
    return watcher


def close(watchers: Sequence[Watcher]) -> None:
    """Drop them all."""
    for watcher in watchers:
        watcher.close()
