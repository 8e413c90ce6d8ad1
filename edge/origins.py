"""Origins: which web pages may call the edge. Pure.

Only browsers send `Origin`, and a page cannot forge it: what is held back here is a page of somebody else that uses
a visitor's browser. Who the caller is, is the token's business, never the origin's.
"""

import re

_ORIGIN = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>\[[0-9a-f:.]+\]|[0-9a-z_](?:[0-9a-z_.-]*[0-9a-z_])?)"  # no userinfo, no trailing dot
    r"(?::(?P<port>[0-9]{1,5}))?",
    re.IGNORECASE | re.ASCII,
)
_PORTS = {"http": "80", "https": "443"}


def allowed(origin: str | None, host: str | None, origins: tuple[str, ...] = (), *, scheme: str | None = None) -> bool:
    """Whether a request with that `Origin` and `Host` may be served.

    No origin: it is no browser. The edge's own: the host and port of the request, in either scheme, because a proxy may
    have taken TLS off; with `scheme` (`http` or `https`, where it is known what the browser used) in that one alone.
    Others: those listed, by scheme, host and port; `*` lists all. `null` and whatever is no origin is refused.
    """
    if origin is None:
        return True
    came = _parts(origin)
    if came is None:
        return False
    if "*" in origins or came in map(_parts, origins):
        return True
    if host is None or (scheme is not None and scheme != came[0]):
        return False
    return came == _parts(f"{came[0]}://{host}")


def _parts(origin: str) -> tuple[str, str, str] | None:
    """Scheme, host and port; None for what is no origin."""
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        return None
    scheme, host = match["scheme"].lower(), match["host"].lower()
    return scheme, host, (match["port"] or _PORTS[scheme]).lstrip("0")
