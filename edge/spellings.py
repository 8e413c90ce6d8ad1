"""The routes of the other dialects (WIRE 4): each is a connection with another spelling."""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any

from litestar import Response, get, websocket
from litestar.params import FromPath, FromQuery

from broker.feed import Item
from contracts import events
from contracts.errors import Code, MillraceError
from contracts.frames import AnyClientFrame
from contracts.subjects import Topic, is_token
from edge import join, sessions
from edge.desk import Desk
from edge.dialects.agents import Agents
from edge.dialects.llm import Llm
from edge.dialects.project import Project
from edge.dialects.user import User
from edge.dispatch import dispatch
from edge.handshake import Arrival, admit
from edge.principal import Principal
from edge.requests import refusals
from edge.rest import Req
from edge.sessions import Session
from edge.spelling import SSE, WEBSOCKET, InDialect
from edge.sse import EventStream, StreamResponse
from edge.subscription import Subscription
from edge.websocket import SessionSocket, Socket, SocketConnection, serve

PROJECT = slice(3, 4)
"""Where a project's position stands in a session's cursor."""

SESSIONS = 50
"""The user's newest sessions that a stream of all of them follows."""


BEFORE_IT_EXISTS = (0.0, 0.05, 0.2, 1.0, 4.0)
"""Seconds between looks for a session that was just listed: it is listed before it exists."""


class AgentSocket(SessionSocket):
    """A session in the dialect `agents`."""

    dialect = Agents()

    def connected(self, session_id: str | None, agent: str | None) -> None:
        """The dialect has no such frame."""

    def parse(self, data: str | bytes) -> AnyClientFrame:
        """The frame, in the dialect's words."""
        return self.dialect.command(data)


class ProjectSocket(SocketConnection):
    """A project's progress."""

    dialect = Project()

    async def serve(self, project_id: str, arrival: Arrival) -> None:
        """Serve until either side ends."""
        self.principal.require("read")
        if not (is_token(project_id) and self.principal.may_watch(project_id)):
            raise MillraceError(Code.FORBIDDEN, "the project is not among those that the token may watch")
        try:
            await self.follow_topics([Topic.project(self.principal.tenant, project_id)], arrival.after, PROJECT)
            await self.run()
        finally:
            await self.end()

    def parse(self, data: str | bytes) -> AnyClientFrame:
        """The frame, in the dialect's words."""
        return self.dialect.command(data)

    async def handle(self, frame: AnyClientFrame) -> None:
        """Nothing but signs of life."""
        await dispatch(self, frame, None)


class EverySession(EventStream):
    """All sessions of a user, also those that are created later; live only, for there is no cursor for so many."""

    async def begin(self) -> None:
        """Follow them: what is said from now on is told. Raises MillraceError."""
        self.principal.require("read")
        watch = await self.follow_topics(join.own_topics(self.principal), None)
        watch.on_session = self._listed
        found, _ = await sessions.list_own(self.desk.broker, self.principal, SESSIONS, None)
        for session in found:
            self._add(session, None)
        await asyncio.gather(*(subscription.settled() for subscription in tuple(self.subscriptions.values())))

    def _add(self, session: Session, after: str | None) -> None:
        if session.session_id not in self.subscriptions:
            subscription = self.subscriptions[session.session_id] = Subscription(self, session, self.own)
            subscription.follow(after)

    def _listed(self, item: Item) -> None:
        event = events.decode(item.data)
        if isinstance(event, events.SessionListed):
            self.desk.spawn(self._find(event.listed_id))

    async def _find(self, session_id: str) -> None:
        for pause in BEFORE_IT_EXISTS:
            await asyncio.sleep(pause)
            with contextlib.suppress(MillraceError):  # it is not there yet, or is gone already
                session = await self.find(session_id)
                if self.body.is_open:
                    self._add(session, join.FROM_THE_START)  # what was said while it was looked for, too
                return

    def dropped(self, subscription: Subscription, error: MillraceError) -> None:
        """The others are followed on."""
        self.desk.spawn(self.leave(subscription))


@websocket("/ws/agents/{session_id:str}")
async def agents(socket: Socket, session_id: FromPath[str]) -> None:
    """A session in chunks."""

    async def start(desk: Desk, principal: Principal, arrival: Arrival) -> None:
        with AgentSocket(socket, desk, principal, arrival, InDialect(AgentSocket.dialect, WEBSOCKET)) as connection:
            await connection.serve(session_id, arrival)

    await serve(socket, start)


@websocket("/ws/projects/{project_id:str}/status")
async def project_status(socket: Socket, project_id: FromPath[str]) -> None:
    """A project's progress."""

    async def start(desk: Desk, principal: Principal, arrival: Arrival) -> None:
        with ProjectSocket(socket, desk, principal, arrival, InDialect(ProjectSocket.dialect, WEBSOCKET)) as connection:
            await connection.serve(project_id, arrival)

    await serve(socket, start)


@get("/api/v1/sse", tags=["dialects"], summary="What the user and the tenant are told", responses=refusals())
async def own_events(request: Req) -> Response[bytes]:
    """As server-sent events: `message`, `agent_update`, `memory_update`, `error`, `heartbeat`."""
    desk, principal, arrival = await _stays(request)
    connection = EventStream(desk, principal, arrival, InDialect(User(), SSE))
    return await _begun(connection, connection.follow_topics(join.own_topics(principal), arrival.after))


@get(
    "/api/v1/sse/llm",
    tags=["dialects"],
    summary="The text of answers",
    responses=refusals(Code.SESSION_NOT_FOUND, Code.CONNECTION_LIMIT),
)
async def llm(
    request: Req, request_id: FromQuery[str | None] = None, session_id: FromQuery[str | None] = None
) -> Response[bytes]:
    """As server-sent events: `stream_chunk`; of one question, of one session, or of all of the caller's sessions."""
    desk, principal, arrival = await _stays(request)
    spelling = InDialect(Llm(request_id), SSE)
    if session_id is not None:
        connection = EventStream(desk, principal, arrival, spelling)
        session = await connection.find(session_id)
        connection.enter(session, arrival.takeover).follow(arrival.after)
        return StreamResponse(connection)
    every = EverySession(desk, principal, arrival, spelling)
    return await _begun(every, every.begin())


async def _begun(connection: EventStream, begin: Awaitable[object]) -> StreamResponse:
    """The response, when its stream has begun; where it cannot, what it holds is given back."""
    response = StreamResponse(connection)
    try:
        await begin
    except BaseException:
        connection.__exit__()
        await connection.end()
        raise
    return response


async def _stays(request: Req) -> tuple[Desk, Principal, Arrival]:
    desk: Desk = request.app.state.desk
    arrival = Arrival.of(request)
    principal = await admit(desk, arrival)
    principal.require("read")
    return desk, principal, arrival


HANDLERS: list[Any] = [agents, project_status, own_events, llm]
