"""Model: one request to a language model at a time, streamed.

    what went wrong                                                             code
    refused, lost or cut connection; 5xx; what cannot be understood; silence    model_unavailable
    429                                                                         model_rate_limited
    the conversation exceeds the model's context                                context_too_long
    the whole request takes too long                                            turn_timeout
    401, 403, 404, exhausted quota, any other refusal; withheld by a filter     agent_failed

A request is tried once: whoever holds the turn decides whether it is tried again. What the model or
its server said is in no failure's text and in no span: there may be content or keys in it.
"""

import os
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from agent_runner.conversation import Entry
from contracts import events
from contracts.config import Agent, ConfigError
from contracts.errors import Code, MillraceError

DEFAULT_KEY_ENV = "OPENAI_API_KEY"
_NO_KEY = "none"  # servers that want no key get this one


class Piece(Struct, frozen=True):
    """The next piece of a response."""

    text: str
    kind: Literal["text", "thinking"] = "text"


class Said(Struct, frozen=True):
    """How a response ended. `usage` is None where the server does not tell."""

    finish_reason: events.FinishReason = "stop"
    usage: dict[str, int] | None = None


class Timeouts(Struct, frozen=True):
    """How long a request may take, in seconds: to its first piece, from piece to piece, altogether.

    A model that thinks silently needs long for the first piece.
    """

    first: float = 300.0
    idle: float = 60.0
    total: float = 600.0


class ModelFailure(MillraceError):
    """There is no whole response, though pieces of it may have come.

    `retry_after`: seconds that the server asks to wait.
    """

    def __init__(self, code: Code, text: str = "", retry_after: float | None = None) -> None:
        super().__init__(code, text)
        self.retry_after = retry_after

    @property
    def text(self) -> str:
        """A sentence for people."""
        return str(self)

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.entry.retryable


class Model(Protocol):
    """A language model. Many requests may run at once."""

    def stream(self, conversation: Sequence[Entry]) -> AsyncGenerator[Piece | Said]:
        """The pieces of one response in order, then one Said. Raises ModelFailure.

        When the iterator is closed or the task that iterates is cancelled, the request ends and its
        connection is closed.
        """

    async def aclose(self) -> None:
        """Close the connections; requests that run fail."""


def open_model(
    agent: Agent,
    *,
    env: Mapping[str, str] = os.environ,
    timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
) -> Model:
    """The model of an agent with `model = "openai:…"`: OpenAI's, or any compatible server's.

    Connects to nothing. The first call imports pydantic-ai, which blocks for a second or two.
    Raises ConfigError.
    """
    provider, _, name = (agent.model or "").partition(":")
    if provider != "openai" or not name:
        raise ConfigError(f"model {agent.model!r}: the only provider is `openai:`")
    if agent.base_url is not None and not re.match(r"https?://.", agent.base_url):
        raise ConfigError(f"model {agent.model!r}: `base_url` begins with http:// or https://")
    key = _key(agent, env)
    from agent_runner.openai_model import OpenAIModel  # which imports this module

    try:
        return OpenAIModel(agent, name, key, timeouts)
    except ImportError as error:
        raise ConfigError(f"model {agent.model!r} needs the extra `openai`: pip install 'millrace[openai]'") from error


def _key(agent: Agent, env: Mapping[str, str]) -> str:
    variable = agent.api_key_env or (None if agent.base_url else DEFAULT_KEY_ENV)
    if variable is None:
        return _NO_KEY
    key = env.get(variable, "").strip()
    if not re.fullmatch(r"[!-~]+", key):
        problem = "is no key" if key else "is not set"
        raise ConfigError(f"model {agent.model!r}: the environment variable {variable} {problem}")
    return key
