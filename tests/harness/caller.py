"""A client as people run it: stays with its session, reconnects with its cursor, sends again what nobody confirmed."""

import asyncio
import json
import random
import uuid
from collections.abc import Callable, Sequence

import websockets
from websockets.asyncio.client import ClientConnection, connect

from tests.harness.client import socket_url
from tests.harness.history import Connection, Frame, History, Sent

OPEN_TIMEOUT = 2.0
PING = 1.0
"""Seconds between its pings: a paused edge is left after two of them."""

AGAIN = (0.02, 0.2)
FINAL = frozenset({"turn_in_progress", "session_closed", "bad_request", "too_large"})
"""Codes after which a message is not sent again: it was refused."""

Approve = Callable[[Frame], bool | None]


class Caller:
    """One client of one session, on any of the edges. Decides on tool calls with `approve`; None leaves it open."""

    def __init__(self, history: History, edges: Callable[[], Sequence[str]], who: tuple[str, str, str]) -> None:
        self.tenant, self.session_id, self.token = who
        self.approve: Approve | None = None
        self.ended: set[str] = set()
        self.events: list[Frame] = []
        self._history = history
        self._edges = edges
        self._after: tuple[int, int] | None = None
        self._cursor: str | None = None
        self._socket: ClientConnection | None = None
        self._connection: Connection | None = None
        self._sent: dict[str, Sent] = {}
        self._unconfirmed: dict[str, tuple[Sent, str]] = {}
        self._confirmed: dict[str, asyncio.Future[None]] = {}
        self._undecided: dict[str, Frame] = {}
        self._again: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Stay connected until cancelled."""
        while True:
            url = socket_url(random.choice(self._edges()), self.session_id, self.token, self._cursor)
            try:
                async with connect(
                    url,
                    compression=None,
                    max_size=None,
                    open_timeout=OPEN_TIMEOUT,
                    close_timeout=0.2,
                    ping_interval=PING,
                    ping_timeout=PING,
                ) as socket:
                    self._connection = self._history.connected(self.tenant, self.session_id, self._after)
                    self._socket = socket
                    for sent, policy in self._unconfirmed.values():
                        await self._send_message(sent, policy)
                    async for data in socket:
                        await self._take(json.loads(data))
            except (OSError, TimeoutError, websockets.WebSocketException, EOFError):
                pass
            finally:
                self._socket = None
            await asyncio.sleep(random.uniform(*AGAIN))

    async def say(self, content: object, policy: str = "enqueue", sent: Sent | None = None) -> Sent:
        """Send a message until it is accepted or refused; with `sent`, that one again."""
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
        if self._socket:
            self._socket.transport.abort()

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
            if self._socket:
                await self._socket.send(json.dumps(frame))
        except websockets.ConnectionClosed:
            pass  # `run` sends it again

    async def _take(self, frame: Frame) -> None:
        assert self._connection
        self._connection.frames.append(frame)
        if frame["type"] in ("snapshot", "replay_complete") or ("id" in frame and "cursor" in frame):
            self._cursor = frame["cursor"]
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
            entry[0].outcome = "refused"
            self._confirmed.pop(name).set_result(None)
        elif name in self._unconfirmed or name in self._undecided:
            task = asyncio.create_task(self._once_more(name))
            self._again.add(task)
            task.add_done_callback(self._again.discard)

    async def _once_more(self, name: str) -> None:
        await asyncio.sleep(AGAIN[1])
        if entry := self._unconfirmed.get(name):
            await self._send_message(*entry)
        elif request := self._undecided.get(name):
            await self._decide(request)
