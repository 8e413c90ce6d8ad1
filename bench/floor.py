"""The floor: what nats-server, nats-py and one WebSocket hop cost, whatever is built on them.

Three processes, as in Millrace: nats-server, `python -m bench.floor edge` and `… runner`. The edge
appends a client's message to a JetStream stream and forwards what the stream republishes for the
session. The runner takes messages from a durable pull consumer and appends deltas, each awaiting
its PubAck. No identity, no fold, no fencing, no replay; just enough frames for bench/client.py.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from secrets import token_hex
from time import monotonic, monotonic_ns
from typing import Any

import msgspec
import nats
import nats.errors
import uvicorn
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, RePublish, StorageType, StreamConfig

encode, decode = msgspec.json.encode, msgspec.json.decode
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
STREAM = StreamConfig(
    name="LOG",
    subjects=["log.>"],
    storage=StorageType.FILE,
    republish=RePublish(src="log.>", dest="live.>"),
    allow_direct=True,
)
RUNNER = ConsumerConfig(durable_name="runner", filter_subject="log.*.message", ack_wait=300)


class Edge:
    """A raw ASGI application: `POST /api/v1/sessions`, `/readyz` and the session socket."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._log = client.jetstream()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request or socket."""
        if scope["type"] == "websocket":
            await self._socket(scope["path"].split("/")[4], receive, send)
        elif scope["type"] == "http":
            body = encode({"session_id": token_hex(8)})
            status = 201 if scope["method"] == "POST" else 200
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": body})

    async def _socket(self, session_id: str, receive: Receive, send: Send) -> None:
        async def forward(message: Msg) -> None:
            with suppress(OSError):
                await send({"type": "websocket.send", "text": message.data.decode()})

        async def tell(**frame: object) -> None:
            await send({"type": "websocket.send", "text": encode(frame).decode()})

        await receive()
        await send({"type": "websocket.accept"})
        live = await self._client.subscribe(f"live.{session_id}.>", cb=forward)
        await tell(type="connected", session_id=session_id)
        await tell(type="replay_complete", replayed=0)
        while (event := await receive())["type"] == "websocket.receive":
            frame = decode(event["text"])
            frame |= {"message_id": token_hex(8), "role": "user"}
            ack = await self._log.publish(f"log.{session_id}.message", encode(frame))
            named = {key: frame[key] for key in ("client_message_id", "message_id")}
            await tell(type="message_accepted", cursor=str(ack.seq), **named)
        await live.unsubscribe()


class Answer:
    """One answer on its way into the log. With `coalesce`, what piles up during an append goes
    into the next one if the program sets no pace; otherwise every delta is an append."""

    def __init__(self, log: JetStreamContext, session_id: str, coalesce: bool) -> None:
        self._log = log
        self._subject = f"log.{session_id}"
        self._coalesce = coalesce
        self._id = token_hex(8)
        self._text: list[str] = []
        self._chars = 0

    async def stream(self, deltas: int, interval_ms: int, size: int) -> None:
        """Produce and append; delta i is stamped when it is due, `interval_ms` after i - 1."""
        begin, in_flight = monotonic(), None
        pending: list[str] = []
        for i in range(deltas):
            pending.append(f"{i} {monotonic_ns()} ".ljust(size - 1) + "\n")
            if not (self._coalesce and interval_ms == 0):
                await self._append(pending)
            elif in_flight is None or in_flight.done():
                in_flight = asyncio.create_task(self._append(pending))
            due = begin + (i + 1) * interval_ms / 1000 - monotonic()
            await asyncio.sleep(max(0.0, due))
        if in_flight is not None:
            await in_flight
        await self._append(pending)

    async def end(self, reply_to: str) -> None:
        """Append `stream_end` and `turn_end`."""
        end = {"type": "stream_end", "message_id": self._id, "content": "".join(self._text)}
        await self._log.publish(f"{self._subject}.agent", encode(end | {"finish_reason": "stop"}))
        end = {"type": "turn_end", "reply_to": reply_to, "status": "completed"}
        await self._log.publish(f"{self._subject}.agent", encode(end))

    async def _append(self, pending: list[str]) -> None:
        if not pending:
            return
        delta = "".join(pending)
        pending.clear()
        frame = {"type": "stream_delta", "message_id": self._id, "delta": delta}
        data = encode(frame | {"offset": self._chars})
        self._text.append(delta)
        self._chars += len(delta)
        await self._log.publish(f"{self._subject}.delta", data, timeout=10)


async def edge(client: Client, port: int) -> None:
    """Serve until SIGTERM."""
    config = uvicorn.Config(
        Edge(client),
        port=port,
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    await uvicorn.Server(config).serve()


async def runner(client: Client, coalesce: bool) -> None:
    """Run every message's program as a task of its own until the process is ended."""
    log = client.jetstream()
    inbox = await log.pull_subscribe("log.*.message", "runner", "LOG", RUNNER)

    async def run(message: Msg) -> None:
        frame = decode(message.data)
        answer = Answer(log, message.subject.split(".")[1], coalesce)
        for step in decode(frame["content"]):
            await answer.stream(**step["stream"])
        await answer.end(frame["message_id"])
        await message.ack()

    async with asyncio.TaskGroup() as turns:
        while True:
            with suppress(nats.errors.TimeoutError):
                for message in await inbox.fetch(1, timeout=30):
                    turns.create_task(run(message))


async def main(role: str, url: str, option: str) -> None:
    """Be the edge on port `option`, or the runner (`option`: `coalesce` or `single`)."""
    async with await nats.connect(url) as client:
        await client.jetstream().add_stream(STREAM)
        if role == "edge":
            await edge(client, int(option))
        else:
            await runner(client, option == "coalesce")


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
