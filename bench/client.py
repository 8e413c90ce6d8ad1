"""A pool of WebSocket clients that runs scripted turns and checks every delta on arrival.

It drives whatever speaks the session socket of WIRE.md section 1, by websockets' sans-I/O protocol
inside `asyncio.Protocol`: a frame is looked at in the very callback that received its bytes, so a
latency holds no task switch of the client. Deflate is off.
"""

import asyncio
import http.client
import json
import time
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from secrets import token_hex
from typing import cast

import msgspec
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from bench.turn import Incoming, Turn

CONNECT_LIMIT = 15.0


class Session(asyncio.Protocol):
    """One socket on one session; runs one turn at a time."""

    def __init__(self, uri: str, token: str, latencies: "array[int]") -> None:
        self._ws = ClientProtocol(parse_uri(uri), max_size=None)
        self._token = token
        self._latencies = latencies
        self._decode = msgspec.json.Decoder(Incoming).decode
        self._transport: asyncio.Transport | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.turn: Turn | None = None
        self.strays = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        request = self._ws.connect()
        request.headers["Authorization"] = f"Bearer {self._token}"
        self._ws.send_request(request)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Stamp and read every frame in `data`."""
        self._ws.receive_data(data)
        for event in self._ws.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT and event.fin:
                self._frame(time.monotonic_ns(), event.data)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what waits on this socket; nothing reconnects in a measurement."""
        reason = f"closed with {self._ws.close_code}: {self._ws.handshake_exc or exc or ''}"
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(reason))
        if self.turn is not None:
            self.turn.end(time.monotonic_ns(), reason)

    async def run(self, program: str, limit: float = 30.0) -> Turn:
        """Send `program` and return what came back by its `turn_end`, or after `limit` seconds."""
        turn = self.turn = Turn(self._latencies)
        message = {"type": "message", "content": program, "client_message_id": token_hex(8)}
        turn.client_message_id = message["client_message_id"]
        turn.sent = time.monotonic_ns()
        self._ws.send_text(msgspec.json.encode(message))
        self._flush()
        try:
            async with asyncio.timeout(limit):
                await turn.done
        except TimeoutError:
            turn.end(time.monotonic_ns(), "no turn_end")
        return turn

    def cancel(self) -> None:
        """Ask for the running turn to stop."""
        self._ws.send_text(b'{"type":"cancel"}')
        self._flush()

    def close(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _frame(self, now: int, data: bytes | bytearray | memoryview) -> None:
        frame = self._decode(data)
        if frame.type == "replay_complete" and not self.ready.done():
            self.ready.set_result(None)
        elif self.turn is not None and not self.turn.take(frame, now):
            self.strays += 1

    def _flush(self) -> None:
        assert self._transport is not None
        for part in self._ws.data_to_send():
            if part:
                self._transport.write(part)


def create_sessions(port: int, token: str, count: int, agent: str | None = None) -> list[str]:
    """The ids of `count` new sessions of an agent, made by REST one after another."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    ids, about = [], json.dumps({"agent": agent} if agent else {})
    for _ in range(count):
        connection.request("POST", "/api/v1/sessions", about, headers)
        response = connection.getresponse()
        body = response.read()
        if response.status != 201:
            raise RuntimeError(f"POST /sessions: {response.status} {body[:200]!r}")
        ids.append(json.loads(body)["session_id"])
    connection.close()
    return ids


class Pool:
    """`count` connected sessions and the latency of every delta they received, in ns."""

    def __init__(self, sessions: list[Session], latencies: "array[int]") -> None:
        self.sessions = sessions
        self.latencies = latencies

    @property
    def strays(self) -> int:
        """Frames that belonged to no running turn though they should have."""
        return sum(session.strays for session in self.sessions)


@asynccontextmanager
async def connected(port: int, tokens: Sequence[str], count: int, agent: str | None = None) -> AsyncIterator[Pool]:
    """`count` sessions spread over the users of `tokens`, past `replay_complete`."""
    loop = asyncio.get_running_loop()
    latencies = array("q")
    sessions: list[Session] = []
    share = -(-count // len(tokens))
    try:
        for token in tokens:
            wanted = min(share, count - len(sessions))
            for session_id in await asyncio.to_thread(create_sessions, port, token, wanted, agent):
                uri = f"ws://127.0.0.1:{port}/api/v1/sessions/{session_id}/ws"
                protocol = partial(Session, uri, token, latencies)
                _, session = await loop.create_connection(protocol, "127.0.0.1", port)
                sessions.append(session)
                async with asyncio.timeout(CONNECT_LIMIT):
                    await session.ready
        yield Pool(sessions, latencies)
    finally:
        for session in sessions:
            session.close()
