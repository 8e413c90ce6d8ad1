"""REST: sessions, tickets, and who is connected (WIRE 3)."""

from typing import Annotated, Any

import msgspec
from litestar import Request, Response, delete, get, patch, post
from litestar.params import FromPath, JSONBody, QueryParameter

from contracts.depth import is_too_deep
from contracts.errors import Code, MillraceError
from contracts.events import new_id, timestamp
from edge import sessions
from edge.desk import Desk
from edge.handshake import Arrival, admit
from edge.presence import Entry
from edge.principal import Principal, Scope
from edge.requests import ConnectionShown, Items, NewSession, SessionChange, SessionShown, Ticket, refusals
from edge.sessions import Session

LIST_LIMIT, MOST_LISTED = 50, 200

Req = Request[Any, Any, Any]
Limit = Annotated[int, QueryParameter(ge=1, le=MOST_LISTED, description="Items at most.")]
Before = Annotated[str | None, QueryParameter(max_length=64, description="The `next` of the page before.")]


async def caller(request: Req, scope: Scope = "read") -> tuple[Desk, Principal]:
    """Who asks. Raises MillraceError where that cannot be told, or the scope is not granted."""
    desk: Desk = request.app.state.desk
    principal = await admit(desk, Arrival.of(request), stays=False)
    principal.require(scope)
    desk.limiter.request(principal)
    desk.limiter.received(principal, int(request.headers.get("content-length") or 0))
    return desk, principal


def shown(desk: Desk, tenant: str, session: Session) -> SessionShown:
    """A session as a client is told of it."""
    fields: dict[str, Any] = {name: getattr(session, name) for name in SessionShown.__struct_fields__}
    return SessionShown(**fields | {"state": desk.state_of(tenant, session.session_id, session.state)})


@post("/api/v1/sessions", tags=["sessions"], summary="Create a session", responses=refusals())
async def create_session(request: Req, data: JSONBody[NewSession | None] = None) -> Response[SessionShown]:
    """201 with the new session; 200 where that id is the caller's already."""
    desk, principal = await caller(request, "write")
    new = data or NewSession()
    if is_too_deep(new.metadata):
        raise MillraceError(Code.BAD_REQUEST, "JSON that is nested too deeply")
    agent = new.agent or desk.config.default_agent
    if agent not in desk.config.agents:
        raise MillraceError(Code.BAD_REQUEST, f"there is no agent {agent}")
    if new.project_id and not principal.may_watch(new.project_id):
        raise MillraceError(Code.FORBIDDEN, "the project is not among those that the token may watch")
    wanted = Session(
        session_id=new.session_id or new_id(),
        user_id=principal.user_id,
        agent=agent,
        state="active",
        title=new.title,
        project_id=new.project_id,
        metadata=new.metadata,
        created_at=None,
    )
    session, created = await sessions.create(desk.broker, principal, wanted)
    return Response(shown(desk, principal.tenant, session), status_code=201 if created else 200)


@get("/api/v1/sessions", tags=["sessions"], summary="List one's sessions", responses=refusals())
async def list_sessions(request: Req, limit: Limit = LIST_LIMIT, before: Before = None) -> Items:
    """The caller's sessions, newest first."""
    desk, principal = await caller(request)
    found, after = await sessions.list_own(desk.broker, principal, limit, before)
    return Items([shown(desk, principal.tenant, session) for session in found], after)


@get(
    "/api/v1/sessions/{session_id:str}",
    tags=["sessions"],
    summary="Look at a session",
    responses=refusals(Code.SESSION_NOT_FOUND),
)
async def get_session(request: Req, session_id: FromPath[str]) -> SessionShown:
    """A session that the caller may see."""
    desk, principal = await caller(request)
    return shown(desk, principal.tenant, await sessions.find(desk.broker, principal, session_id))


@patch(
    "/api/v1/sessions/{session_id:str}",
    tags=["sessions"],
    summary="Rename, close or reopen a session",
    responses=refusals(Code.SESSION_NOT_FOUND),
)
async def change_session(request: Req, session_id: FromPath[str], data: JSONBody[SessionChange]) -> SessionShown:
    """The session as it is then. Connected clients are told."""
    desk, principal = await caller(request, "write")
    changes = {name: value for name in ("title", "state") if (value := getattr(data, name)) is not msgspec.UNSET}
    session = await sessions.update(desk.broker, principal, session_id, **changes)
    return shown(desk, principal.tenant, session)


@delete(
    "/api/v1/sessions/{session_id:str}",
    tags=["sessions"],
    summary="Delete a session",
    responses=refusals(Code.SESSION_NOT_FOUND),
)
async def delete_session(request: Req, session_id: FromPath[str]) -> None:
    """From now on it is not found; connected clients are told and closed, and what runs in it is cancelled."""
    desk, principal = await caller(request, "write")
    await sessions.delete(desk.broker, principal, session_id)


@post("/api/v1/tickets", tags=["connections"], summary="Get a ticket for one connection", responses=refusals())
async def create_ticket(request: Req) -> Ticket:
    """For a browser, which cannot send headers with a WebSocket: `?ticket=…` instead of a token in an address."""
    desk, principal = await caller(request)
    ticket, expires_at = await desk.identity.issue_ticket(principal)
    return Ticket(ticket, timestamp(expires_at))


@get(
    "/api/v1/sessions/{session_id:str}/connections",
    tags=["connections"],
    summary="Who is connected to a session",
    responses=refusals(Code.SESSION_NOT_FOUND),
)
async def session_connections(request: Req, session_id: FromPath[str]) -> Items:
    """On whichever edge, the oldest first."""
    desk, principal = await caller(request)
    await sessions.find(desk.broker, principal, session_id)
    return Items([_connection(*found) for found in desk.presence.of_session(principal.tenant, session_id)])


@get("/api/v1/connections", tags=["connections"], summary="One's connections", responses=refusals())
async def own_connections(request: Req) -> Items:
    """The caller's, to whichever edge and session, the oldest first; with the scope `admin` those of the tenant."""
    desk, principal = await caller(request)
    if principal.may("admin"):
        found = desk.presence.of_tenant(principal.tenant)
    else:
        found = desk.presence.of_user(principal.tenant, principal.user_id)
    return Items([_connection(*place) for place in found])


def _connection(entry: Entry, lag: float) -> ConnectionShown:
    return ConnectionShown(
        connection_id=entry.connection_id,
        session_id=entry.session_id,
        user_id=entry.user_id,
        transport=entry.transport,
        device=entry.device,
        since=entry.since,
        lag=round(lag, 3),
    )
