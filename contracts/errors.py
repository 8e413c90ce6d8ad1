"""Error codes a client can receive: one table.

Codes are append-only. Text is for people and may change; clients branch on the code, on `retryable`
and, for a closed socket, on the close code.
"""

from enum import StrEnum
from types import MappingProxyType

from msgspec import Struct


class Code(StrEnum):
    """Every code of the catalogue."""

    UNAUTHORIZED = "unauthorized"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a code, not a password
    FORBIDDEN = "forbidden"
    SESSION_NOT_FOUND = "session_not_found"
    SESSION_CLOSED = "session_closed"
    BAD_REQUEST = "bad_request"
    UNKNOWN_TYPE = "unknown_type"
    TOO_LARGE = "too_large"
    LOG_FULL = "log_full"
    TURN_IN_PROGRESS = "turn_in_progress"
    TURN_TIMEOUT = "turn_timeout"
    TURN_LIMIT = "turn_limit"
    AGENT_FAILED = "agent_failed"
    MODEL_UNAVAILABLE = "model_unavailable"
    MODEL_RATE_LIMITED = "model_rate_limited"
    CONTEXT_TOO_LONG = "context_too_long"
    TOOL_NOT_FOUND = "tool_not_found"
    TOOL_DENIED = "tool_denied"
    TOOL_ERROR = "tool_error"
    TOOL_TIMEOUT = "tool_timeout"
    APPROVAL_NOT_FOUND = "approval_not_found"
    APPROVAL_DECIDED = "approval_decided"
    APPROVAL_EXPIRED = "approval_expired"
    INVALID_EVENT = "invalid_event"
    RATE_LIMITED = "rate_limited"
    CONNECTION_LIMIT = "connection_limit"
    SLOW_CONSUMER = "slow_consumer"
    BROKER_UNAVAILABLE = "broker_unavailable"
    INTERNAL_ERROR = "internal_error"


class Entry(Struct, frozen=True):
    """What a code means: HTTP status, close code where it ends a socket, may it be tried again."""

    status: int
    retryable: bool
    meaning: str
    remedy: str
    close: int | None = None


CATALOGUE = MappingProxyType(
    {
        Code.UNAUTHORIZED: Entry(
            401, False, "The credentials are missing, wrong or revoked.", "Get a new token or key.", 4001
        ),
        Code.TOKEN_EXPIRED: Entry(
            401, False, "The token has expired.", "Reconnect with a new one, or send it in `auth` before.", 4001
        ),
        Code.FORBIDDEN: Entry(
            403,
            False,
            "The session is another user's, or a scope is missing.",
            "Ask its owner, or for the scope.",
            4003,
        ),
        Code.SESSION_NOT_FOUND: Entry(
            404, False, "There is no such session in your tenant.", "Create it, or look at the id.", 4004
        ),
        Code.SESSION_CLOSED: Entry(
            409, False, "The session is closed: it may be read and not spoken in.", "Create a new one."
        ),
        Code.BAD_REQUEST: Entry(
            400, False, "The request is malformed; nothing was done.", "Correct what the text names."
        ),
        Code.UNKNOWN_TYPE: Entry(
            400, False, "The frame's type is not one that may be sent here.", "Use a type of the wire reference."
        ),
        Code.TOO_LARGE: Entry(
            413,
            False,
            "The frame or body is larger than allowed.",
            "Send less at once, attachments by reference.",
            1009,
        ),
        Code.LOG_FULL: Entry(
            507,
            True,
            "The log is nearly full; only running turns go on.",
            "Try again later with the same id; tell the operator.",
        ),
        Code.TURN_IN_PROGRESS: Entry(
            409,
            True,
            "A turn runs and the policy is `reject`; nothing was done.",
            "Wait for its `turn_end`, or enqueue.",
        ),
        Code.TURN_TIMEOUT: Entry(504, True, "The turn took longer than it may.", "Ask again, for less."),
        Code.TURN_LIMIT: Entry(
            500,
            False,
            "The agent reached a limit of its turn: model requests, tool calls, steps or bytes.",
            "Look at what it repeats; the limits are the agent's in `millrace.toml`.",
        ),
        Code.AGENT_FAILED: Entry(500, False, "The agent raised an error.", "Look at the turn's trace."),
        Code.MODEL_UNAVAILABLE: Entry(
            502, True, "The model's provider cannot be reached or fails.", "Ask again later."
        ),
        Code.MODEL_RATE_LIMITED: Entry(
            429, True, "The model's provider limits the rate.", "Ask again after `retry_after` seconds, or a minute."
        ),
        Code.CONTEXT_TOO_LONG: Entry(
            413, False, "The conversation exceeds the model's context.", "Go on in a new session, or send less."
        ),
        Code.TOOL_NOT_FOUND: Entry(
            404, False, "No configured server has that tool.", "Look at the name and the configured servers."
        ),
        Code.TOOL_DENIED: Entry(
            403, False, "A rule denies this tool; it was not run.", "Change the rule, or do without."
        ),
        Code.TOOL_ERROR: Entry(502, False, "The tool ran and failed.", "Read its error text."),
        Code.TOOL_TIMEOUT: Entry(
            504, True, "The tool took longer than it may; it may have had effects.", "Look before asking again."
        ),
        Code.APPROVAL_NOT_FOUND: Entry(
            404, False, "No approval is asked for that tool call here.", "Look at the id, or read the approvals."
        ),
        Code.APPROVAL_DECIDED: Entry(
            409, False, "Somebody decided before; the first decision counts.", "Read that `tool_approval`."
        ),
        Code.APPROVAL_EXPIRED: Entry(
            410, False, "The time to decide is over; the tool was not run.", "Ask the agent again."
        ),
        Code.INVALID_EVENT: Entry(
            400, False, "The event is no CloudEvent that can be routed.", "Correct it; it lies in the dead letters."
        ),
        Code.RATE_LIMITED: Entry(
            429, True, "The user sends or connects too often; nothing was done.", "Wait `retry_after` seconds.", 4029
        ),
        Code.CONNECTION_LIMIT: Entry(
            429,
            True,
            "The session has as many connections as it may.",
            "Close one, join with `takeover=true`, or wait `retry_after` seconds.",
            4029,
        ),
        Code.SLOW_CONSUMER: Entry(
            429,
            True,
            "The client was behind what is live for too long.",
            "Reconnect with the cursor, and read faster.",
            4009,
        ),
        Code.BROKER_UNAVAILABLE: Entry(
            503,
            True,
            "The broker cannot be reached, or this edge restarts.",
            "Try again with the same `client_message_id`, after `retry_after` seconds if given.",
        ),
        Code.INTERNAL_ERROR: Entry(
            500, True, "Something went wrong here.", "Try again later; give the operator the `trace_id`."
        ),
    }
)


class MillraceError(Exception):
    """An error with a code of the catalogue: what a client is told instead of a stack trace."""

    def __init__(self, code: Code, text: str = "", **details: object) -> None:
        super().__init__(text or CATALOGUE[code].meaning)
        self.code = code
        self.details = details or None

    @property
    def entry(self) -> Entry:
        """The code's row in the catalogue."""
        return CATALOGUE[self.code]
