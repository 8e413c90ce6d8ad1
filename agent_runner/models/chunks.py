"""Chunks: what servers that call themselves OpenAI-compatible send, as OpenAI would have sent it.

Each rule is here because a server in use breaks OpenAI's form so, and the libraries take it at its word.
"""

import json
from collections.abc import AsyncIterable, AsyncIterator
from itertools import count

from msgspec import Struct
from openai import AsyncOpenAI
from openai._streaming import ServerSentEvent, SSEDecoder
from openai.types.chat import ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import ChoiceDelta, ChoiceDeltaToolCall
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIStreamedResponse


class _Decoder(SSEDecoder):
    """Passes over events without data (`event: keepalive`, `retry: 3000`), as the standard of SSE says."""

    def decode(self, line: str) -> ServerSentEvent | None:
        event = super().decode(line)
        return event if event and event.data else None


class Client(AsyncOpenAI):
    """OpenAI's client."""

    def _make_sse_decoder(self) -> SSEDecoder:
        return _Decoder()


class _Streamed(OpenAIStreamedResponse):
    def _validate_response(self) -> AsyncIterable[ChatCompletionChunk]:
        return corrected(self._response)


class ChatModel(OpenAIChatModel):
    """pydantic-ai's model."""

    @property
    def _streamed_response_cls(self) -> type[OpenAIStreamedResponse]:
        return _Streamed


async def corrected(chunks: AsyncIterable[ChatCompletionChunk]) -> AsyncIterator[ChatCompletionChunk]:
    """The chunks, corrected in place.

    Usage is told once, at the end: where every chunk tells it, or the last two do, it is what was used so far, and
    would be added up. `created` is nobody's and in any unit. The chunk with the reason to finish
    may have no delta.
    """
    usage, calls = None, _Calls()
    async for chunk in chunks:
        usage, chunk.usage = chunk.usage or usage, None
        chunk.created = 0
        for choice in chunk.choices or ():
            choice.delta = choice.delta or ChoiceDelta()
            for call in choice.delta.tool_calls or ():
                calls.correct(call)
        yield chunk
    if usage:
        yield ChatCompletionChunk.model_construct(
            id="", choices=[], created=0, model="", object="chat.completion.chunk", usage=usage
        )


class _Call(Struct):
    number: int
    call_id: str
    name: str = ""


class _Calls:
    """The calls of one response. Each gets a number of its own."""

    def __init__(self) -> None:
        self._numbers = count()
        self._at: dict[int, _Call] = {}

    def correct(self, call: ChoiceDeltaToolCall) -> None:
        """Set right its number, where another call began at the same index; its name, where each fragment has it."""
        function, given = call.function, call.id or ""
        if function and isinstance(function.arguments, dict):
            function.arguments = json.dumps(function.arguments)
        if not isinstance(call.index, int):
            return  # without it, fragments belong to the last call: the library knows
        name = (function and function.name) or ""
        known = self._at.get(call.index)
        if known is None or (given and known.call_id and given != known.call_id and name):
            known = self._at[call.index] = _Call(next(self._numbers), given)
        known.call_id = known.call_id or given
        call.index = known.number
        if function and name:
            if name == known.name:
                function.name = None
            else:
                known.name += name
