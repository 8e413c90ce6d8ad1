"""Model: one request to a language model at a time, streamed. The only code that knows pydantic-ai.

    what went wrong                                                             code
    refused, lost or cut connection; 5xx; what cannot be understood; silence    model_unavailable
    429                                                                         model_rate_limited
    the conversation exceeds the model's context                                context_too_long
    the whole request takes too long                                            turn_timeout
    401, 403, 404, exhausted quota, any other refusal; withheld by a filter     agent_failed

A request is tried once: whoever holds the turn decides whether it is tried again. What the model or
its server said is in no failure's text and in no span: there may be content or keys in it.
"""

import asyncio
import os
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from msgspec import Struct

from agent_runner.conversation import Entry
from contracts import events
from contracts.config import Agent, ConfigError
from contracts.errors import Code, MillraceError

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from pydantic_ai import messages
    from pydantic_ai.models.openai import OpenAIChatModel

AHEAD = 256
"""Pieces that may wait for whoever reads them; a model that is further ahead waits."""

DEFAULT_KEY_ENV = "OPENAI_API_KEY"
_OPENAI = "https://api.openai.com/v1"
_NO_KEY = "none"  # servers that want no key get this one
_TOO_LONG = re.compile(r"context[ _](length|window|size)|(prompt|input) is too long", re.I)
_FINISH: dict[str | None, events.FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_call": "tool_call",
}


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
    try:
        return _OpenAI(agent, name, key, timeouts)
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


class _OpenAI:
    """A model behind OpenAI's chat completions."""

    def __init__(self, agent: Agent, name: str, key: str, timeouts: Timeouts) -> None:
        from openai import AsyncOpenAI
        from pydantic_ai.models.instrumented import InstrumentationSettings

        self._agent = agent
        self._timeouts = timeouts
        # Times and tries are limited here alone. Without a `base_url` the SDK asks the environment.
        self._client = AsyncOpenAI(api_key=key, base_url=agent.base_url or _OPENAI, max_retries=0, timeout=None)
        self._model = _chat_model(name, self._client, own=agent.base_url is not None)
        self._instrument = InstrumentationSettings(include_content=False, include_model_request_parameters=False)

    async def aclose(self) -> None:
        await self._client.close()

    async def stream(self, conversation: Sequence[Entry]) -> AsyncGenerator[Piece | Said]:
        # The request has a task, and so a context, of its own: its span does not become the
        # reader's, and the iterator can be closed from any task.
        pieces: asyncio.Queue[Piece | None] = asyncio.Queue()
        room = asyncio.Semaphore(AHEAD)

        async def put(piece: Piece) -> None:
            await room.acquire()
            pieces.put_nowait(piece)

        def reader_done(task: asyncio.Task[object]) -> None:
            if task.cancelled():
                request.cancel()

        request = asyncio.create_task(self._request(conversation, put), name="model_request")
        request.add_done_callback(lambda _: pieces.put_nowait(None))
        reader = asyncio.current_task()
        assert reader
        reader.add_done_callback(reader_done)
        try:
            while (piece := await pieces.get()) is not None:
                room.release()
                yield piece
            yield request.result()
        finally:
            reader.remove_done_callback(reader_done)
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)

    async def _request(self, conversation: Sequence[Entry], put: Callable[[Piece], Awaitable[None]]) -> Said:
        total = asyncio.timeout(self._timeouts.total)
        idle = asyncio.timeout(self._timeouts.first)
        try:
            async with total, idle:
                return await self._read(_history(conversation), idle, put)
        except ModelFailure:
            raise
        except Exception as error:  # the libraries raise anything for nonsense from the server
            if total.expired():
                text = f"the model took more than {self._timeouts.total:g} s"
                raise ModelFailure(Code.TURN_TIMEOUT, text) from error
            if idle.expired():
                raise ModelFailure(Code.MODEL_UNAVAILABLE, "the model fell silent") from error
            raise _failure(error, self._agent) from error

    async def _read(
        self,
        history: list["messages.ModelMessage"],
        idle: asyncio.Timeout,
        put: Callable[[Piece], Awaitable[None]],
    ) -> Said:
        from pydantic_ai.direct import model_request_stream

        loop = asyncio.get_running_loop()
        async with model_request_stream(self._model, history, instrument=self._instrument) as response:
            async for event in response:
                if piece := _piece(event):
                    idle.reschedule(None)  # waiting for the reader is not the model's silence
                    await put(piece)
                idle.reschedule(loop.time() + self._timeouts.idle)
            return _said(response.get())


def _chat_model(name: str, client: "AsyncOpenAI", *, own: bool) -> "OpenAIChatModel":
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.profiles.openai import OpenAIModelProfile
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    # Without it an answer that a proxy breaks off, but ends properly, would pass for a whole one.
    profile = OpenAIModelProfile(openai_chat_streaming_requires_finish_reason=True)
    if own:
        compatible = OpenAICompatibleProvider("openai-compatible", openai_client=client)
        return OpenAIChatModel(name, provider=compatible, profile=profile)
    return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=client), profile=profile)


def _history(conversation: Sequence[Entry]) -> list["messages.ModelMessage"]:
    from pydantic_ai import messages

    history: list[messages.ModelMessage] = []
    for entry in conversation:
        match entry.role:
            case "system":
                system = messages.SystemPromptPart(content=entry.content)
                history.append(messages.ModelRequest(parts=[system]))
            case "user":
                user = messages.UserPromptPart(content=entry.content)
                history.append(messages.ModelRequest(parts=[user]))
            case "assistant":
                text = messages.TextPart(content=entry.content)
                history.append(messages.ModelResponse(parts=[text]))
    return history


def _piece(event: object) -> Piece | None:
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
            return Piece(text)
        case PartStartEvent(part=ThinkingPart(content=str(text))) if text:
            return Piece(text, "thinking")
        case PartDeltaEvent(delta=TextPartDelta(content_delta=str(text))) if text:
            return Piece(text)
        case PartDeltaEvent(delta=ThinkingPartDelta(content_delta=str(text))) if text:
            return Piece(text, "thinking")
    return None


def _said(response: "messages.ModelResponse") -> Said:
    if response.finish_reason == "content_filter":
        raise ModelFailure(Code.AGENT_FAILED, "the model's provider withholds the answer")
    if (response.provider_details or {}).get("finish_reason") == "error":
        raise ModelFailure(Code.MODEL_UNAVAILABLE, "the model did not finish its answer")
    reason = _FINISH.get(response.finish_reason, "stop")  # some servers have reasons of their own
    used = response.usage
    if used.unmeasured_requests:
        return Said(reason)
    counts = {
        "input_tokens": used.input_tokens,
        "output_tokens": used.output_tokens,
        "cache_read_tokens": used.cache_read_tokens,
        "reasoning_tokens": used.output_reasoning_tokens,
    }
    return Said(reason, {name: count for name, count in counts.items() if count})


def _failure(error: Exception, agent: Agent) -> ModelFailure:  # noqa: C901, PLR0911 - a table
    from pydantic_ai import exceptions as ai

    where = f"the server of {agent.model!r}"
    match error:
        case ai.ModelRateLimitError():
            return ModelFailure(Code.MODEL_RATE_LIMITED, "", error.retry_after)
        case ai.ModelContextWindowExceededError():
            return ModelFailure(Code.CONTEXT_TOO_LONG)
        case ai.ModelQuotaExceededError():
            return ModelFailure(Code.AGENT_FAILED, f"{where} says that the quota is used up")
        case ai.ModelAuthenticationError():
            key = agent.api_key_env or (None if agent.base_url else DEFAULT_KEY_ENV)
            problem = f"refuses the key in {key}" if key else "wants a key: set `api_key_env`"
            return ModelFailure(Code.AGENT_FAILED, f"{where} {problem}")
        case ai.ModelNotFoundError():
            text = f"{where} does not know it: look at `model` and `base_url`"
            return ModelFailure(Code.AGENT_FAILED, text)
        case ai.ModelAPIError(body=body) if body and _TOO_LONG.search(str(body)):
            return ModelFailure(Code.CONTEXT_TOO_LONG)
        case ai.ModelHTTPError(status_code=status) if status < 500 and status != 408:
            return ModelFailure(Code.AGENT_FAILED, f"{where} refuses the request ({status})")
        case ai.ModelRequestRejectedError():
            return ModelFailure(Code.AGENT_FAILED, f"{where} refuses the request")
        case ai.ModelConnectionError():
            text = f"{where} cannot be reached, or the connection broke"
            return ModelFailure(Code.MODEL_UNAVAILABLE, text)
        case ai.ModelHTTPError(status_code=status):
            text = f"{where} failed ({status})"
            return ModelFailure(Code.MODEL_UNAVAILABLE, text, error.retry_after)
    return ModelFailure(Code.MODEL_UNAVAILABLE, f"{where} sent no whole answer")
