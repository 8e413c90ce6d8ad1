"""REST of one session's conversation: events, messages, approvals, cancelling (WIRE 3)."""

from typing import Annotated, Any

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, JSONBody, QueryParameter

from contracts.errors import Code, MillraceError
from contracts.frames import SendApproval, SendCancel, SendMessage
from contracts.subjects import Topic, is_token
from edge import commands, history, join, pages, sessions, turns
from edge.desk import Desk
from edge.folds import fold
from edge.handshake import Arrival, admit
from edge.principal import Principal
from edge.requests import (
    AcceptedMessage,
    Answered,
    CancelAsked,
    Cancelling,
    Decided,
    Decision,
    EventsPage,
    Items,
    MessagesPage,
    NewMessage,
    refusals,
)
from edge.rest import Req, caller
from edge.sessions import Session
from edge.sse import EventStream, StreamResponse

EVENT_STREAM = "text/event-stream"
Limit = Annotated[int, QueryParameter(ge=1, le=pages.MOST, description="Events at most.")]
Few = Annotated[int, QueryParameter(ge=1, le=200, description="Messages at most.")]
After = Annotated[str | None, QueryParameter(max_length=512, description="A cursor; `0` is the beginning.")]
Before = Annotated[str | None, QueryParameter(max_length=64, description="The `before` of a snapshot or a page.")]
Wait = Annotated[bool, QueryParameter(description="Answer when the turn has ended, or after 60 s.")]


@get(
    "/api/v1/sessions/{session_id:str}/events",
    tags=["conversation"],
    summary="Follow a session",
    responses=refusals(Code.SESSION_NOT_FOUND, Code.CONNECTION_LIMIT),
)
async def session_events(
    request: Req, session_id: FromPath[str], after: After = None, limit: Limit = pages.DEFAULT
) -> Response[EventsPage]:
    """As server-sent events that go on, or with `Accept: application/json` as one page."""
    arrival = Arrival.of(request)
    if "application/json" in request.headers.get("accept", "") and EVENT_STREAM not in request.headers["accept"]:
        desk, principal = await caller(request)
        session = await sessions.find(desk.broker, principal, session_id)
        return Response(EventsPage(**await pages.events_page(desk, principal, session, after, limit)))
    desk = request.app.state.desk
    connection = EventStream(desk, await admit(desk, arrival), arrival)
    session = await connection.find(session_id)
    connection.enter(session, arrival.takeover).follow(arrival.after)
    return StreamResponse(connection)  # type: ignore[return-value]


@post(
    "/api/v1/sessions/{session_id:str}/messages",
    tags=["conversation"],
    summary="Say something",
    responses=refusals(
        Code.SESSION_NOT_FOUND, Code.SESSION_CLOSED, Code.TURN_IN_PROGRESS, Code.TOO_LARGE, Code.LOG_FULL
    ),
)
async def send_message(
    request: Req, session_id: FromPath[str], data: JSONBody[NewMessage], wait: Wait = False
) -> Response[AcceptedMessage | Answered]:
    """202: stored, and it will be answered. `?wait=true`: 200 with the finished answer; 202 after 60 s, or where a
    person is asked. With `Accept: text/event-stream`: the turn's events, until its end.
    """
    desk, principal = await caller(request, "write")
    streams = EVENT_STREAM in request.headers.get("accept", "")
    if wait or streams:
        principal.require("read")
    session = await _own(desk, principal, session_id)
    if session.is_closed:
        raise MillraceError(Code.SESSION_CLOSED)
    desk.limiter.message(principal)
    topic = Topic.session(principal.tenant, session_id)
    frame = SendMessage(**{name: getattr(data, name) for name in NewMessage.__struct_fields__})
    to = commands.Address.of(desk.config, topic, session.agent)
    accepted = await commands.send_message(desk.broker, principal, to, frame)
    own = data.client_message_id is not None  # only such a message can come again
    place = (await commands.place_of(desk.broker, topic, accepted, waits=wait or streams) if own else accepted.seq) - 1
    topics = len(join.topics_of(principal, session))
    if streams:
        connection = EventStream(desk, principal, Arrival.of(request))
        await turns.stream_turn(connection, topic, accepted.message_id, place, topics)
        return StreamResponse(connection)  # type: ignore[return-value]
    cursor = pages.cursor_at(desk, topics, place)
    told = AcceptedMessage(accepted.message_id, accepted.client_message_id, cursor)
    if not wait:
        return Response(told, status_code=202)
    outcome = await turns.wait_for(desk, topic, accepted.message_id, place)
    if outcome.end is None or not desk.identity.holds(principal):  # it may have been revoked in the meantime
        return Response(told, status_code=202)
    answers = list(outcome.answers.values())
    answered = Answered(
        message_id=told.message_id,
        client_message_id=told.client_message_id,
        cursor=told.cursor,
        status=outcome.end.status,
        answer=answers[-1] if answers else None,
        answers=answers,
        error=msgspec.to_builtins(outcome.end.error),
        usage=outcome.end.usage,
    )
    return Response(answered, status_code=200)


@get(
    "/api/v1/sessions/{session_id:str}/messages",
    tags=["conversation"],
    summary="Page back in a conversation",
    responses=refusals(Code.SESSION_NOT_FOUND),
)
async def session_messages(
    request: Req, session_id: FromPath[str], before: Before = None, limit: Few = 50
) -> MessagesPage:
    """Messages and answers before a place, or the last ones, ascending."""
    desk, principal = await caller(request)
    await sessions.find(desk.broker, principal, session_id)
    found, earlier = await history.messages(
        desk.broker, Topic.session(principal.tenant, session_id), history.place(before), limit
    )
    return MessagesPage(found, earlier)


@get(
    "/api/v1/sessions/{session_id:str}/approvals",
    tags=["approvals"],
    summary="What a person is asked",
    responses=refusals(Code.SESSION_NOT_FOUND),
)
async def session_approvals(request: Req, session_id: FromPath[str]) -> Items:
    """The open requests, as the frame `tool_approval_request`."""
    desk, principal = await caller(request)
    await sessions.find(desk.broker, principal, session_id)
    view, _ = await fold(desk.broker, Topic.session(principal.tenant, session_id))
    return Items(view.approvals)


@post(
    "/api/v1/sessions/{session_id:str}/approvals/{tool_call_id:str}",
    tags=["approvals"],
    summary="Decide on a call",
    status_code=200,
    responses=refusals(Code.SESSION_NOT_FOUND, Code.APPROVAL_NOT_FOUND, Code.APPROVAL_DECIDED, Code.APPROVAL_EXPIRED),
)
async def decide(
    request: Req, session_id: FromPath[str], tool_call_id: FromPath[str], data: JSONBody[Decision]
) -> Decided:
    """Once: the first decision counts."""
    desk, principal = await caller(request)
    session = await sessions.find(desk.broker, principal, session_id)
    if session.user_id != principal.user_id or not principal.may("write"):
        principal.require("approve")
    desk.limiter.message(principal)
    if not is_token(tool_call_id):
        raise MillraceError(Code.APPROVAL_NOT_FOUND)
    frame = SendApproval(tool_call_id=tool_call_id, **msgspec.structs.asdict(data))
    await commands.decide_approval(desk.broker, principal, Topic.session(principal.tenant, session_id), frame)
    return Decided(tool_call_id, data.approved)


@post(
    "/api/v1/sessions/{session_id:str}/cancel",
    tags=["conversation"],
    summary="Stop a turn",
    status_code=202,
    responses=refusals(Code.SESSION_NOT_FOUND),
)
async def cancel(request: Req, session_id: FromPath[str], data: JSONBody[Cancelling | None] = None) -> CancelAsked:
    """Of a question or an answer; without one, the running turn."""
    desk, principal = await caller(request, "write")
    await _own(desk, principal, session_id)
    desk.limiter.message(principal)
    frame = SendCancel(message_id=data.message_id if data else None)
    await commands.cancel(desk.broker, principal, Topic.session(principal.tenant, session_id), frame)
    return CancelAsked(frame.message_id)


async def _own(desk: Desk, principal: Principal, session_id: str) -> Session:
    session = await sessions.find(desk.broker, principal, session_id)
    if session.user_id != principal.user_id and not principal.may("admin"):
        raise MillraceError(Code.FORBIDDEN, "only its owner speaks in a session")
    return session


HANDLERS: list[Any] = [session_events, send_message, session_messages, session_approvals, decide, cancel]
