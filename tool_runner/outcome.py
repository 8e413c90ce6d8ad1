"""How a tool call ends: in an Outcome, whose size is bounded, or NotSent or Lost."""

from typing import Any, Literal

import msgspec
from mcp.types import CallToolResult, TextContent
from msgspec import Struct

from contracts.depth import is_too_deep
from contracts.errors import Code

RESULT_BYTES = 256 * 1024
TEXT_CHARACTERS = 4096  # of an error or a progress message


class NotSent(Exception):
    """The server could not be reached and the tool did not run: the call may be tried again."""


class Lost(Exception):
    """The connection was lost after the call was sent. Whether the tool ran is unknown."""


class Outcome(Struct, frozen=True):
    """How a call ended, as far as the tool is concerned. `result` can be encoded as JSON."""

    status: Literal["completed", "failed"]
    result: Any = None
    error: str | None = None
    code: Code | None = None


def outcome_of(result: CallToolResult) -> Outcome:
    """Completed, or failed where the tool says so or its result is too large."""
    texts = [block.text for block in result.content if isinstance(block, TextContent)]
    if result.is_error:
        return failed(Code.TOOL_ERROR, "\n".join(texts) or "the tool failed and does not say why")
    value: Any = result.structured_content
    if value is None and len(texts) == len(result.content) == 1:
        value = texts[0]
    elif value is None:
        value = [block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in result.content]
    if is_too_deep(value):
        return failed(Code.TOOL_ERROR, "the result is nested too deeply")
    size = len(msgspec.json.encode(value))
    if size > RESULT_BYTES:
        return failed(Code.TOOL_ERROR, f"the result has {size} bytes; {RESULT_BYTES} are allowed")
    return Outcome("completed", value)


def failed(code: Code, text: str) -> Outcome:
    """Failed, with a text that is cut to `TEXT_CHARACTERS`."""
    return Outcome("failed", error=text[:TEXT_CHARACTERS], code=code)


def not_found(tool: str) -> Outcome:
    """Failed, for there is no such server or tool."""
    return failed(Code.TOOL_NOT_FOUND, f"there is no tool {tool}")
