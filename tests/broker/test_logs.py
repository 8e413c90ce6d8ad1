"""Logs: lines that a machine reads."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider

from broker.logs import JsonFormatter


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger that writes JSON lines into its handler's stream."""
    logger = logging.getLogger("test.logs")
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(JsonFormatter("edge"))
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)


def _line(logger: logging.Logger) -> dict[str, object]:
    handler = logger.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    (line,) = handler.stream.getvalue().splitlines()
    found: dict[str, object] = json.loads(line)
    return found


def test_a_line_holds_the_event_and_its_fields(logger: logging.Logger) -> None:
    """STYLE R14: the message is constant, what varies is in fields."""
    logger.warning("turn finished", extra={"session_id": "s1", "attempt": 2})
    line = _line(logger)
    assert line["event"] == "turn finished"
    assert (line["session_id"], line["attempt"]) == ("s1", 2)
    assert (line["service"], line["level"], line["logger"]) == ("edge", "warning", "test.logs")


def test_an_exception_stays_in_its_line(logger: logging.Logger) -> None:
    """Our choice: one event, one line."""
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logger.exception("failed")
    assert "ValueError: first" in str(_line(logger)["exception"])


def test_what_json_cannot_hold_is_logged_as_text(logger: logging.Logger) -> None:
    """Our choice: logging never fails."""
    logger.error("odd", extra={"what": {1, 2}, "path": object()})
    assert "object object" in str(_line(logger)["path"])


def test_inside_a_span_the_line_names_its_trace(logger: logging.Logger) -> None:
    """Our choice: from a line to its trace, and back."""
    with TracerProvider().get_tracer("test").start_as_current_span("turn") as span:
        logger.error("failed")
    assert _line(logger)["trace_id"] == f"{span.get_span_context().trace_id:032x}"


def test_outside_a_span_there_is_no_trace(logger: logging.Logger) -> None:
    """Our choice: no empty fields."""
    logger.error("failed")
    assert "trace_id" not in _line(logger)
