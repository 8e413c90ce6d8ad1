"""Provider: what differs from one provider of models to the next, where pydantic-ai does not hide it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from agent_runner.prompt import Assistant, Prompt, Tool

if TYPE_CHECKING:
    from pydantic_ai.messages import ThinkingPart
    from pydantic_ai.models import Model


class Provider(Protocol):
    """One model of one provider, with a client of its own that tries every request once."""

    @property
    def model(self) -> "Model":
        """The model, as pydantic-ai has it."""

    def thinking(self, entry: Assistant) -> "list[ThinkingPart]":
        """What the provider wants back of a response's thinking; nothing where it would refuse it."""

    def signature(self, parts: "Sequence[ThinkingPart]") -> str | None:
        """What `thinking` needs beside the text, to be kept in `Assistant.signature`."""

    def tools(self, prompt: Prompt) -> tuple[Tool, ...]:
        """The tools that a request names."""

    async def aclose(self) -> None:
        """Close the connections; requests that run fail."""
