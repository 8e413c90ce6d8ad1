"""OpenAI's chat completions: OpenAI's own, or any compatible server's (vLLM, Ollama, llama.cpp)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent_runner.prompt import Assistant, Prompt, Tool
from contracts.config import Agent

if TYPE_CHECKING:
    from pydantic_ai.messages import ThinkingPart

_OPENAI = "https://api.openai.com/v1"
_FIELD = "reasoning_content"


class OpenAI:
    """A model behind chat completions."""

    def __init__(self, agent: Agent, name: str, key: str) -> None:
        from pydantic_ai.profiles.openai import OpenAIModelProfile
        from pydantic_ai.providers.openai import OpenAIProvider
        from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

        from agent_runner.models.chunks import ChatModel, Client

        # Times and tries are limited by whoever asks. Without a `base_url` the SDK asks the environment.
        self._client = Client(api_key=key, base_url=agent.base_url or _OPENAI, max_retries=0, timeout=None)
        self._own = agent.base_url is not None
        # Without it an answer that a proxy breaks off, but ends properly, would pass for a whole one.
        profile = OpenAIModelProfile(openai_chat_streaming_requires_finish_reason=True)
        if self._own:
            # What the environment has for OpenAI, an account or a gateway's key, is not for this server.
            self._client.organization = self._client.project = None
            self._client._custom_headers = {}
            profile["openai_chat_send_back_thinking_parts"] = "field"
            profile["openai_chat_thinking_field"] = _FIELD
            profile["openai_chat_supports_max_completion_tokens"] = False  # all of them know `max_tokens`
            compatible = OpenAICompatibleProvider("openai-compatible", openai_client=self._client)
            self.model = ChatModel(name, provider=compatible, profile=profile)
        else:
            self.model = ChatModel(name, provider=OpenAIProvider(openai_client=self._client), profile=profile)

    def thinking(self, entry: Assistant) -> "list[ThinkingPart]":
        """The text, in the field that it came in; there are models that want it back with their calls.

        Only where that was `reasoning_content`: servers that say `reasoning`, or write tags, may refuse either.
        """
        from pydantic_ai.messages import ThinkingPart

        return [ThinkingPart(entry.thinking)] if self._own and entry.thinking and entry.signature == _FIELD else []

    def signature(self, parts: "Sequence[ThinkingPart]") -> str | None:
        """The field that the text came in."""
        return _FIELD if parts and all(part.id == _FIELD for part in parts) else None

    def tools(self, prompt: Prompt) -> tuple[Tool, ...]:
        """Those of the prompt."""
        return prompt.tools

    async def aclose(self) -> None:
        """Close the connections; requests that run fail."""
        await self._client.close()
