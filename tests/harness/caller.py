"""A client as people run it: stays with its session, reconnects with its cursor, sends again what nobody confirmed."""

import asyncio
import json
import random
import uuid
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any

import httpx
import websockets

from tests.harness.history import Connection, Frame, History, Sent
from tests.harness.transports import Many, Socket, Stream, Transport, opened

AGAIN = (0.02, 0.2)
FINAL = frozenset({"turn_in_progress", "session_closed", "bad_request", "too_large"})
"""Codes after which a message is not sent again: it was refused."""

Approve = Callable[[Frame], bool | None]


class Caller:
    """One client of one session, on any of the edges. Decides on tool calls with `approve`; None leaves it open.

    Each connection is of one of the `transports`, by chance.
    """

    def __init__(
        self,
        history: History,
        edges: Callable[[], Sequence[str]],
        who: tuple[str, str, str],
        transports: Sequence[str] = (Socket.kind, Many.kind, Stream.kind),
    ) -> None:
        self.tenant, self.session_id, self.token = who
        self.agent = ""
        self.approve: Approve | None = None
        self.ended: set[str] = set()
        self.events: list[Frame] = []
        self._history = history
        self._edges = edges
        self._after: tuple[int, int] | None = None
        self._cursor: str | None = None
        self._joined = asyncio.Event()
        self._open: Transport | None = None
        self._transports = transports
        self._connection: Connection | None = None
        self._sent: dict[str, Sent] = {}
        self._unconfirmed: dict[str, tuple[Sent, str]] = {}
        self._confirmed: dict[str, asyncio.Future[None]] = {}
        self._undecided: dict[str, Frame] = {}
        self._again: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Stay connected until cancelled."""
        while True:
            kind, edge = random.choice(self._transports), random.choice(self._edges())
            try:
                async with opened(kind, edge, (self.session_id, self.token), self._cursor, self._react) as transport:
                    await self._follow(transport)
            except (OSError, TimeoutError, websockets.WebSocketException, EOFError, httpx.HTTPError):
                pass
            finally:
                self._open = None
                for task in self._again:
                    task.cancel()  # the next connection says it again
                await asyncio.gather(*self._again, return_exceptions=True)
            await asyncio.sleep(random.uniform(*AGAIN))

    async def _follow(self, transport: Transport) -> None:
        self._connection = self._history.connected(self.tenant, self.session_id, self._after, transport.kind)
        if transport.kind != Many.kind:
            self._say_again(transport)
        async with aclosing(transport.frames()) as frames:
            async for frame in frames:
                await self._take(frame)
                if frame["type"] == "subscribed":
                    self._say_again(transport)

    def _say_again(self, transport: Transport) -> None:
        """What nobody has confirmed, now that it would be taken."""
        self._open = transport
        for sent, policy in tuple(self._unconfirmed.values()):
            self._later(self._send_message(sent, policy))

    async def say(self, content: object, policy: str = "enqueue", sent: Sent | None = None) -> Sent:
        """Send a message until it is accepted or refused; with `sent`, that one again.

        Not before it knows a place in the log: one that loses its first connection without is later told what was
        said in a snapshot, which does not show that the turn has ended.
        """
        await self._joined.wait()
        text = content if isinstance(content, str) else json.dumps(content)
        if sent is None:
            sent = Sent(self.session_id, uuid.uuid4().hex, text)
            self._history.sent.append(sent)
        self._sent[sent.client_message_id] = sent
        self._unconfirmed[sent.client_message_id] = sent, policy
        done = self._confirmed[sent.client_message_id] = asyncio.get_running_loop().create_future()
        await self._send_message(sent, policy)
        await done
        return sent

    async def cancel(self, message_id: str | None = None) -> None:
        """Ask for a turn to stop, once."""
        await self._send({"type": "cancel", **({"message_id": message_id} if message_id else {})})

    async def drop(self) -> None:
        """Lose the connection; `run` makes another."""
        if self._open:
            self._open.abort()

    def of(self, *types: str) -> list[Frame]:
        """The events of these types that it was sent, in order."""
        return [frame for frame in self.events if frame["type"] in types]

    def has(self, event_id: str) -> bool:
        """Whether it was sent that event."""
        return any(frame["id"] == event_id for frame in reversed(self.events))

    def finish(self) -> None:
        """Everything has ended: what this connection was told must be everything."""
        assert self._connection
        self._connection.is_last = True

    async def _send_message(self, sent: Sent, policy: str) -> None:
        name = sent.client_message_id
        frame = {"type": "message", "content": sent.content, "client_message_id": name, "request_id": name}
        await self._send(frame | {"policy": policy})

    async def _send(self, frame: Frame) -> None:
        try:
            if self._open:
                await self._open.send(frame)
        except (websockets.ConnectionClosed, httpx.HTTPError, RuntimeError):
            pass  # `run` sends it again

    async def _take(self, frame: Frame) -> None:
        assert self._connection
        self._connection.frames.append(frame)
        stands = frame["type"] in ("snapshot", "replay_complete") or ("id" in frame and "cursor" in frame)
        if stands and (self._connection.transport != Many.kind or "session_id" in frame):
            self._cursor = frame["cursor"]
            self._joined.set()
            self._after = (self._connection.number, len(self._connection.frames) - 1)
        if "id" in frame:
            self.events.append(frame)
        await self._react(frame)

    async def _react(self, frame: Frame) -> None:
        match frame:
            case {"type": "snapshot", "approvals": approvals}:
                self._undecided |= {request["tool_call_id"]: request for request in approvals}
            case {"type": "replay_complete"}:
                for request in tuple(self._undecided.values()):
                    await self._decide(request)
            case {"type": "turn_end", "reply_to": message_id}:
                self.ended.add(message_id)
            case {"type": "tool_approval_request", "tool_call_id": call_id}:
                self._undecided[call_id] = frame
                await self._decide(frame)
            case {"type": "tool_approval" | "tool_result", "tool_call_id": call_id}:
                self._undecided.pop(call_id, None)
            case {"type": "message_accepted", "client_message_id": name, "message_id": message_id}:
                self._told(name, message_id)
            case {"type": "error", "code": code, "request_id": name}:
                self._refused(name, code)

    async def _decide(self, request: Frame) -> None:
        approved = self.approve(request) if self.approve else None
        if approved is not None:
            call_id = request["tool_call_id"]
            frame = {"type": "tool_approval", "tool_call_id": call_id, "approved": approved, "request_id": call_id}
            await self._send(frame)

    def _told(self, name: str, message_id: str) -> None:
        self._sent[name].outcome = "accepted"
        self._sent[name].message_ids.append(message_id)
        if self._unconfirmed.pop(name, None):
            self._confirmed.pop(name).set_result(None)

    def _refused(self, name: str, code: str) -> None:
        if code in FINAL and (entry := self._unconfirmed.pop(name, None)):
            entry[0].outcome, entry[0].code = "refused", code
            self._confirmed.pop(name).set_result(None)
        elif name in self._unconfirmed or name in self._undecided:
            self._later(self._once_more(name))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._again.add(task)
        task.add_done_callback(self._again.discard)

    async def _once_more(self, name: str) -> None:
        await asyncio.sleep(AGAIN[1])
        if entry := self._unconfirmed.get(name):
            await self._send_message(*entry)
        elif request := self._undecided.get(name):
            await self._decide(request)
