"""REST: sessions created, found and listed (WIRE 3)."""

from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, post
from msgspec import Meta, Struct

from contracts.depth import is_too_deep
from contracts.errors import Code, MillraceError
from contracts.events import new_id
from contracts.frames import Token
from edge import sessions
from edge.auth import Principal, bearer
from edge.desk import Desk
from edge.sessions import Session

LIST_LIMIT = 50
BODY_BYTES = 64 * 1024


class NewSession(Struct, frozen=True, forbid_unknown_fields=True):
    """What a client may say of a session that it creates."""

    session_id: Token | None = None
    agent: Token | None = None
    title: Annotated[str, Meta(max_length=200)] | None = None
    project_id: Token | None = None
    metadata: dict[str, Any] | None = None


_new_session = msgspec.json.Decoder(NewSession)


@post("/api/v1/sessions")
async def create_session(request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
    """201 with the new session; 200 where that id is the caller's already."""
    desk, principal = _desk(request), _principal(request)
    body = await request.body()
    if len(body) > BODY_BYTES:
        raise MillraceError(Code.TOO_LARGE)
    try:
        new = _new_session.decode(body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MillraceError(Code.BAD_REQUEST, str(error)) from None
    if is_too_deep(new.metadata):
        raise MillraceError(Code.BAD_REQUEST, "JSON that is nested too deeply")
    agent = new.agent or desk.config.default_agent
    if agent not in desk.config.agents:
        raise MillraceError(Code.BAD_REQUEST, f"there is no agent {agent}")
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
    return Response(_shown(desk, session), status_code=201 if created else 200)


@get("/api/v1/sessions")
async def list_sessions(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """The caller's sessions, newest first."""
    desk, principal = _desk(request), _principal(request)
    found = await sessions.list_own(desk.broker, principal, LIST_LIMIT)
    return {"items": [_shown(desk, session) for session in found], "next": None}


@get("/api/v1/sessions/{session_id:str}")
async def get_session(request: Request[Any, Any, Any], session_id: str) -> dict[str, Any]:
    """One of the caller's sessions."""
    desk, principal = _desk(request), _principal(request)
    return _shown(desk, await sessions.find(desk.broker, principal, session_id))


def _desk(request: Request[Any, Any, Any]) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


def _principal(request: Request[Any, Any, Any]) -> Principal:
    return _desk(request).verifier.principal(bearer(request.headers.get("authorization")))


def _shown(desk: Desk, session: Session) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(session)
    shown["state"] = desk.state_of(session.session_id, session.state)
    return shown
