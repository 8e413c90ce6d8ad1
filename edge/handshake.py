"""Handshake: who comes in, from where, and whether it is let in."""

from typing import Any, Self

from litestar.connection import ASGIConnection
from msgspec import Struct

from contracts.errors import Code, MillraceError
from edge import origins
from edge.desk import Desk
from edge.identity import Credentials
from edge.presence import Takeover
from edge.principal import Principal

DEVICE_LENGTH = 128
AGAIN = 1.0
"""Seconds after which another edge, or this one anew, is there."""


class Arrival(Struct, frozen=True):
    """What a request says before anybody has looked at who makes it."""

    credentials: Credentials
    origin: str | None
    host: str | None
    address: str
    after: str | None
    takeover: Takeover | None
    device: str | None

    @classmethod
    def of(cls, request: ASGIConnection[Any, Any, Any, Any]) -> Self:
        """Read it off the request; nothing of it becomes a header of a message."""
        headers, query = request.headers, request.query_params
        takeover = query.get("takeover")
        return cls(
            credentials=Credentials.of(headers, query),
            origin=headers.get("origin"),
            host=headers.get("host"),
            address=request.client.host if request.client else "",
            after=headers.get("last-event-id") or query.get("after"),
            takeover=takeover if takeover in ("true", "all") else None,
            device=_shown(query.get("device") or headers.get("user-agent")),
        )


async def admit(desk: Desk, arrival: Arrival, *, stays: bool = True) -> Principal:
    """Who it is. Raises MillraceError where a page of another origin asks, or who it is cannot be told.

    `stays`: it opens a stream, of which a user may open so many a second, and an edge that stops takes none.
    """
    if stays and desk.stop.is_set():
        raise MillraceError(Code.BROKER_UNAVAILABLE, "this edge restarts", retry_after=AGAIN)
    if not origins.allowed(arrival.origin, arrival.host, desk.config.auth.origins):
        raise MillraceError(Code.FORBIDDEN, "pages of this origin may not connect")
    try:
        principal = await desk.identity.principal(arrival.credentials)
    except MillraceError as error:
        if error.code == Code.UNAUTHORIZED:
            desk.limiter.failed_handshake(arrival.address)
        raise
    if stays:
        desk.limiter.handshake(principal)
    return principal


def _shown(text: str | None) -> str | None:
    """Text that somebody else may be shown."""
    return "".join(filter(str.isprintable, text))[:DEVICE_LENGTH] if text else None
