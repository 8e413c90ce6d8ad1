"""The edge's web application: routes, the chat page, errors as the catalogue has them."""

from pathlib import Path
from typing import Any

from litestar import Litestar, MediaType, Request, Response, get
from litestar.datastructures import ResponseHeader, State
from litestar.exceptions import HTTPException
from litestar.static_files import create_static_files_router

from broker import health, metrics
from broker.health import Checks
from contracts.errors import Code, MillraceError
from edge import failures, rest
from edge.desk import Desk
from edge.websocket import session_socket

PAGE = Path(__file__).parent / "page"
SECURITY = {
    "content-security-policy": (
        "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


@get(["/healthz", "/readyz", "/metrics"])
async def health_page(request: Request[Any, Any, Any]) -> Response[bytes]:
    """What a supervisor and a metrics collector ask for."""
    said = health.answer(request.url.path, request.app.state.checks)
    return Response(said.body, status_code=said.status, media_type=said.content_type)


@get("/")
async def page() -> Response[bytes]:
    """The chat page."""
    return Response((PAGE / "index.html").read_bytes(), media_type=MediaType.HTML)


@get("/favicon.ico", status_code=204)
async def favicon() -> None:
    """There is none, and browsers ask."""


def _failed(_request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    if isinstance(error, HTTPException) and error.status_code < 500:
        body = failures.body(MillraceError(Code.BAD_REQUEST, error.detail))
        return Response(body, status_code=error.status_code)
    known = failures.from_exception(error)
    metrics.ERRORS.labels(known.code).inc()
    return Response(failures.body(known), status_code=known.entry.status)


def create(desk: Desk, checks: Checks) -> Litestar:
    """The application that serves this desk."""
    return Litestar(
        [
            page,
            favicon,
            health_page,
            rest.create_session,
            rest.list_sessions,
            rest.get_session,
            session_socket,
            create_static_files_router("/page", directories=[PAGE]),
        ],
        state=State({"desk": desk, "checks": checks}),
        exception_handlers={MillraceError: _failed, HTTPException: _failed, Exception: _failed},
        response_headers=[ResponseHeader(name=name, value=value) for name, value in SECURITY.items()],
        openapi_config=None,
        logging_config=None,
    )
