"""Dispatch: one frame of a client: read, authorised, done, answered."""

import msgspec
from msgspec import UNSET

from broker.connect import Unavailable
from contracts import frames
from contracts.errors import Code, MillraceError
from contracts.events import timestamp
from contracts.frames import AnyClientFrame
from edge import commands
from edge.connection import Connection
from edge.identity import Credentials
from edge.subscription import Subscription


async def dispatch(connection: Connection, frame: AnyClientFrame, subscription: Subscription | None) -> None:
    """Do what the frame asks for, in the session that is meant. Raises MillraceError where it is refused."""
    connection.authorise()
    request_id = frame.request_id or UNSET
    match frame:
        case frames.SendAuth(token=token):
            connection.renew(await connection.desk.identity.principal(Credentials(token=token)))
            connection.send(frames.Ack(expires_at=connection.expires_at, request_id=request_id))
        case frames.SendPing():
            connection.send(frames.Pong(timestamp=timestamp()))
        case frames.SendPong():
            pass
        case _ if subscription is None:
            raise MillraceError(Code.BAD_REQUEST, "session_id names no session that this connection follows")
        case frames.SendMessage():
            await _message(connection, frame, subscription)
        case frames.SendCancel(message_id=message_id):
            may_write(connection, subscription)
            topic = subscription.topic
            connection.desk.limiter.message(connection.principal)
            await commands.cancel(connection.desk.broker, connection.principal, topic, frame)
            connection.send(frames.Ack(session_id=topic.id, message_id=message_id, request_id=request_id))
        case frames.SendApproval(tool_call_id=call_id):
            may_decide(connection, subscription)
            topic = subscription.topic
            connection.desk.limiter.message(connection.principal)
            await commands.decide_approval(connection.desk.broker, connection.principal, topic, frame)
            connection.send(frames.Ack(session_id=topic.id, tool_call_id=call_id, request_id=request_id))
        case frames.SendTyping(is_typing=is_typing):
            may_write(connection, subscription)
            _typing(connection, subscription, is_typing)
        case _:
            raise MillraceError(Code.UNKNOWN_TYPE, "not on this socket")


async def _message(connection: Connection, frame: frames.SendMessage, subscription: Subscription) -> None:
    may_write(connection, subscription)
    if subscription.session.is_closed:
        raise MillraceError(Code.SESSION_CLOSED)
    connection.desk.limiter.message(connection.principal)
    topic, desk = subscription.topic, connection.desk
    to = commands.Address.of(desk.config, topic, subscription.session.agent)
    accepted = await commands.send_message(desk.broker, connection.principal, to, frame, subscription.last_fact)
    connection.send(
        frames.MessageAccepted(
            session_id=topic.id,
            client_message_id=accepted.client_message_id,
            message_id=accepted.message_id,
            cursor=subscription.cursor,
            request_id=frame.request_id or UNSET,
        )
    )


def may_write(connection: Connection, subscription: Subscription) -> None:
    """Raises MillraceError where the caller may not speak in the session."""
    connection.principal.require("write")
    if not subscription.mine:
        raise MillraceError(Code.FORBIDDEN, "only its owner speaks in a session")


def may_decide(connection: Connection, subscription: Subscription) -> None:
    """Raises MillraceError where the caller may not decide on the session's tool calls."""
    if not subscription.mine:
        connection.principal.require("approve")
    elif not connection.principal.may("approve"):
        connection.principal.require("write")


def _typing(connection: Connection, subscription: Subscription, is_typing: bool) -> None:
    """Tell the others, if they can be reached now: who types is news for a second, and is not kept."""
    topic, principal = subscription.topic, connection.principal
    connection.desk.limiter.typing(principal, topic.id)
    frame = frames.Typing(session_id=topic.id, user_id=principal.user_id, is_typing=is_typing)
    payload = connection.connection_id.encode() + b"\n" + msgspec.json.encode(frame)
    try:
        connection.desk.broker.publish(topic.typing, payload)
    except Unavailable:
        raise MillraceError(Code.BROKER_UNAVAILABLE) from None


def parse(data: str | bytes) -> AnyClientFrame:
    """The frame that a client sent. Raises MillraceError `bad_request` or `unknown_type`."""
    try:
        frame: AnyClientFrame = frames.client_decoder.decode(data)
    except msgspec.ValidationError as error:
        tag = _field(data, "type")
        if isinstance(tag, str) and tag not in frames.CLIENT_TAGS:
            raise MillraceError(Code.UNKNOWN_TYPE, f"unknown type {tag:.64}") from None
        raise MillraceError(Code.BAD_REQUEST, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MillraceError(Code.BAD_REQUEST, f"not a JSON object: {error}") from None
    return frame


def named(data: str | bytes, name: str) -> str | None:
    """A short text field of a frame that could not be read: the error goes back to whoever can use it."""
    found = _field(data, name)
    return found if isinstance(found, str) and len(found) <= 128 else None


def _field(data: str | bytes, name: str) -> object:
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found.get(name) if isinstance(found, dict) else None
