"""The edge's web application: routes, the pages, errors as the catalogue has them."""

from pathlib import Path
from typing import Any

from litestar import Litestar, MediaType, Request, Response, get
from litestar.config.cors import CORSConfig
from litestar.datastructures import MutableScopeHeaders, State
from litestar.exceptions import HTTPException, InternalServerException, NotFoundException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, Reference, SecurityScheme
from litestar.static_files import create_static_files_router
from litestar.types import Message, Scope

from broker import health, metrics
from broker.health import Checks
from contracts.errors import Code, MillraceError
from edge import conversation, failures, rest, spellings, websocket
from edge.desk import Desk

PAGE = Path(__file__).parent / "page"
SECURITY = {
    "content-security-policy": (
        "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
SCHEMES: dict[str, SecurityScheme | Reference] = {
    "token": SecurityScheme(type="http", scheme="bearer", bearer_format="JWT"),
    "key": SecurityScheme(type="apiKey", name="X-API-Key", security_scheme_in="header"),
}
HEADERS = ["authorization", "content-type", "last-event-id", "x-api-key"]
"""What a page of another origin, if it is let in, may send."""


@get(["/healthz", "/readyz", "/metrics"], include_in_schema=False)
async def health_page(request: Request[Any, Any, Any]) -> Response[bytes]:
    """What a supervisor and a metrics collector ask for."""
    said = health.answer(request.url.path, request.app.state.checks)
    return Response(said.body, status_code=said.status, media_type=said.content_type)


@get("/", include_in_schema=False)
async def page() -> Response[bytes]:
    """The chat page."""
    return Response((PAGE / "index.html").read_bytes(), media_type=MediaType.HTML)


@get("/docs", include_in_schema=False)
async def api_page() -> Response[bytes]:
    """The REST interface, read off its OpenAPI document."""
    return Response((PAGE / "api.html").read_bytes(), media_type=MediaType.HTML)


@get("/favicon.ico", status_code=204, include_in_schema=False)
async def favicon() -> None:
    """There is none, and browsers ask."""


async def _secure(message: Message, scope: Scope) -> None:
    """Put the security headers on every response, streams and errors among them.

    What the interface answers is nobody's to keep: a cache cannot know that `X-API-Key` or `?token=` chose it.
    """
    if message["type"] == "http.response.start":
        headers = MutableScopeHeaders.from_message(message)
        for name, value in SECURITY.items():
            headers[name] = value
        if scope["path"].startswith("/api/"):
            headers.setdefault("cache-control", "no-store")


def _failed(_request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    status = None
    if isinstance(error, HTTPException) and error.status_code < 500:
        status = error.status_code
        known = MillraceError(Code.TOO_LARGE if status == 413 else Code.BAD_REQUEST, _told(error))
    elif isinstance(error, RecursionError):
        known = MillraceError(Code.BAD_REQUEST, "JSON that is nested too deeply")
    elif isinstance(error, UnicodeDecodeError):  # of a body: nothing else is text that a caller gave as bytes
        known = MillraceError(Code.BAD_REQUEST, "no UTF-8")
    else:
        known = failures.from_exception(error)
    metrics.ERRORS.labels(known.code).inc()
    wait = (known.details or {}).get("retry_after")
    headers = {} if wait is None else {"retry-after": str(max(1, round(float(str(wait)))))}
    return Response(failures.body(known), status_code=status or known.entry.status, headers=headers)


def _no_page(request: Request[Any, Any, Any], _error: Exception) -> Response[dict[str, Any]]:
    """A name that no file can have: with a NUL, or too long."""
    return _failed(request, NotFoundException())


def _told(error: HTTPException) -> str:
    """What is wrong, and where."""
    extra: Any = error.extra or ()
    places = [f"{place.get('key', '')}: {place.get('message', '')}" for place in extra if isinstance(place, dict)]
    return "; ".join([error.detail, *places])[:500]


def create(desk: Desk, checks: Checks) -> Litestar:
    """The application that serves this desk."""
    return Litestar(
        [
            page,
            api_page,
            favicon,
            health_page,
            rest.create_session,
            rest.list_sessions,
            rest.get_session,
            rest.change_session,
            rest.delete_session,
            rest.create_ticket,
            rest.session_connections,
            rest.own_connections,
            *conversation.HANDLERS,
            websocket.session_socket,
            websocket.multiplex_socket,
            *spellings.HANDLERS,
            create_static_files_router(
                "/page",
                directories=[PAGE],
                exception_handlers={ValueError: _no_page, InternalServerException: _no_page},
            ),
        ],
        state=State({"desk": desk, "checks": checks}),
        exception_handlers={MillraceError: _failed, HTTPException: _failed, Exception: _failed},
        before_send=[_secure],
        request_max_body_size=desk.config.limits.frame_bytes,
        cors_config=CORSConfig(
            allow_origins=list(desk.config.auth.origins),
            allow_headers=HEADERS,
            expose_headers=["retry-after"],
            max_age=600,
        ),
        openapi_config=OpenAPIConfig(
            title="Millrace",
            version="1",
            description="Sessions, messages, approvals and connections. The sockets are in docs/asyncapi.json.",
            components=Components(security_schemes=SCHEMES),
            security=[{name: []} for name in SCHEMES],
            use_handler_docstrings=True,
            path="/api/v1",
            render_plugins=[JsonRenderPlugin(path="/openapi.json")],
        ),
        logging_config=None,
    )
