"""The session socket: `GET /api/v1/sessions/{session_id}/ws` (WIRE 1)."""

import asyncio
import contextlib
import logging
import time
from typing import Any

import msgspec
from litestar import WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect

from broker import metrics
from contracts import frames
from contracts.errors import CATALOGUE, Code, MillraceError
from contracts.events import new_id, timestamp
from contracts.frames import ServerFrame
from contracts.subjects import Topic
from edge import commands, join, sessions
from edge.auth import Principal, bearer
from edge.desk import Desk
from edge.failures import error_frame, from_exception
from edge.outbox import Outbox
from edge.protocol import EdgeWebSocket, text_frame
from edge.sessions import Session
from edge.watch import Watch

logger = logging.getLogger(__name__)

TICK = 1.0
"""Seconds between looks at what a connection's time has come for, at most."""

NO_SIGN_OF_LIFE = 4008
GOING_AWAY = 1012


class Closed(Exception):
    """The connection is to be closed with a code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class SessionSocket:
    """One connection to one session, from accepted to closed."""

    def __init__(self, socket: WebSocket[Any, Any, Any], desk: Desk, principal: Principal, session: Session) -> None:
        self._socket = socket
        self._desk = desk
        self._principal = principal
        self._session = session
        self._topic = Topic.session(principal.tenant, session.session_id)
        extensions: Any = socket.scope["extensions"]
        self._protocol: EdgeWebSocket = extensions["millrace.socket"]
        self._outbox = Outbox(self._protocol)
        self._watch: Watch | None = None
        self._lost = asyncio.Event()

    async def run(self) -> None:
        """Serve the connection until either side ends it. Raises Closed with the code to close with."""
        self._send(
            frames.Connected(
                connection_id=new_id(),
                session_id=self._session.session_id,
                agent=self._session.agent,
                heartbeat_interval=self._desk.settings.heartbeat_interval,
                heartbeat_timeout=self._desk.settings.heartbeat_timeout,
                expires_at=self._expires_at,
            )
        )
        tasks = [
            asyncio.create_task(work, name=name)
            for name, work in (("send", self._follow()), ("receive", self._receive()), ("watch", self._tick()))
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, ConnectionError | WebSocketDisconnect):
                raise result

    async def _follow(self) -> None:
        """Join, then stay: start over when the edge itself lost something. Ends when the client is gone."""
        feeds = await join.acquire(self._desk.feeds, join.topics_of(self._principal.tenant, self._session))
        watch = self._watch = Watch(self._desk.epoch, feeds, self._outbox, text_frame)
        watch.on_lost = self._lost.set
        try:
            await join.join(self._desk.broker, watch, self._topic, self._socket.query_params.get("after"))
            while True:
                await self._lost.wait()
                self._lost.clear()
                await join.start_over(self._desk.broker, watch, self._topic, "lost")
        finally:
            watch.leave()
            for feed in feeds:
                await self._desk.feeds.release(feed)

    async def _receive(self) -> None:
        """Take the client's frames one after another. A bad one gets an error, and the socket lives on."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            data: Any = message.get("text") or message.get("bytes") or b""
            await self._outbox.room()
            request_id = None
            try:
                frame = _parse(data)
                request_id = frame.request_id
                await self._handle(frame)
            except MillraceError as error:
                self._fail(error, request_id or _request_id(data))

    async def _tick(self) -> None:
        """Send heartbeats; end a connection that gives no sign of life or whose token has expired."""
        loop = asyncio.get_running_loop()
        interval, timeout = self._desk.settings.heartbeat_interval, self._desk.settings.heartbeat_timeout
        pinged = loop.time()
        while True:
            await asyncio.sleep(min(TICK, interval / 4))
            now = loop.time()
            if self._desk.stop.is_set():
                raise Closed(GOING_AWAY, "restarting")
            if self._principal.expires_at is not None and time.time() >= self._principal.expires_at:
                raise Closed(4001, Code.TOKEN_EXPIRED)
            if now - self._protocol.heard >= timeout:
                raise Closed(NO_SIGN_OF_LIFE, "no sign of life")
            if now - pinged >= interval:
                pinged = now
                self._send(frames.Ping(timestamp=timestamp()))

    async def _handle(self, frame: frames.AnyClientFrame) -> None:
        broker, principal, request_id = self._desk.broker, self._principal, frame.request_id or msgspec.UNSET
        match frame:
            case frames.SendMessage():
                if self._session.is_closed:
                    raise MillraceError(Code.SESSION_CLOSED)
                last_fact = self._watch.readers[0].feed.last_fact if self._watch else None
                accepted = await commands.send_message(broker, principal, self._topic, frame, last_fact)
                self._send(
                    frames.MessageAccepted(
                        session_id=self._topic.id,
                        client_message_id=accepted.client_message_id,
                        message_id=accepted.message_id,
                        cursor=self._watch.cursor if self._watch else "",
                        request_id=request_id,
                    )
                )
            case frames.SendCancel(message_id=message_id):
                await commands.cancel(broker, principal, self._topic, frame)
                self._send(frames.Ack(session_id=self._topic.id, message_id=message_id, request_id=request_id))
            case frames.SendApproval(tool_call_id=call_id):
                await commands.decide_approval(broker, principal, self._topic, frame)
                self._send(frames.Ack(session_id=self._topic.id, tool_call_id=call_id, request_id=request_id))
            case frames.SendAuth(token=token):
                renewed = self._desk.verifier.principal(token)
                if (renewed.tenant, renewed.user_id) != (principal.tenant, principal.user_id):
                    raise MillraceError(Code.FORBIDDEN, "the token names somebody else")
                self._principal = renewed
                self._send(frames.Ack(expires_at=self._expires_at, request_id=request_id))
            case frames.SendPing():
                self._send(frames.Pong(timestamp=timestamp()))
            case frames.SendPong() | frames.SendTyping():
                pass

    @property
    def _expires_at(self) -> str | None:
        expires_at = self._principal.expires_at
        return None if expires_at is None else timestamp(expires_at)

    def _send(self, frame: ServerFrame) -> None:
        self._outbox.put(text_frame(msgspec.json.encode(frame)))

    def _fail(self, error: MillraceError, request_id: str | None) -> None:
        metrics.ERRORS.labels(error.code).inc()
        self._send(error_frame(error, self._topic.id, request_id))


@websocket("/api/v1/sessions/{session_id:str}/ws")
async def session_socket(socket: WebSocket[Any, Any, Any], session_id: str) -> None:
    """Accept first, so that a browser can read the code a refused handshake is closed with."""
    desk: Desk = socket.app.state.desk
    await socket.accept()
    code, reason = 1000, ""
    try:
        token = socket.query_params.get("token") or bearer(socket.headers.get("authorization"))
        principal = desk.verifier.principal(token)
        session = await sessions.find(desk.broker, principal, session_id)
        with metrics.ACTIVE_CONNECTIONS.labels("websocket").track_inprogress(), desk.connected(session_id):
            await SessionSocket(socket, desk, principal, session).run()
    except Closed as closed:
        code, reason = closed.code, str(closed)
    except WebSocketDisconnect:
        return
    except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a code
        known = from_exception(error)
        code, reason = CATALOGUE[known.code].close or GOING_AWAY, known.code
    with contextlib.suppress(Exception):  # the client may be gone already
        await socket.send({"type": "websocket.close", "code": code, "reason": reason})


def _parse(data: str | bytes) -> frames.AnyClientFrame:
    try:
        frame: frames.AnyClientFrame = frames.client_decoder.decode(data)
    except msgspec.ValidationError as error:
        tag = _field(data, "type")
        if isinstance(tag, str) and tag not in frames.CLIENT_TAGS:
            raise MillraceError(Code.UNKNOWN_TYPE, f"unknown type {tag:.64}") from None
        raise MillraceError(Code.BAD_REQUEST, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MillraceError(Code.BAD_REQUEST, f"not a JSON object: {error}") from None
    return frame


def _request_id(data: str | bytes) -> str | None:
    request_id = _field(data, "request_id")
    return request_id if isinstance(request_id, str) and len(request_id) <= 128 else None


def _field(data: str | bytes, name: str) -> object:
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found.get(name) if isinstance(found, dict) else None
