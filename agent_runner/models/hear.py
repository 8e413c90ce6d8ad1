"""Hearing: a response in our terms."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from agent_runner.model import ModelFailure, Piece, Said
from agent_runner.models.names import Names
from agent_runner.models.provider import Provider
from agent_runner.prompt import Use
from contracts.errors import Code

if TYPE_CHECKING:
    from pydantic_ai import messages
    from pydantic_ai.usage import RequestUsage


_BROKEN = frozenset({"abort", "cancelled", "error", "insufficient_system_resource", "network_error", "timeout"})
_WITHHELD = frozenset({"blocklist", "content_filter", "prohibited_content", "recitation", "safety", "sensitive"})
_CUT = frozenset({"length", "max_output_tokens", "max_tokens", "model_context_window_exceeded", "model_length"})
"""Reasons to finish that servers have beside OpenAI's and Anthropic's. Any other is a `stop`."""


def piece(event: object) -> Piece | None:
    """What an event of pydantic-ai adds. The first fragment of a part rides in the part's start."""
    from pydantic_ai.messages import (
        PartDeltaEvent,
        PartStartEvent,
        TextPart,
        TextPartDelta,
        ThinkingPart,
        ThinkingPartDelta,
    )

    match event:
        case PartStartEvent(part=TextPart(content=str(text))) if text:
            return Piece(_clean(text))
        case PartStartEvent(part=ThinkingPart(content=str(text))) if text:
            return Piece(_clean(text), "thinking")
        case PartDeltaEvent(delta=TextPartDelta(content_delta=str(text))) if text:
            return Piece(_clean(text))
        case PartDeltaEvent(delta=ThinkingPartDelta(content_delta=str(text))) if text:
            return Piece(_clean(text), "thinking")
    return None


def is_call(event: object) -> bool:
    """Whether it adds to a call."""
    from pydantic_ai.messages import PartDeltaEvent, PartStartEvent, ToolCallPart, ToolCallPartDelta

    match event:
        case PartStartEvent(part=ToolCallPart()) | PartDeltaEvent(delta=ToolCallPartDelta()):
            return True
    return False


def is_silence(event: object) -> bool:
    """Whether thinking begins of which nothing may be shown."""
    from pydantic_ai.messages import PartStartEvent, ThinkingPart

    match event:
        case PartStartEvent(part=ThinkingPart(content="")):
            return True
    return False


def said(response: "messages.ModelResponse", provider: Provider, names: Names) -> Said:
    """How it ended. Raises ModelFailure for a response that is not whole, or withheld."""
    from pydantic_ai.messages import TextPart, ThinkingPart, ToolCallPart

    told = str((response.provider_details or {}).get("finish_reason") or "").lower()
    if response.finish_reason == "content_filter" or told in _WITHHELD:
        raise ModelFailure(Code.AGENT_FAILED, "the model's provider withholds the answer")
    if told in _BROKEN:
        raise ModelFailure(Code.MODEL_UNAVAILABLE, "the model did not finish its answer")
    if response.finish_reason is None and not told:
        raise ModelFailure(Code.MODEL_UNAVAILABLE, "the model broke off its answer")
    parts, reason = response.parts, "length" if told in _CUT else response.finish_reason
    calls = _calls([part for part in parts if isinstance(part, ToolCallPart)], reason, names)
    if reason == "tool_call" and not calls and not any(isinstance(part, TextPart) for part in parts):
        raise ModelFailure(Code.MODEL_UNAVAILABLE, "the model made a call without a name")
    return Said(
        "tool_call" if calls else "length" if reason == "length" else "stop",  # some servers have reasons of their own
        _usage(response.usage),
        calls,
        provider.signature([part for part in parts if isinstance(part, ThinkingPart)]),
    )


def _calls(parts: "Sequence[messages.ToolCallPart]", reason: str | None, names: Names) -> tuple[Use, ...]:
    uses = [_use(names.ours(_clean(part.tool_name)), part.args) for part in parts]
    if uses and reason == "length" and not parts[-1].args:
        uses[-1] = Use(uses[-1].tool, {}, raw="")  # cut off before its arguments
    return tuple(uses)


def _use(tool: str, written: object) -> Use:
    if not written:
        return Use(tool, {})
    text = _clean(written if isinstance(written, str) else json.dumps(written))
    try:
        arguments = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        arguments = None
    return Use(tool, arguments) if isinstance(arguments, dict) else Use(tool, {}, raw=text)


def _usage(used: "RequestUsage") -> dict[str, int] | None:
    if used.unmeasured_requests:
        return None
    counts = {
        "input_tokens": used.input_tokens,
        "output_tokens": used.output_tokens,
        "cache_read_tokens": used.cache_read_tokens,
        "cache_write_tokens": used.cache_write_tokens,
        "reasoning_tokens": used.output_reasoning_tokens,
    }
    return {name: int(count) for name, count in counts.items() if count >= 1}  # a server may tell of fractions


def _clean(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON can spell and nothing can write."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
