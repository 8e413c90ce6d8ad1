"""The WebSocket class: shared compression, bounded inflation, clients that stop reading, handlers that only send."""

import asyncio
import json
import os
import socket
import zlib

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from broker import serve
from edge import protocol
from edge.protocol import compressed, text_frame
from tests.edge.serving import Held, echo, served
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

LONG = text_frame(json.dumps({"type": "stream_end", "content": "to be or not to be " * 300}).encode())


def _bits(number: int) -> list[ClientPerMessageDeflateFactory]:
    return [ClientPerMessageDeflateFactory(server_max_window_bits=number, client_max_window_bits=True)]


async def test_a_frame_for_many_sockets_is_compressed_once() -> None:
    """Decision 4 holds with compression too: one encoding for all who are sent the same."""
    held = Held()
    async with (
        served(held, compression=True) as port,
        connect(f"ws://127.0.0.1:{port}") as one,
        connect(f"ws://127.0.0.1:{port}") as two,
    ):
        await until(lambda: len(held.sockets) == 2)
        compressed.cache_clear()
        for each in held.sockets:
            each.write_frame(LONG)
        assert (compressed.cache_info().misses, compressed.cache_info().hits) == (1, 1)
        assert [await client.recv() for client in (one, two)] == [LONG[4:].decode()] * 2
        held.let_go.set()


@pytest.mark.parametrize("bits", [9, 10, 15])
async def test_a_client_gets_frames_in_the_window_that_it_can_hold(bits: int) -> None:
    """RFC 7692, 7.1.2.1: the client names the largest window; ours is never larger than 4 KiB."""
    held = Held()
    async with (
        served(held, compression=True) as port,
        connect(f"ws://127.0.0.1:{port}", compression=None, extensions=_bits(bits)) as client,
    ):
        await until(lambda: held.sockets)
        noise = text_frame(json.dumps({"content": [os.urandom(40).hex() for _ in range(100)] * 2}).encode())
        held.sockets[0].write_frame(noise)
        assert (await client.recv()).encode() == noise[4:]  # type: ignore[union-attr]
        held.let_go.set()


async def test_what_is_small_or_not_negotiated_is_sent_as_it_is() -> None:
    """Compression is the client's choice, and of no use for a delta."""
    held = Held()
    async with (
        served(held, compression=True) as port,
        connect(f"ws://127.0.0.1:{port}", compression=None) as plain,
        connect(f"ws://127.0.0.1:{port}") as able,
    ):
        await until(lambda: len(held.sockets) == 2)
        before = compressed.cache_info()
        small = text_frame(b'{"type":"ping"}')
        for each in held.sockets:
            each.write_frame(small)
        assert [await client.recv() for client in (plain, able)] == ['{"type":"ping"}'] * 2
        assert compressed.cache_info() == before
        assert compressed(text_frame(os.urandom(3000).hex().encode()), 12)[0] == 0xC1
        held.let_go.set()


async def test_without_the_setting_nothing_is_negotiated() -> None:
    """Off by default."""
    async with served(echo) as port, connect(f"ws://127.0.0.1:{port}") as client:
        assert client.response
        assert "Sec-WebSocket-Extensions" not in client.response.headers


@pytest.mark.parametrize("fragments", [1, 4])
async def test_what_inflates_beyond_a_frames_size_is_refused(fragments: int) -> None:
    """Issue: inflated size bounded. 64 KiB of nothing are some hundred bytes on the wire."""
    async with served(echo, compression=True) as port, connect(f"ws://127.0.0.1:{port}") as client:
        await client.send("x" * 60_000)
        assert await client.recv() == "x" * 60_000
        bomb = ["x" * (80_000 // fragments)] * fragments
        await client.send(bomb if fragments > 1 else bomb[0])
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 1009


async def test_a_frame_of_the_size_is_taken_and_a_larger_one_closes() -> None:
    """WIRE 1: 1009."""
    async with served(echo, frame_bytes=1000) as port, connect(f"ws://127.0.0.1:{port}") as client:
        await client.send("x" * 1000)
        assert len(await client.recv()) == 1000
        await client.send("x" * 1001)
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 1009


async def test_a_handler_that_only_sends_keeps_its_socket() -> None:
    """FACTS 5.3: uvicorn reads nothing between a message and the next `receive`; that is no silence of the client's."""
    held = Held()
    async with served(held) as port, connect(f"ws://127.0.0.1:{port}") as client:
        await until(lambda: held.sockets)
        ours = held.sockets[0]
        loop = asyncio.get_running_loop()
        spoke = ours.heard
        await until(lambda: loop.time() > spoke)
        assert ours.heard == spoke
        await client.send("anybody there?")
        await until(lambda: ours.read_paused)
        for _ in range(3):
            moment = loop.time()
            assert ours.heard >= moment
            ours.write_frame(LONG)
            assert await client.recv() == LONG[4:].decode()
        held.let_go.set()
        with pytest.raises(ConnectionClosed):
            await client.recv()
    assert held.ended == 1


async def test_a_client_that_reads_nothing_is_cut_off_when_the_handler_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """FACTS 5.3: a transport that is closed waits for its buffer to drain, for ever."""
    monkeypatch.setattr(protocol, "CLOSING", 0.1)
    held = Held()
    async with served(held) as port, connect(f"ws://127.0.0.1:{port}", max_size=None, close_timeout=0.1) as client:
        await until(lambda: held.sockets)
        ours = held.sockets[0]
        client.transport.pause_reading()
        filler = text_frame(b"x" * 100_000)
        while ours.has_room:
            ours.write_frame(filler)
        await until(lambda: not ours.has_room)
        assert ours.transport.get_write_buffer_size() <= protocol.HIGH_WATER + len(filler)
        ours.writable.set()  # so that the handler's close is written behind all that
        held.let_go.set()
        await until(lambda: ours.disconnected)
        assert not ours.is_open


async def test_what_is_accepted_has_a_bounded_buffer_and_an_end_for_silence() -> None:
    """FACTS 5.3, fix A: left to itself the kernel keeps 4 MB, for as long as the client lives."""
    listener = serve.listen("127.0.0.1", 0)
    with listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            buffer = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            assert serve.SEND_BUFFER <= buffer <= 2 * serve.SEND_BUFFER  # Linux counts its own needs twice
            timeout = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            assert timeout == serve.UNACKNOWLEDGED


def test_a_compressed_frame_inflates_to_the_same_text() -> None:
    """RFC 7692, 7.2.2: the client puts the empty block back."""
    frame = compressed(LONG, 12)
    assert len(frame) < len(LONG) / 10
    payload = frame[{126: 4, 127: 10}.get(frame[1], 2) :]
    assert zlib.decompressobj(wbits=-12).decompress(payload + b"\x00\x00\xff\xff") == LONG[4:]
