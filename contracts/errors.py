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
        Code.UNAUTHORIZED: Entry(401, False, "The credentials are missing or wrong.", "Get a new token.", 4001),
        Code.TOKEN_EXPIRED: Entry(401, False, "The token has expired.", "Get a new token and reconnect.", 4001),
        Code.FORBIDDEN: Entry(403, False, "The session belongs to somebody else.", "Ask its owner.", 4003),
        Code.SESSION_NOT_FOUND: Entry(404, False, "There is no such session.", "Create it.", 4004),
        Code.SESSION_CLOSED: Entry(409, False, "The session is closed.", "Create a new one."),
        Code.BAD_REQUEST: Entry(400, False, "The request is malformed; nothing was done.", "Correct it."),
        Code.UNKNOWN_TYPE: Entry(400, False, "The frame's type is unknown.", "Use a type of the wire reference."),
        Code.TOO_LARGE: Entry(413, False, "The request is larger than allowed.", "Send less at once.", 1009),
        Code.LOG_FULL: Entry(507, True, "The log is nearly full; running turns finish.", "Tell the operator."),
        Code.TURN_IN_PROGRESS: Entry(409, True, "A turn is running.", "Wait for its turn_end, or enqueue."),
        Code.TURN_TIMEOUT: Entry(504, True, "The turn took longer than it may.", "Ask again, for less."),
        Code.AGENT_FAILED: Entry(500, False, "The agent failed.", "Look at the turn's trace."),
        Code.MODEL_UNAVAILABLE: Entry(502, True, "The model cannot be reached.", "Try again later."),
        Code.MODEL_RATE_LIMITED: Entry(429, True, "The model's provider limits the rate.", "Try again later."),
        Code.CONTEXT_TOO_LONG: Entry(413, False, "The conversation exceeds the model's context.", "Shorten it."),
        Code.TOOL_NOT_FOUND: Entry(404, False, "There is no such tool.", "Look at the configured servers."),
        Code.TOOL_DENIED: Entry(403, False, "A rule denies this tool.", "Change the rule, or do without."),
        Code.TOOL_ERROR: Entry(502, False, "The tool failed.", "Read its error text."),
        Code.TOOL_TIMEOUT: Entry(504, True, "The tool took longer than it may.", "Try again, or ask for less."),
        Code.APPROVAL_NOT_FOUND: Entry(404, False, "No approval is asked for that call.", "Look at the id."),
        Code.APPROVAL_DECIDED: Entry(409, False, "The approval is already decided.", "Read the decision."),
        Code.APPROVAL_EXPIRED: Entry(410, False, "The approval has expired.", "Ask the agent again."),
        Code.INVALID_EVENT: Entry(400, False, "The event is not a CloudEvent that can be routed.", "Correct it."),
        Code.RATE_LIMITED: Entry(429, True, "Too many requests.", "Wait `retry_after` seconds.", 4029),
        Code.CONNECTION_LIMIT: Entry(429, True, "The session has too many connections.", "Close one.", 4029),
        Code.SLOW_CONSUMER: Entry(429, True, "The client reads too slowly.", "Reconnect with the cursor.", 4009),
        Code.BROKER_UNAVAILABLE: Entry(503, True, "The broker is away.", "Try again with the same id."),
        Code.INTERNAL_ERROR: Entry(500, True, "Something went wrong here.", "Try again; tell the operator."),
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
