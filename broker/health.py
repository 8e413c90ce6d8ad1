"""Health: `/healthz`, `/readyz` and `/metrics`, as a pure function and as an ASGI app around it."""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import msgspec
from msgspec import Struct
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Checks = Callable[[], Mapping[str, bool]]
"""What readiness depends on, by name. All must hold."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PATHS = ("/healthz", "/readyz", "/metrics")


class Answer(Struct, frozen=True):
    """An HTTP response."""

    status: int
    content_type: str
    body: bytes


def answer(path: str, checks: Checks) -> Answer:
    """The response to a GET. Alive: the event loop runs. Ready: every check holds."""
    match path:
        case "/healthz":
            return _json(200, {"status": "ok"})
        case "/readyz":
            found = dict(checks())
            ready = all(found.values())
            return _json(200 if ready else 503, {"ready": ready, "checks": found})
        case "/metrics":
            return Answer(200, CONTENT_TYPE_LATEST, generate_latest())
    return _json(404, {"error": "not found"})


def app(checks: Checks) -> App:
    """The ASGI app of a service that serves nothing else."""

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        said = answer(scope["path"], checks)
        if scope["method"] not in ("GET", "HEAD"):
            said = _json(405, {"error": "method not allowed"})
        headers = [
            (b"content-type", said.content_type.encode()),
            (b"content-length", b"%d" % len(said.body)),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": said.status, "headers": headers})
        body = said.body if scope["method"] != "HEAD" else b""
        await send({"type": "http.response.body", "body": body})

    return respond


def _json(status: int, body: Mapping[str, object]) -> Answer:
    return Answer(status, "application/json", msgspec.json.encode(body))
