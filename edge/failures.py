"""Failures: how an exception is told to a client: a code of the catalogue, never a stack trace."""

import logging
from typing import Any

import msgspec
from opentelemetry import trace

from broker.append import LogFull, OutcomeUnknown
from broker.connect import Unavailable
from contracts.errors import Code, MillraceError
from contracts.frames import ErrorFrame

logger = logging.getLogger(__name__)


def from_exception(error: Exception) -> MillraceError:
    """The error of the catalogue that stands for an exception; an unknown one is logged."""
    if isinstance(error, MillraceError):
        return error
    if isinstance(error, LogFull):
        return MillraceError(Code.LOG_FULL)
    if isinstance(error, Unavailable | OutcomeUnknown | TimeoutError):
        return MillraceError(Code.BROKER_UNAVAILABLE)
    logger.error("request failed", exc_info=error)
    return MillraceError(Code.INTERNAL_ERROR)


def error_frame(error: MillraceError, session_id: str | None, request_id: str | None) -> ErrorFrame:
    """The frame that tells one client of its failed request."""
    return ErrorFrame(
        code=error.code,
        error=str(error),
        message=str(error),
        retryable=error.entry.retryable,
        session_id=session_id or msgspec.UNSET,
        details=error.details or msgspec.UNSET,
        trace_id=trace_id() or msgspec.UNSET,
        request_id=request_id or msgspec.UNSET,
    )


def body(error: MillraceError) -> dict[str, Any]:
    """The body of an HTTP error."""
    return {
        "code": error.code,
        "error": str(error),
        "retryable": error.entry.retryable,
        "details": error.details,
        "trace_id": trace_id(),
    }


def trace_id() -> str | None:
    """The current trace, where there is one."""
    context = trace.get_current_span().get_span_context()
    return format(context.trace_id, "032x") if context.is_valid else None
