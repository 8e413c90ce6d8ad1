"""A client of the edge's server-sent events: httpx and httpx-sse. It knows nothing of the code."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent

from tests.harness.client import WITHIN, Frame


class Listener:
    """One stream. Keeps every frame, and the last id."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.frames: list[Frame] = []
        self.events: list[ServerSentEvent] = []
        self.last_id = ""
        self._events = EventSource(response).aiter_sse()

    async def receive(self) -> Frame:
        """The next frame. Raises StopAsyncIteration where the server ended the stream."""
        async with asyncio.timeout(WITHIN):
            event = await anext(self._events)
        self.events.append(event)
        self.last_id = event.id or self.last_id
        if not event.data:
            return {"type": "", "retry": event.retry}
        frame: Frame = json.loads(event.data)
        self.frames.append(frame)
        return frame

    async def until(self, type_: str, where: Callable[[Frame], bool] = lambda _frame: True) -> Frame:
        """The next frame of that type for which `where` holds."""
        while True:
            frame = await self.receive()
            if frame["type"] == type_ and where(frame):
                return frame

    async def rest(self) -> list[Frame]:
        """What comes until the server ends the stream."""
        found = []
        try:
            while True:
                found.append(await self.receive())
        except StopAsyncIteration:
            return found

    def of(self, *types: str) -> list[Frame]:
        """The frames of these types, in order."""
        return [frame for frame in self.frames if frame["type"] in types]


@asynccontextmanager
async def listening(url: str, token: str, *, after: str | None = None, **options: Any) -> AsyncIterator[Listener]:
    """A stream. `after` is sent as a browser does, in `Last-Event-ID`."""
    headers = {"accept": "text/event-stream"} | ({"authorization": f"Bearer {token}"} if token else {})
    headers |= options.pop("headers", {})
    if after is not None:
        headers["last-event-id"] = after
    async with (
        httpx.AsyncClient(timeout=WITHIN, trust_env=False) as client,
        client.stream(options.pop("method", "GET"), url, headers=headers, **options) as response,
    ):
        yield Listener(response)
