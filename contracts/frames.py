"""Frames: what a client sends, and what the edge answers of its own, outside the log."""

from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from contracts.events import Attachment, Policy

Token = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}(?!\n)$")]
"""What may stand in a subject. Python's `$` alone would let a line break follow, and JSON Schema knows no `\\Z`."""

RequestId = Annotated[str, Meta(max_length=128)]


class ClientFrame(Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of what a client sends. Its sender alone gets `request_id` back.

    On a socket for many sessions, `session_id` says which one is meant.
    """

    request_id: RequestId | None = None
    session_id: Token | UnsetType = UNSET


class SendMessage(ClientFrame, frozen=True, kw_only=True, tag="message"):
    """Say something. The same `client_message_id` again never makes a second turn. `policy`: by default the agent's."""

    content: str
    client_message_id: Token | None = None
    attachments: list[Attachment] | None = None
    metadata: dict[str, Any] | None = None
    policy: Policy | None = None


class SendCancel(ClientFrame, frozen=True, kw_only=True, tag="cancel"):
    """Stop a turn: of a question or an answer; the running one by default."""

    message_id: Token | None = None


class SendApproval(ClientFrame, frozen=True, kw_only=True, tag="tool_approval"):
    """Decide on a tool call."""

    tool_call_id: Token
    approved: bool
    reason: Annotated[str, Meta(max_length=2000)] | None = None
    arguments: dict[str, Any] | None = None


class SendTyping(ClientFrame, frozen=True, kw_only=True, tag="typing"):
    """Tell the other connections of the session."""

    is_typing: bool = True


class SendAuth(ClientFrame, frozen=True, kw_only=True, tag="auth"):
    """Refresh the connection's token."""

    token: str


class SendPing(ClientFrame, frozen=True, kw_only=True, tag="ping"):
    """Ask for a sign of life."""


class SendPong(ClientFrame, frozen=True, kw_only=True, tag="pong"):
    """Give a sign of life."""


class Subscribe(ClientFrame, frozen=True, kw_only=True, tag="subscribe"):
    """Follow a session on a socket for many."""

    session_id: Token
    after: Annotated[str, Meta(max_length=512)] | None = None


class Unsubscribe(ClientFrame, frozen=True, kw_only=True, tag="unsubscribe"):
    """Follow it no longer."""

    session_id: Token


AnyClientFrame = (
    SendMessage | SendCancel | SendApproval | SendTyping | SendAuth | SendPing | SendPong | Subscribe | Unsubscribe
)
CLIENT_FRAMES: tuple[type[ClientFrame], ...] = get_args(AnyClientFrame)
CLIENT_TAGS = frozenset(str(frame.__struct_config__.tag) for frame in CLIENT_FRAMES)


class ServerFrame(Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of what the edge sends of its own."""


class Connected(ServerFrame, frozen=True, kw_only=True, tag="connected"):
    """The first frame. Times in seconds; `expires_at` is the token's. Session and agent: null on a socket for many."""

    connection_id: str
    session_id: str | None
    agent: str | None
    heartbeat_interval: float
    heartbeat_timeout: float
    expires_at: str | None


class Active(Struct, frozen=True, kw_only=True):
    """The answer that is open."""

    message_id: str
    reply_to: str
    agent: str
    content: str
    thinking: str
    attempt: int


class Snapshot(ServerFrame, frozen=True, kw_only=True, tag="snapshot"):
    """The session at `cursor`. `last` is the id of the newest event in it; page back from `before`.

    `running` is the question whose turn runs, also while no answer is open; `queue` are those that wait.
    """

    session_id: str
    cursor: str
    last: str | None
    messages: list[dict[str, Any]]
    before: str | None
    active: Active | None
    running: str | None
    queue: list[str]
    approvals: list[dict[str, Any]]
    workflows: list[dict[str, Any]]


class ReplayComplete(ServerFrame, frozen=True, kw_only=True, tag="replay_complete"):
    """Everything up to `cursor` was sent; live events follow. Without a session: of the user's and the tenant's."""

    session_id: str | UnsetType = UNSET
    cursor: str
    replayed: int


class ResumeGap(ServerFrame, frozen=True, kw_only=True, tag="resume_gap"):
    """The cursor cannot be honoured; a snapshot follows. `lost`: the edge itself missed something."""

    session_id: str | UnsetType = UNSET
    reason: Literal["expired", "foreign", "future", "lost"]


class MessageAccepted(ServerFrame, frozen=True, kw_only=True, tag="message_accepted"):
    """The message is stored and will be answered."""

    session_id: str
    client_message_id: str
    message_id: str
    cursor: str
    request_id: str | UnsetType = UNSET


class Ack(ServerFrame, frozen=True, kw_only=True, tag="ack"):
    """What a `cancel`, `tool_approval` or `auth` led to."""

    session_id: str | UnsetType = UNSET
    request_id: str | UnsetType = UNSET
    expires_at: str | UnsetType | None = UNSET
    tool_call_id: str | UnsetType = UNSET
    message_id: str | UnsetType | None = UNSET


class ErrorFrame(ServerFrame, frozen=True, kw_only=True, tag="error"):
    """A request that failed, told to its sender alone; `message` repeats `error`."""

    code: str
    error: str
    message: str
    retryable: bool
    session_id: str | UnsetType = UNSET
    details: dict[str, Any] | UnsetType = UNSET
    trace_id: str | UnsetType = UNSET
    request_id: str | UnsetType = UNSET


class Typing(ServerFrame, frozen=True, kw_only=True, tag="typing"):
    """Somebody else is typing. Not a log event."""

    session_id: str
    user_id: str
    is_typing: bool


class Subscribed(ServerFrame, frozen=True, kw_only=True, tag="subscribed"):
    """The session is followed; its snapshot or replay comes next."""

    session_id: str
    agent: str
    request_id: str | UnsetType = UNSET


class Unsubscribed(ServerFrame, frozen=True, kw_only=True, tag="unsubscribed"):
    """The session is not followed, or no longer. `code`: why, null where the client asked for it."""

    session_id: str
    code: str | None
    retryable: bool = False
    details: dict[str, Any] | UnsetType = UNSET
    request_id: str | UnsetType = UNSET


class Reconnect(ServerFrame, frozen=True, kw_only=True, tag="reconnect"):
    """The edge is about to close this connection (1012): come back, with the cursor, after that many seconds."""

    reconnect_after: float
    reason: str


class Ping(ServerFrame, frozen=True, kw_only=True, tag="ping"):
    """Answer with `pong`."""

    timestamp: str


class Pong(ServerFrame, frozen=True, kw_only=True, tag="pong"):
    """The answer to `ping`."""

    timestamp: str


AnyServerFrame = (
    Connected | Snapshot | ReplayComplete | ResumeGap | MessageAccepted | Ack | ErrorFrame | Typing
    | Subscribed | Unsubscribed | Reconnect | Ping | Pong
)  # fmt: skip
SERVER_FRAMES: tuple[type[ServerFrame], ...] = get_args(AnyServerFrame)

client_decoder = msgspec.json.Decoder(AnyClientFrame)
encoder = msgspec.json.Encoder()
