"""The sockets: one for one session, `GET /api/v1/sessions/{session_id}/ws`, and one for many, `GET /api/v1/ws`."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from litestar import WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.params import FromPath
from msgspec import UNSET

from broker import metrics
from contracts import frames
from contracts.errors import CATALOGUE, Code, MillraceError
from edge import handshake, join
from edge.connection import GOING_AWAY, Connection
from edge.desk import Desk
from edge.dispatch import dispatch, named, parse
from edge.failures import from_exception
from edge.handshake import Arrival
from edge.principal import Principal
from edge.protocol import EdgeWebSocket
from edge.spelling import WEBSOCKET, Spelling
from edge.subscription import Subscription

GRACE = 2.0
"""Seconds that a client has to take what waits for it, and the close frame, before its connection is cut."""

MOST_SESSIONS = 100
"""Sessions that one socket may follow."""

Socket = WebSocket[Any, Any, Any]


class SocketConnection(Connection):
    """A connection over a WebSocket."""

    def __init__(
        self, socket: Socket, desk: Desk, principal: Principal, arrival: Arrival, spelling: Spelling = WEBSOCKET
    ) -> None:
        self._socket = socket
        extensions: Any = socket.scope["extensions"]
        self._protocol: EdgeWebSocket = extensions["millrace.socket"]
        super().__init__(desk, principal, self._protocol, spelling, device=arrival.device)

    async def run(self) -> None:
        """Take the client's frames one after another until either side ends. A bad one gets an error."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if self.closing:
                continue
            data: Any = message.get("text") or message.get("bytes") or b""
            await self.outbox.room()
            request_id = session_id = None
            try:
                self.desk.limiter.received(self.principal, len(data))
                frame = self.parse(data)
                request_id = frame.request_id
                session_id = None if frame.session_id is UNSET else frame.session_id
                await self.handle(frame)
            except MillraceError as error:
                self.fail(error, session_id or self.default_session, request_id or named(data, "request_id"))

    default_session: str | None = None
    """The session that errors are told of where a frame names none."""

    def parse(self, data: str | bytes) -> frames.AnyClientFrame:
        """The frame. Raises MillraceError."""
        return parse(data)

    async def handle(self, frame: frames.AnyClientFrame) -> None:
        """Do what one frame asks for. Raises MillraceError."""
        raise NotImplementedError

    @property
    def heard(self) -> float:
        """When anything came over the socket, pongs included."""
        return self._protocol.heard

    def connected(self, session_id: str | None, agent: str | None) -> None:
        """Send the first frame."""
        settings = self.desk.settings
        self.send(
            frames.Connected(
                connection_id=self.connection_id,
                session_id=session_id,
                agent=agent,
                heartbeat_interval=settings.heartbeat_interval,
                heartbeat_timeout=settings.heartbeat_timeout,
                expires_at=self.expires_at,
            )
        )

    def hang_up(self, code: int, reason: str) -> None:
        """Have the close frame sent; the handler ends when the client has answered it, or was cut off."""
        self.desk.spawn(self._hang_up(code, reason))

    async def _hang_up(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(GRACE):
                await self.outbox.flushed()
                await self._socket.send({"type": "websocket.close", "code": code, "reason": reason})
        except (TimeoutError, OSError, RuntimeError):  # it takes nothing any more, or has gone
            self._protocol.abort()


class SessionSocket(SocketConnection):
    """One session, from accepted to closed."""

    subscription: Subscription

    async def serve(self, session_id: str, arrival: Arrival) -> None:
        """Serve until either side ends. Raises MillraceError where the session may not be followed."""
        session = await self.find(session_id)
        self.default_session = session_id
        self.connected(session_id, session.agent)
        try:
            self.subscription = self.enter(session, arrival.takeover)
            self.subscription.follow(arrival.after)
            await self.run()
        finally:
            await self.end()

    async def handle(self, frame: frames.AnyClientFrame) -> None:
        """Do it in this session; a frame that names another is refused."""
        if frame.session_id not in (UNSET, self.subscription.topic.id):
            raise MillraceError(Code.BAD_REQUEST, "this socket is another session's")
        await dispatch(self, frame, self.subscription)


class MultiplexSocket(SocketConnection):
    """Many sessions over one socket, and once the user's and the tenant's events."""

    transport = "multiplex"

    async def serve(self, arrival: Arrival) -> None:
        """Serve until either side ends."""
        self.principal.require("read")
        self.connected(None, None)
        try:
            await self.follow_topics(join.own_topics(self.principal), arrival.after)
            await self.run()
        finally:
            await self.end()

    async def handle(self, frame: frames.AnyClientFrame) -> None:
        """Do it in the session that it names."""
        session_id = "" if frame.session_id is UNSET else frame.session_id
        match frame:
            case frames.Subscribe():
                await self._subscribe(frame)
            case frames.Unsubscribe():
                if subscription := self.subscriptions.get(session_id):
                    await self.leave(subscription)
                self.send(frames.Unsubscribed(session_id=session_id, code=None, request_id=frame.request_id or UNSET))
            case _:
                await dispatch(self, frame, self.subscriptions.get(session_id))

    async def _subscribe(self, frame: frames.Subscribe) -> None:
        try:
            self.authorise()
            self.desk.limiter.handshake(self.principal)
            if len(self.subscriptions) >= MOST_SESSIONS:
                raise MillraceError(Code.CONNECTION_LIMIT, f"{MOST_SESSIONS} sessions a socket", limit=MOST_SESSIONS)
            if again := self.subscriptions.get(frame.session_id):
                await self.leave(again)
            session = await self.find(frame.session_id)
            subscription = self.enter(session)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a code and the socket stays
            self._refuse(frame.session_id, from_exception(error), frame.request_id)
            return
        self.send(
            frames.Subscribed(session_id=frame.session_id, agent=session.agent, request_id=frame.request_id or UNSET)
        )
        subscription.follow(frame.after)

    def dropped(self, subscription: Subscription, error: MillraceError) -> None:
        """A session cannot be followed any more: the socket stays."""
        self._refuse(subscription.topic.id, error)
        self.desk.spawn(self.leave(subscription))

    def evicted(self, subscription: Subscription, reason: str) -> None:
        """Another connection took its place in the session: the socket stays."""
        if reason == "replaced":
            self.send(frames.Unsubscribed(session_id=subscription.topic.id, code=reason))
            self.desk.spawn(self.leave(subscription))
        else:
            self.dropped(subscription, MillraceError(Code.CONNECTION_LIMIT))

    def _refuse(self, session_id: str, error: MillraceError, request_id: str | None = None) -> None:
        self.send(
            frames.Unsubscribed(
                session_id=session_id,
                code=error.code,
                retryable=error.entry.retryable,
                details=error.details or UNSET,
                request_id=request_id or UNSET,
            )
        )


@websocket("/api/v1/sessions/{session_id:str}/ws")
async def session_socket(socket: Socket, session_id: FromPath[str]) -> None:
    """One session."""

    async def start(desk: Desk, principal: Principal, arrival: Arrival) -> None:
        with SessionSocket(socket, desk, principal, arrival) as connection:
            await connection.serve(session_id, arrival)

    await serve(socket, start)


@websocket("/api/v1/ws")
async def multiplex_socket(socket: Socket) -> None:
    """Many sessions."""

    async def start(desk: Desk, principal: Principal, arrival: Arrival) -> None:
        with MultiplexSocket(socket, desk, principal, arrival) as connection:
            await connection.serve(arrival)

    await serve(socket, start)


async def serve(socket: Socket, start: Callable[[Desk, Principal, Arrival], Awaitable[None]]) -> None:
    """Accept first, so that a browser can read the code a refused handshake is closed with; then serve it."""
    desk: Desk = socket.app.state.desk
    arrival = Arrival.of(socket)
    code, reason = 1000, ""
    await socket.accept()
    try:
        await start(desk, await handshake.admit(desk, arrival), arrival)
    except (ConnectionError, WebSocketDisconnect):
        pass
    except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a code
        known = from_exception(error)
        metrics.ERRORS.labels(known.code).inc()
        code, reason = CATALOGUE[known.code].close or GOING_AWAY, _reason(known)
    with contextlib.suppress(Exception):  # it may be closed already, or the client gone
        await socket.send({"type": "websocket.close", "code": code, "reason": reason})


def _reason(error: MillraceError) -> str:
    wait = (error.details or {}).get("retry_after")
    return error.code if wait is None else f"{error.code}; retry_after={wait}"
