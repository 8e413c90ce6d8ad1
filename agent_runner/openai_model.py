"""A model behind OpenAI's chat completions. The only code that knows pydantic-ai.

Importing this module imports neither pydantic-ai nor openai; the first model does.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from agent_runner.conversation import Entry
from agent_runner.model import DEFAULT_KEY_ENV, ModelFailure, Piece, Said, Timeouts
from contracts import events
from contracts.config import Agent
from contracts.errors import Code

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from pydantic_ai import messages
    from pydantic_ai.models.openai import OpenAIChatModel

AHEAD = 256
"""Pieces that may wait for whoever reads them; a model that is further ahead waits."""

_OPENAI = "https://api.openai.com/v1"
_TOO_LONG = re.compile(r"context[ _](length|window|size)|(prompt|input) is too long", re.I)
_FINISH: dict[str | None, events.FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_call": "tool_call",
}


class OpenAIModel:
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
        """Close the connections; requests that run fail."""
        await self._client.close()

    async def stream(self, conversation: Sequence[Entry]) -> AsyncGenerator[Piece | Said]:
        """As `Model` promises. At most `AHEAD` pieces wait for the reader."""
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
