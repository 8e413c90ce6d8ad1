"""Anthropic's messages: Anthropic's own, or any compatible server's."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from agent_runner.prompt import Assistant, Prompt, Tool
from contracts.config import Agent

if TYPE_CHECKING:
    from pydantic_ai.messages import ThinkingPart

_ANTHROPIC = "https://api.anthropic.com"
_REDACTED = "redacted_thinking"
_ANYTHING = {"type": "object"}


class _Block(Struct, frozen=True, array_like=True):
    """One block of thinking: how many characters of the text are its, and what it is signed with."""

    size: int
    signature: str
    redacted: bool


class _Proof(Struct, frozen=True, tag="anthropic"):
    """What is kept in `Assistant.signature`. The tag tells it from other providers'."""

    blocks: tuple[_Block, ...]


class Anthropic:
    """A model behind messages."""

    def __init__(self, agent: Agent, name: str, key: str) -> None:
        from anthropic import AsyncAnthropic
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        # The SDK appends /v1 itself. Times and tries are limited by whoever asks, who has a span of it, too.
        self._client = AsyncAnthropic(
            api_key=key,
            base_url=re.sub(r"/(v1/?)?$", "", agent.base_url or _ANTHROPIC),
            max_retries=0,
            timeout=None,
            open_telemetry={"traces": False, "propagation": False},
        )
        if agent.base_url:  # what the environment has for Anthropic, perhaps a gateway's key, is not for this server
            self._client._custom_headers = {}
        self.model = AnthropicModel(name, provider=AnthropicProvider(anthropic_client=self._client))

    def thinking(self, entry: Assistant) -> "list[ThinkingPart]":
        """The signed blocks, as they came. Thinking without a signature, or with another provider's, is refused."""
        from pydantic_ai.messages import ThinkingPart

        blocks, text = _blocks(entry.signature), entry.thinking or ""
        if sum(block.size for block in blocks) != len(text):
            return []
        parts, at = [], 0
        for block in blocks:
            content, at = text[at : at + block.size], at + block.size
            if block.signature:
                name = _REDACTED if block.redacted else None
                part = ThinkingPart(content, id=name, signature=block.signature, provider_name=self.model.system)
                parts.append(part)
        return parts

    def signature(self, parts: "Sequence[ThinkingPart]") -> str | None:
        """The signatures of all blocks, and where each begins. None where none is signed."""
        blocks = tuple(_Block(len(part.content), part.signature or "", part.id == _REDACTED) for part in parts)
        if not any(block.signature for block in blocks):
            return None
        return msgspec.json.encode(_Proof(blocks)).decode()

    def tools(self, prompt: Prompt) -> tuple[Tool, ...]:
        """Those of the prompt; where it has none, those called before: without tools such calls are refused."""
        if prompt.tools:
            return prompt.tools
        calls = (use for entry in prompt.entries if isinstance(entry, Assistant) for use in entry.calls)
        return tuple({use.tool: Tool(use.tool, "Not available any more.", _ANYTHING) for use in calls}.values())

    async def aclose(self) -> None:
        """Close the connections; requests that run fail."""
        await self._client.close()


def _blocks(signature: str | None) -> tuple[_Block, ...]:
    try:
        return msgspec.json.decode(signature or "", type=_Proof).blocks
    except (msgspec.DecodeError, UnicodeEncodeError):
        return ()
