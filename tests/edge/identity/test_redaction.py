"""Redaction: no line of a log lets anybody in."""

import asyncio
import io
import json
import logging
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import websockets.asyncio.client
from litestar import Litestar, Request, WebSocket, get, websocket

from broker.logs import JsonFormatter
from broker.serve import listen, serving
from edge.identity import Redaction, redact
from edge.protocol import EdgeWebSocket
from tests.edge.identity.issuer import token

pytestmark = pytest.mark.anyio

KEY = f"mr_{'a' * 24}_{'b' * 64}"
JWT = token()


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("GET /ws?token=abc&after=1 HTTP/1.1", "GET /ws?token=***&after=1 HTTP/1.1"),
        ("/ws?after=1&ticket=a-b_c", "/ws?after=1&ticket=***"),
        ("/ws?TOKEN=abc&Ticket=x", "/ws?TOKEN=***&Ticket=***"),
        ("/ws?%74oken=abc&t%69cket=x", "/ws?%74oken=***&t%69cket=***"),
        ("token=abc", "token=***"),
        ("'/ws?token=abc' \"/ws?ticket=x\"", "'/ws?token=***' \"/ws?ticket=***\""),
        ("https://h/#token=abc", "https://h/#token=***"),
        ("/ws?token=a%20b+c;d", "/ws?token=***;d"),
        ("/ws?tokens=5&max_token=6&after=7&x=token", "/ws?tokens=5&max_token=6&after=7&x=token"),
        ("< Authorization: Bearer abc", "< Authorization: ***"),
        ("authorization: Basic eDp5", "authorization: ***"),
        ("X-API-Key: abc", "X-API-Key: ***"),
        ("(b'x-api-key', b'abc')", "(b'x-api-key', ***"),
        ("Bearer abc was shown", "Bearer *** was shown"),
        ('{"type": "auth", "token": "abc"}', '{"type": "auth", "token": "***"}'),
        (r"'{\"token\":\"abc\"}'", r"'{\"token\":\"***\"}'"),
        (f"said {JWT}", "said ***"),
        (f"cut off {JWT[:30]}", "cut off ***"),
        (f"key {KEY}.", "key ***."),
        ("key of the session opened", "key of the session opened"),
        ("", ""),
    ],
)
def test_what_lets_somebody_in_is_masked_and_nothing_else(text: str, clean: str) -> None:
    """Issue 3: tokens in a query string never reach a log line."""
    assert redact(text) == clean


class Log(io.StringIO):
    """What was logged."""

    @property
    def lines(self) -> list[str]:
        """Line by line."""
        return self.getvalue().splitlines()


@pytest.fixture
def log() -> Iterator[Log]:
    """Everything that this process logs, at debug level, as a service writes it."""
    root, written = logging.getLogger(), Log()
    level = root.level
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter("edge"))
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    Redaction.install()
    yield written
    root.removeHandler(handler)
    root.setLevel(level)
    for known in root.handlers:
        for redaction in [one for one in known.filters if isinstance(one, Redaction)]:
            known.removeFilter(redaction)


def test_a_record_is_redacted_with_its_arguments_and_fields(log: Log) -> None:
    """STYLE R14: identifiers always, content never; this is the net below."""
    logging.getLogger("edge").info("%s at %s", "/ws?token=abc", 5, extra={"path": "/ws?ticket=x", "n": 1})
    Redaction.install()
    logging.getLogger("edge").info("plain %s", "text")
    first, second = map(json.loads, log.lines)
    assert (first["event"], first["path"], first["n"]) == ("/ws?token=*** at 5", "/ws?ticket=***", 1)
    assert second["event"] == "plain text"


@get("/x")
async def _page(request: Request[None, None, Any]) -> str:
    logging.getLogger("edge").info("asked", extra={"url": str(request.url)})
    return "x"


@get("/fail")
async def _fail() -> str:
    raise RuntimeError("no luck")


@websocket("/ws")
async def _socket(socket: WebSocket[None, None, Any]) -> None:
    await socket.accept()
    await socket.receive_text()
    await socket.close()


@websocket("/refused")
async def _refused(socket: WebSocket[None, None, Any]) -> None:
    await socket.close(4001)


async def _speak(url: str) -> None:
    headers = {"Authorization": "Bearer in-a-header", "X-API-Key": "in-a-key"}
    async with websockets.asyncio.client.connect(url, additional_headers=headers) as client:
        await client.send(json.dumps({"type": "auth", "token": "in-a-frame"}))
        await client.wait_closed()


async def test_no_line_of_a_real_server_at_debug_level_holds_a_credential(log: Log) -> None:
    """Issue 3: uvicorn tells of every WebSocket with its query, at info level already."""
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    app = Litestar([_page, _fail, _socket, _refused], openapi_config=None, logging_config=None)
    query = f"?token={JWT}&ticket=in-a-ticket&%74oken=in-an-escape"
    async with serving(app, listener, ws=EdgeWebSocket, log_level="debug", access_log=True):
        await _speak(f"ws://127.0.0.1:{port}/ws{query}")
        with pytest.raises(websockets.exceptions.InvalidStatus):
            await _speak(f"ws://127.0.0.1:{port}/refused{query}")
        for path in ("x", "fail", "nowhere"):
            await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/{path}{query}")
    said = log.getvalue()
    assert "token=***" in said
    assert "[accepted]" in said
    assert "403" in said
    assert "GET /x?" in said
    for secret in (JWT, *JWT.split("."), "in-a-"):
        assert secret not in said, [line for line in log.lines if secret in line]


def _get(url: str) -> None:
    request = urllib.request.Request(url, headers={"X-API-Key": "in-a-key"})  # noqa: S310 - a server of ours
    try:
        urllib.request.urlopen(request).close()  # noqa: S310 - a server of ours
    except urllib.error.HTTPError as error:
        error.close()
