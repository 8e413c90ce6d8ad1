"""Model: one request to a language model at a time, streamed.

    what went wrong                                                             code
    refused, lost or cut connection; 5xx; what cannot be understood; silence    model_unavailable
    429                                                                         model_rate_limited
    the conversation exceeds the model's context                                context_too_long
    the whole request takes too long                                            turn_timeout
    401, 403, 404, exhausted quota, any other refusal; withheld by a filter;    agent_failed
    a tool whose schema is none

A request is tried once: whoever holds the turn decides whether it is tried again. What the model or
its server said is in no failure's text and in no span: there may be content or keys in it.
"""

import os
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import urlsplit

from msgspec import Struct

from agent_runner.prompt import Prompt, Use
from contracts import events
from contracts.config import Agent, ConfigError
from contracts.errors import Code, MillraceError

if TYPE_CHECKING:
    from agent_runner.models.provider import Provider

KEY_VARIABLES = {"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY"}
"""The providers, and where each one's key is unless `api_key_env` says otherwise."""

_NO_KEY = "none"  # servers that want no key get this one


class Piece(Struct, frozen=True):
    """The next piece of a response."""

    text: str
    kind: Literal["text", "thinking"] = "text"


class Said(Struct, frozen=True):
    """How a response ended, and what it calls, in order.

    `usage` is None where the server does not tell. `signature` goes back with the thinking, in `Assistant`. A call's
    `tool_call_id` is empty. `finish_reason` is `tool_call` exactly if there are calls.
    """

    finish_reason: events.FinishReason = "stop"
    usage: dict[str, int] | None = None
    calls: tuple[Use, ...] = ()
    signature: str | None = None


class Timeouts(Struct, frozen=True):
    """How long a request may take, in seconds: to its first piece, from piece to piece, altogether.

    Where a model thinks and does not show what, its next piece is a first one.
    """

    first: float
    idle: float
    total: float

    @classmethod
    def of(cls, agent: Agent) -> "Timeouts":
        """Those of an agent."""
        return cls(agent.first_seconds, agent.idle_seconds, agent.request_seconds)


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

    def stream(self, prompt: Prompt) -> AsyncGenerator[Piece | Said]:
        """The pieces of one response in order, then one Said. Raises ModelFailure.

        When the iterator is closed or the task that iterates is cancelled, the request ends and its
        connection is closed.
        """

    async def aclose(self) -> None:
        """Close the connections; requests that run fail."""


def open_model(agent: Agent, *, env: Mapping[str, str] = os.environ) -> Model:
    """The model of an agent with `model = "provider:name"`, at the provider's or at a compatible server.

    Connects to nothing. The first call imports pydantic-ai, which blocks for a second or two.
    Raises ConfigError.
    """
    key = check(agent, env=env)
    provider, _, name = str(agent.model).partition(":")
    from agent_runner.models.stream import StreamedModel  # which imports this module

    try:
        return StreamedModel(agent, _opener(provider)(agent, name, key))
    except ImportError as error:
        raise _without(agent, provider) from error


def check(agent: Agent, *, env: Mapping[str, str] = os.environ) -> str:
    """The key of a model that can be opened, as far as that is known without a request. Imports nothing, takes no time.

    Raises ConfigError for a provider that is unknown or not installed, a URL that is none, and a key that is not set.
    """
    provider, _, name = (agent.model or "").partition(":")
    if provider not in KEY_VARIABLES or not name:
        known = ", ".join(f"`{known}:`" for known in KEY_VARIABLES)
        raise ConfigError(f"model {agent.model!r}: the providers are {known}")
    if agent.base_url is not None and (problem := _problem(agent.base_url)):
        raise ConfigError(f"model {agent.model!r}: `base_url` {problem}")
    if not all(map(find_spec, ("pydantic_ai", provider))):
        raise _without(agent, provider)
    return _key(agent, env)


def _problem(url: str) -> str | None:
    """What a URL cannot be: the paths of requests are appended to it, and it may be in a log."""
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return "begins with http:// or https:// and a host"
        if parts.port == 0:
            return "has no port 0"
    except ValueError as error:
        return f"is no URL: {error}"
    if parts.username is not None or parts.query or parts.fragment:
        return "has no user, no query and no fragment: a key belongs into `api_key_env`"
    return None


def _without(agent: Agent, provider: str) -> ConfigError:
    return ConfigError(f"model {agent.model!r} needs the extra `{provider}`: pip install 'millrace[{provider}]'")


def _opener(provider: str) -> "Callable[[Agent, str, str], Provider]":
    from agent_runner.models.anthropic import Anthropic
    from agent_runner.models.openai import OpenAI

    return Anthropic if provider == "anthropic" else OpenAI


def key_variable(agent: Agent) -> str | None:
    """The variable with the agent's key. None: a server of one's own gets only a key that is meant for it."""
    return agent.api_key_env or (None if agent.base_url else KEY_VARIABLES[(agent.model or "").partition(":")[0]])


def _key(agent: Agent, env: Mapping[str, str]) -> str:
    variable = key_variable(agent)
    if variable is None:
        return _NO_KEY
    key = env.get(variable, "").strip()
    if not re.fullmatch(r"[!-~]+", key):
        problem = "is no key" if key else "is not set"
        raise ConfigError(f"model {agent.model!r}: the environment variable {variable} {problem}")
    return key
