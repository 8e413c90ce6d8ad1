"""The HTTP class: requests that trickle in, heads without end, answers that nobody reads."""

import asyncio
from typing import Any

import pytest

from edge import http
from edge.http import BoundedHttp
from tests.edge.serving import Receive, Send, served
from tests.harness.wait import until

pytestmark = pytest.mark.anyio


class Answering:
    """Answers with the size of the body; `/stream` with more than anybody will take."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.protocols: list[BoundedHttp] = []
        self.ended = asyncio.Event()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self.seen.append(scope["path"])
        self.protocols.append(scope["extensions"]["millrace.http"])
        if scope["path"] == "/stream":
            await self._stream(receive, send)
            return
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        headers = [(b"content-length", b"%d" % len(str(size)))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": str(size).encode()})

    async def _stream(self, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()  # the request's body
        gone = asyncio.ensure_future(receive())
        while not gone.done():
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
            await asyncio.sleep(0)
        assert gone.result()["type"] == "http.disconnect"
        self.ended.set()


@pytest.fixture
async def answering() -> Answering:
    """The application, which each test has anew."""
    return Answering()


async def _exchange(port: int, *pieces: bytes) -> bytes:
    """Send the pieces; all that comes until the server ends the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    try:
        async with asyncio.timeout(15):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_a_request_that_never_arrives_ends(answering: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether nothing comes, half a head, or half a body."""
    monkeypatch.setattr(http, "ARRIVAL", 0.2)
    async with served(answering) as port:
        half_body = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345"
        for sent in (b"", b"GET /head HTTP/1.1\r\nHos", half_body):
            assert await _exchange(port, sent) == b""
    assert answering.seen == ["/body"]


async def test_each_request_of_a_connection_has_its_own_time(
    answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection may be kept for longer than one request may take."""
    monkeypatch.setattr(http, "ARRIVAL", 1.0)
    loop = asyncio.get_running_loop()
    async with served(answering) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        ends, number = loop.time() + 1.5, 0
        while loop.time() < ends:
            writer.write(b"GET /one HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            await reader.readexactly(1)
            number += 1
        writer.close()
    assert answering.seen == ["/one"] * number


async def test_requests_that_come_in_one_packet_are_answered_in_order(answering: Answering) -> None:
    """Standard: RFC 9112, 9.3.2."""
    async with served(answering) as port:
        first = b"POST /first HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
        second = b"GET /second HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answered = await _exchange(port, first + second)
    assert answered.count(b"HTTP/1.1 200") == 2
    assert answering.seen == ["/first", "/second"]


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"GET /" + b"x" * http.HEAD_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n", id="path"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * http.HEAD_BYTES + b"\r\n\r\n", id="header"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: x\r\n" * http.HEAD_BYTES, id="without end"),
    ],
)
async def test_a_head_without_end_is_refused(answering: Answering, head: bytes) -> None:
    """400, and the application sees nothing of it."""
    async with served(answering) as port:
        answered = await _exchange(port, head)
    assert answered.startswith(b"HTTP/1.1 400") or answered == b""  # or reset, while more of it still came
    assert answering.seen == []


async def test_a_large_body_is_none_of_the_heads(answering: Answering) -> None:
    """Its size is the application's to judge."""
    async with served(answering) as port:
        body = b"x" * (4 * http.HEAD_BYTES)
        head = b"POST /body HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        answered = await _exchange(port, head, body)
    assert answered.endswith(b"\r\n\r\n%d" % len(body))


async def test_trailers_without_end_are_cut_off(answering: Answering) -> None:
    """What follows a body in chunks is no body; it is bounded as a head is."""
    async with served(answering) as port:
        head = b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
        answered = await _exchange(port, head, *[b"A: x\r\n" * http.HEAD_BYTES] * 8)
    assert answered.startswith(b"HTTP/1.1 400") or answered == b""
    assert all(len(protocol.headers) < 8 * http.HEAD_BYTES for protocol in answering.protocols)


async def test_a_body_in_small_chunks_is_taken(answering: Answering) -> None:
    """Their sizes are more than what they carry, and no head either."""
    async with served(answering) as port:
        head = b"POST /body HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        answered = await _exchange(port, head, b"1\r\nx\r\n" * 2 * http.HEAD_BYTES, b"0\r\n\r\n")
    assert answered.endswith(b"\r\n\r\n%d" % (2 * http.HEAD_BYTES))


async def test_requests_that_do_not_wait_for_their_answers_are_bounded(answering: Answering) -> None:
    """Each takes some kilobytes until the first is answered; that answer is not broken into by a refusal."""
    async with served(answering) as port:
        stream = b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"
        answered = await _exchange(port, stream, b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n" * 2 * http.MOST_WAITING)
    assert answering.seen == ["/stream"]
    assert b"HTTP/1.1 400" not in answered
    assert all(len(protocol.pipeline) <= http.MOST_WAITING for protocol in answering.protocols)


async def test_an_answer_that_nobody_reads_can_be_cut_off(answering: Answering) -> None:
    """FACTS 5.3: for HTTP too; what waits is bounded, and the application is told."""
    async with served(answering) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: answering.protocols and answering.protocols[0].buffered > 0)
        assert answering.protocols[0].buffered <= http.HIGH_WATER + 200_000
        assert not answering.ended.is_set()
        answering.protocols[0].abort()
        await answering.ended.wait()
        writer.close()
