"""Outgoing: the deltas of one answer, with one append in flight.

What is produced while an append is in flight goes into the next one: at low load every delta travels alone, under load
appends grow by themselves. There is no timer and no batch size, only a bound: a producer that is `FULL`
characters ahead waits.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

from contracts import events

FULL = 16_384
"""Characters that may wait; the largest delta is at most that and one piece."""

Kind = Literal["text", "thinking"]
Append = Callable[[events.StreamDelta], Awaitable[None]]


class Outgoing:
    """What was produced of one answer and not appended yet. A context: leaving it flushes it, unless cancelled."""

    def __init__(self, append: Append, session_id: str, message_id: str) -> None:
        self._append = append
        self._session_id = session_id
        self._message_id = message_id
        self._parts: dict[Kind, list[str]] = {"text": [], "thinking": []}
        self._whole: dict[Kind, list[str]] = {"text": [], "thinking": []}
        self._offset: dict[Kind, int] = {"text": 0, "thinking": 0}
        self._waiting = 0
        self._wanted = asyncio.Event()
        self._drained = asyncio.Event()
        self._closed = False
        self._failed = False
        self._sender: asyncio.Task[None] | None = None

    def whole(self, kind: Kind) -> str:
        """Everything produced so far of that kind."""
        return "".join(self._whole[kind])

    async def push(self, text: str, kind: Kind = "text") -> None:
        """Produce the next piece. Waits while too much is waiting; raises what the appending raised."""
        if not text:
            return
        self._whole[kind].append(text)
        self._parts[kind].append(text)
        self._waiting += len(text)
        if not self._wanted.is_set():
            self._wanted.set()
            await asyncio.sleep(0)  # the first piece leaves at once, also of a producer that never waits
        while self._waiting >= FULL and not self._failed:
            self._drained.clear()
            await self._drained.wait()
        if self._failed and self._sender:
            await self._sender

    async def __aenter__(self) -> "Outgoing":
        self._sender = asyncio.create_task(self._send(), name="outgoing")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        assert self._sender
        if kind is not None and not issubclass(kind, Exception):
            self._sender.cancel()  # the turn is to stop: nothing more is said
        self._closed = True
        self._wanted.set()
        if error is None:
            await self._sender
        else:  # an agent that fails has said what it said before
            await asyncio.wait([self._sender])

    async def _send(self) -> None:
        try:
            while True:
                await self._wanted.wait()
                for kind in ("thinking", "text"):
                    if self._parts[kind]:
                        await self._send_one(kind)
                if not self._waiting:
                    if self._closed:
                        return
                    self._wanted.clear()
        except BaseException:
            self._failed = True
            raise
        finally:
            self._drained.set()

    async def _send_one(self, kind: Kind) -> None:
        delta = "".join(self._parts[kind])
        self._parts[kind].clear()
        await self._append(
            events.StreamDelta(
                id=events.new_id(),
                timestamp=events.timestamp(),
                session_id=self._session_id,
                message_id=self._message_id,
                delta=delta,
                offset=self._offset[kind],
                kind=kind,
            )
        )
        self._offset[kind] += len(delta)
        self._waiting -= len(delta)
        self._drained.set()
