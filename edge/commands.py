"""Commands: what a client's message, cancel or approval appends to the log, or why it does not."""

import asyncio
import base64
import hashlib
from typing import Self

import msgspec
from msgspec import Struct

from broker import metrics, telemetry
from broker.append import Append, LogFull, OutcomeUnknown, Stored, append, conditional
from broker.connect import Broker, Rejected, Unavailable
from contracts import events
from contracts.config import Config
from contracts.depth import is_too_deep
from contracts.errors import Code, MillraceError
from contracts.events import AnyEvent, Policy, unix_time
from contracts.frames import SendApproval, SendCancel, SendMessage
from contracts.subjects import Topic
from contracts.view import View
from edge import folds
from edge.principal import Principal

DEADLINE = 5.0
"""Seconds that an append is tried before its outcome is looked at."""

AGAIN = 1.0
"""Seconds between tries at an append that may be stored, while the log is full."""

ATTACHMENT_BYTES = 32 * 1024
FULL_AT = 0.9
"""The share of the log from which on new messages are refused, so that running turns can finish."""


class Address(Struct, frozen=True):
    """Where a session's messages go, and what becomes of one that says nothing about it."""

    topic: Topic
    group: str
    policy: Policy

    @classmethod
    def of(cls, config: Config, topic: Topic, agent: str | None) -> Self:
        """As the session's agent is configured now."""
        settings = config.agent(agent)
        return cls(topic, settings.group, settings.policy)


class Accepted(Struct, frozen=True):
    """A message that will be answered. `is_first`: the broker knows that it was stored first at `seq`."""

    message_id: str
    client_message_id: str
    seq: int
    is_first: bool = False


async def send_message(
    broker: Broker, principal: Principal, to: Address, frame: SendMessage, last_fact: int | None = None
) -> Accepted:
    """Store a message. The same `client_message_id` again gives the same message. Raises MillraceError.

    `last_fact` is a guess at the session's last fact. Where it is right the message names it, so that a runner
    who knows the session up to there need not look what lies between; where it is wrong nothing is lost.
    """
    _check_attachments(frame)
    _check_depth(frame.metadata)
    topic, subject = to.topic, to.topic.message(to.group)
    client_message_id = frame.client_message_id or events.new_id()
    message_id = "m_" + _digest(topic, client_message_id)
    event = events.Message(
        id="e_" + _digest(topic, client_message_id),
        timestamp=events.timestamp(),
        session_id=topic.id,
        message_id=message_id,
        role="user",
        content=frame.content,
        user_id=principal.user_id,
        client_message_id=client_message_id,
        policy=frame.policy or to.policy,
        attachments=frame.attachments,
        metadata=frame.metadata,
    )
    attributes = {"gen_ai.conversation.id": topic.id, "messaging.message.id": message_id}
    with telemetry.tracer.start_as_current_span("message", attributes=attributes):
        if event.policy == "reject":
            stored = await _store_unless_busy(broker, topic, subject, event)
        else:
            named = await _store(broker, topic, subject, event, after=last_fact) if last_fact else None
            unnamed = named or await _store(broker, topic, subject, event)
            assert unnamed  # nothing refuses an append without a condition
            stored = unnamed
    metrics.MESSAGES.labels(topic.tenant).inc()
    is_first = stored.duplicate and event.policy != "reject"
    return Accepted(message_id, client_message_id, stored.seq, is_first)


async def place_of(broker: Broker, topic: Topic, accepted: Accepted, *, waits: bool) -> int:
    """Where the turn of an accepted message begins: a repeated one is stored before, however late it comes again.

    It is accepted, whatever becomes of the broker now; only who `waits` for its turn is told to come again.
    """
    if accepted.is_first:
        return accepted.seq
    try:
        return await folds.place_of(broker, topic, accepted.message_id, accepted.seq, thorough=waits)
    except (Unavailable, TimeoutError):
        if not waits:
            return accepted.seq
        raise MillraceError(Code.BROKER_UNAVAILABLE, client_message_id=accepted.client_message_id) from None


async def cancel(broker: Broker, principal: Principal, topic: Topic, frame: SendCancel) -> None:
    """Ask for a turn to stop. Raises MillraceError."""
    event = events.Cancel(
        id=events.new_id(),
        timestamp=events.timestamp(),
        session_id=topic.id,
        message_id=frame.message_id,
        user_id=principal.user_id,
    )
    await _store(broker, topic, topic.fact("client"), event)


async def decide_approval(broker: Broker, principal: Principal, topic: Topic, frame: SendApproval) -> None:
    """Record a person's decision on a tool call: the first one, while it is asked for. Raises MillraceError."""
    _check_depth(frame.arguments)
    while True:
        view, seq = await _fold(broker, topic)
        session = view.session
        call = session.calls.get(frame.tool_call_id)
        if call is None or call.request is None:
            raise MillraceError(Code.APPROVAL_NOT_FOUND)
        if call.decision:
            raise MillraceError(Code.APPROVAL_DECIDED, decided_by=call.decision.decided_by)
        if call.result or session.over(call) or broker.now() >= unix_time(call.request.expires_at):
            raise MillraceError(Code.APPROVAL_EXPIRED)
        event = events.ToolApproval(
            id=events.new_id(),
            timestamp=events.timestamp(),
            session_id=topic.id,
            tool_call_id=frame.tool_call_id,
            approved=frame.approved,
            decided_by=principal.user_id,
            decided_at=events.timestamp(broker.now()),
            reason=frame.reason,
            arguments=frame.arguments if frame.approved else None,
        )
        if await _store(broker, topic, topic.fact("client"), event, after=seq):
            metrics.APPROVALS.labels("approved" if frame.approved else "rejected").inc()
            return


async def _store_unless_busy(broker: Broker, topic: Topic, subject: str, event: events.Message) -> Stored:
    while True:
        view, seq = await _fold(broker, topic, check_waiting=True)
        session = view.session
        if event.message_id in session.turns or event.message_id in session.ended:
            return Stored(seq, duplicate=True)
        if session.turns:
            raise MillraceError(Code.TURN_IN_PROGRESS)
        if stored := await _store(broker, topic, subject, event, after=seq):
            return stored


async def _store(
    broker: Broker, topic: Topic, subject: str, event: AnyEvent, after: int | None = None
) -> Stored | None:
    """Append a client's fact; None only for a condition that was refused."""
    info = broker.log_info
    is_message = isinstance(event, events.Message)
    if is_message and info and info.max_bytes > 0 and info.bytes > FULL_AT * info.max_bytes:
        raise MillraceError(Code.LOG_FULL)
    payload = events.encode(event)
    message_id = f"{topic.tenant}/{topic.id}/{event.id}"
    if after is None:
        what = Append(subject, payload, message_id)
    else:
        what = conditional(topic, subject, payload, message_id, after)
    with telemetry.tracer.start_as_current_span("append"):
        what = msgspec.structs.replace(what, context=telemetry.inject({}))
        return await _surely(broker, what, event)


async def _surely(broker: Broker, what: Append, event: AnyEvent) -> Stored | None:
    """Append what a client is told of: stored, or an error and never stored later.

    While the broker is away it is refused at once. Where the outcome of a try is unknown it is tried until it is
    known: an error could not be taken back when the message turns up in the log.
    """
    in_doubt = False
    while in_doubt or broker.connected:
        try:
            return await append(broker, what, deadline=DEADLINE)
        except LogFull:
            if not in_doubt:
                raise MillraceError(Code.LOG_FULL) from None
            await asyncio.sleep(AGAIN)
        except OutcomeUnknown:
            in_doubt = True
        except Unavailable as error:
            if not in_doubt and not isinstance(error, Rejected):
                break
            if isinstance(error, Rejected):
                raise
    again = {"client_message_id": event.client_message_id} if isinstance(event, events.Message) else {}
    raise MillraceError(Code.BROKER_UNAVAILABLE, **again)


async def _fold(broker: Broker, topic: Topic, *, check_waiting: bool = False) -> tuple[View, int]:
    try:
        view, seq = await folds.fold(broker, topic)
        if check_waiting and view.forgot and view.session.turns:
            await folds.without_repeats(broker, topic, view)
    except (Unavailable, TimeoutError):
        raise MillraceError(Code.BROKER_UNAVAILABLE) from None
    return view, seq


def _digest(topic: Topic, client_message_id: str) -> str:
    text = f"{topic.tenant}/{topic.id}/{client_message_id}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _check_depth(value: object) -> None:
    if is_too_deep(value):
        raise MillraceError(Code.BAD_REQUEST, "JSON that is nested too deeply")


def _check_attachments(frame: SendMessage) -> None:
    if not frame.content and not frame.attachments:
        raise MillraceError(Code.BAD_REQUEST, "a message needs content or attachments")
    for attachment in frame.attachments or ():
        if (attachment.url is None) == (attachment.data is None):
            raise MillraceError(Code.BAD_REQUEST, "an attachment has either `url` or `data`")
        if attachment.data is None:
            continue
        try:
            size = len(base64.b64decode(attachment.data, validate=True))
        except ValueError:
            raise MillraceError(Code.BAD_REQUEST, "an attachment's `data` is not base64") from None
        if size > ATTACHMENT_BYTES:
            raise MillraceError(Code.TOO_LARGE, f"an inline attachment may have {ATTACHMENT_BYTES} bytes")
