"""Floods: what a client may send without end costs an edge no more than a bound."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from edge import protocol
from edge.protocol import EdgeWebSocket
from tests.edge.serving import Held, Receive, Send, deflated, masked, served
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

FRAME = 64 * 1024
TEXT, COMPRESSED, CLOSE, PING, NEXT, LAST = 0x81, 0xC1, 0x88, 0x89, 0x00, 0x80


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both loops: an edge runs on uvloop, whose transports are its own."""
    return "asyncio", {"use_uvloop": request.param}


@asynccontextmanager
async def _connected(held: Held, *, compression: bool = False) -> AsyncIterator[tuple[EdgeWebSocket, ClientConnection]]:
    """The edge's end, and a client's that does not speak by itself."""
    async with (
        served(held, compression=compression) as port,
        connect(f"ws://127.0.0.1:{port}", ping_interval=None) as client,
    ):
        await until(lambda: held.sockets)
        async with asyncio.timeout(20):
            yield held.sockets[0], client
        held.let_go.set()


async def test_messages_that_inflate_a_thousandfold_are_inflated_as_they_are_taken() -> None:
    """Issue: inflated size bounded. Each message is; a packet may hold a thousand of them."""
    bomb = masked(COMPRESSED, deflated(b"x" * FRAME))
    number = 200_000 // len(bomb)
    assert number > 2000
    held = Held()
    async with _connected(held, compression=True) as (ours, client):
        tracemalloc.start()
        try:
            client.transport.write(bomb * number)
            await until(lambda: ours.read_paused)
            waiting = ours.queue.qsize()
            for _ in range(100):
                message = await ours.receive()
                assert len(message["text"]) == FRAME
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert waiting <= protocol.PIECE // len(bomb) + 1
        assert peak < 64 * FRAME


async def test_pings_whose_answers_nobody_reads_cost_one_answer() -> None:
    """Standard: RFC 6455, 5.5.3. The last ping is answered when there is room; nothing piles up until then."""
    held = Held()
    async with _connected(held) as (ours, client):
        client.transport.pause_reading()
        client.transport.write(masked(PING, b"x" * 125) * 50_000)
        answered = await client.ping("the last")
        await client.send("they have all arrived")
        await until(lambda: ours.read_paused, within=15.0)
        assert not ours.has_room
        assert ours.transport.get_write_buffer_size() <= protocol.HIGH_WATER + 2 * protocol.PIECE
        client.transport.resume_reading()
        async with asyncio.timeout(5):
            await answered


async def test_empty_fragments_without_end_are_not_kept() -> None:
    """A message is bounded in its bytes, and these have none."""
    held = Held()
    async with _connected(held) as (ours, client):
        client.transport.write(masked(TEXT & 0x7F, b"a") + masked(NEXT, b"") * 20_000 + masked(NEXT, b"b"))
        await until(lambda: len(ours.frames) == 2)
        client.transport.write(masked(LAST, b""))
        await until(lambda: ours.read_paused)
        assert (await ours.receive())["text"] == "ab"


async def test_what_comes_in_one_packet_is_taken_in_order_and_whole() -> None:
    """Also where the client has gone by then: it was said."""
    heard: list[str] = []
    ended = asyncio.Event()

    async def listening(_scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            heard.append(message["text"])
            await asyncio.sleep(0)
        ended.set()

    said = [f"{number} {'x' * (number % 700)}" for number in range(500)]
    async with served(listening) as port, connect(f"ws://127.0.0.1:{port}") as client:
        client.transport.write(b"".join(masked(TEXT, text.encode()) for text in said))
        client.transport.write_eof()
        async with asyncio.timeout(5):
            await ended.wait()
    assert heard == said


async def test_a_close_is_completed_behind_whatever_was_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """WIRE 1: a refused client reads its code at once, although nobody takes what it said."""
    monkeypatch.setattr(protocol, "CLOSING", 60.0)
    held = Held()
    async with _connected(held) as (ours, client):
        client.transport.write(masked(TEXT, b"x" * 100) * 3000)
        await until(lambda: ours.read_paused)
        held.let_go.set()
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            await client.wait_closed()
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 1012
        await until(lambda: ours.disconnected)


async def test_a_goodbye_behind_what_nobody_took_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client says nothing more after it: what waits is read on when the edge closes."""
    monkeypatch.setattr(protocol, "CLOSING", 60.0)
    held = Held()
    async with _connected(held) as (ours, client):
        client.transport.pause_reading()
        client.transport.write(masked(TEXT, b"x" * 100) * 300 + masked(CLOSE, b"\x03\xe8"))
        await until(lambda: ours.read_paused)
        held.let_go.set()
        await until(lambda: ours.disconnected)
        client.transport.resume_reading()
