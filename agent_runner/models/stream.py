"""Streaming: requests to a model, through pydantic-ai, with limits on the time they take."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from agent_runner.model import ModelFailure, Piece, Said, Timeouts
from agent_runner.models import ask, hear
from agent_runner.models.failure import failure
from agent_runner.models.provider import Provider
from agent_runner.prompt import Prompt
from contracts.config import Agent
from contracts.errors import Code

AHEAD = 256
"""Pieces that may wait for whoever reads them; a model that is further ahead waits."""


class StreamedModel:
    """A provider's model."""

    def __init__(self, agent: Agent, provider: Provider) -> None:
        from pydantic_ai.models.instrumented import InstrumentationSettings

        self._agent = agent
        self._provider = provider
        self._timeouts = Timeouts.of(agent)
        self._settings = ask.settings(agent)
        self._instrument = InstrumentationSettings(include_content=False, include_model_request_parameters=False)

    async def aclose(self) -> None:
        """Close the connections; requests that run fail."""
        await self._provider.aclose()

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Piece | Said]:
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

        request = asyncio.create_task(self._request(prompt, put), name="model_request")
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

    async def _request(self, prompt: Prompt, put: Callable[[Piece], Awaitable[None]]) -> Said:
        total = asyncio.timeout(self._timeouts.total)
        idle = asyncio.timeout(self._timeouts.first)
        try:
            async with total, idle:
                return await self._read(prompt, idle, put)
        except ModelFailure:
            raise
        except Exception as error:  # the libraries raise anything for nonsense from the server
            if total.expired():
                text = f"the model took more than {self._timeouts.total:g} s"
                raise ModelFailure(Code.TURN_TIMEOUT, text) from error
            if idle.expired():
                raise ModelFailure(Code.MODEL_UNAVAILABLE, "the model fell silent") from error
            raise failure(error, self._agent) from error

    async def _read(self, prompt: Prompt, idle: asyncio.Timeout, put: Callable[[Piece], Awaitable[None]]) -> Said:
        from pydantic_ai.direct import model_request_stream

        loop = asyncio.get_running_loop()
        provider, names = self._provider, ask.names(prompt)
        async with model_request_stream(
            provider.model,
            ask.history(prompt, provider, names),
            model_settings=self._settings,
            model_request_parameters=ask.parameters(prompt, provider, names),
            instrument=self._instrument,
        ) as response:
            async for event in response:
                if piece := hear.piece(event):
                    idle.reschedule(None)  # waiting for the reader is not the model's silence
                    await put(piece)
                if piece or hear.is_call(event):
                    idle.reschedule(loop.time() + self._timeouts.idle)
                elif hear.is_silence(event):
                    idle.reschedule(loop.time() + self._timeouts.first)
            return hear.said(response.get(), provider, names)
