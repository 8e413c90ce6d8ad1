"""Requests: what REST callers send and are answered with, as types: the OpenAPI document is made from them."""

from typing import Annotated, Any, Literal

from litestar.openapi import ResponseSpec
from msgspec import UNSET, Meta, Struct, UnsetType

from contracts.errors import CATALOGUE, Code
from contracts.events import Attachment, Policy
from contracts.frames import Token

Title = Annotated[str, Meta(max_length=200)]


class NewSession(Struct, frozen=True, forbid_unknown_fields=True):
    """What a client may say of a session that it creates."""

    session_id: Token | None = None
    agent: Token | None = None
    title: Title | None = None
    project_id: Token | None = None
    metadata: dict[str, Any] | None = None


class SessionChange(Struct, frozen=True, forbid_unknown_fields=True):
    """What a session is to become. A closed one may be made active again."""

    title: Title | UnsetType | None = UNSET
    state: Literal["active", "closed"] | UnsetType = UNSET


class SessionShown(Struct, frozen=True):
    """A session. `active` while somebody is connected on any edge, `suspended` otherwise, `closed`."""

    session_id: str
    user_id: str
    agent: str
    state: str
    title: str | None
    project_id: str | None
    metadata: dict[str, Any] | None
    created_at: str | None


class NewMessage(Struct, frozen=True):
    """The fields of the frame `message`. `policy`: by default the agent's."""

    content: str
    client_message_id: Token | None = None
    attachments: list[Attachment] | None = None
    metadata: dict[str, Any] | None = None
    policy: Policy | None = None


class Cancelling(Struct, frozen=True, forbid_unknown_fields=True):
    """Which turn to stop; the running one by default."""

    message_id: Token | None = None


class Decision(Struct, frozen=True):
    """The fields of the frame `tool_approval`."""

    approved: bool
    reason: Annotated[str, Meta(max_length=2000)] | None = None
    arguments: dict[str, Any] | None = None


class AcceptedMessage(Struct, frozen=True):
    """The message is stored and will be answered. From `cursor` on, its turn can be followed over any transport."""

    message_id: str
    client_message_id: str
    cursor: str


class Answered(Struct, frozen=True):
    """How a turn ended. `answer` is its last one; several are those before and after tool calls."""

    message_id: str
    client_message_id: str
    cursor: str
    status: str
    answer: dict[str, Any] | None
    answers: list[dict[str, Any]]
    error: dict[str, Any] | None
    usage: dict[str, int] | None


class Decided(Struct, frozen=True):
    """The decision is recorded."""

    tool_call_id: str
    approved: bool


class CancelAsked(Struct, frozen=True):
    """The turn will stop; null: the running one."""

    message_id: str | None


class Ticket(Struct, frozen=True):
    """Opens one connection, within 30 seconds."""

    ticket: str
    expires_at: str


class ConnectionShown(Struct, frozen=True):
    """Somebody who is connected. `lag`: for how many seconds the client has been behind what there is."""

    connection_id: str
    session_id: str
    user_id: str
    transport: str
    device: str | None
    since: str
    lag: float


class Items(Struct, frozen=True):
    """A page of a list; `next` is the `before` of the one after it, null at the end."""

    items: list[Any]
    next: str | None = None


class EventsPage(Struct, frozen=True):
    """Log events in order, the cursor behind them, and whether there are more."""

    events: list[Any]
    cursor: str
    more: bool


class MessagesPage(Struct, frozen=True):
    """Messages in order; `before` pages back, null at the start."""

    messages: list[dict[str, Any]]
    before: str | None


class ErrorBody(Struct, frozen=True):
    """An error of the catalogue."""

    code: str
    error: str
    retryable: bool
    details: dict[str, Any] | None
    trace_id: str | None


_ANY = (
    Code.BAD_REQUEST,
    Code.UNAUTHORIZED,
    Code.TOKEN_EXPIRED,
    Code.FORBIDDEN,
    Code.RATE_LIMITED,
    Code.BROKER_UNAVAILABLE,
    Code.INTERNAL_ERROR,
)


def refusals(*codes: Code) -> dict[int, ResponseSpec]:
    """How an operation may be refused: with these codes, or those that any may be refused with."""
    by_status: dict[int, list[str]] = {}
    for code in (*_ANY, *codes):
        by_status.setdefault(CATALOGUE[code].status, []).append(f"`{code}`: {CATALOGUE[code].meaning}")
    return {
        status: ResponseSpec(ErrorBody, generate_examples=False, description=" ".join(told))
        for status, told in by_status.items()
    }
