"""Fetching the JWKS document: a file, or a URL that is never followed to a weaker one. Blocking."""

import time
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

TIMEOUT = 5.0
"""Seconds that the issuer has to send the document."""

MOST_BYTES = 256 * 1024

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def is_url(where: str) -> bool:
    """Whether it is a URL, and not a file."""
    return "://" in where


def check_url(url: str) -> None:
    """Raises ValueError for a URL that could be tampered with on its way."""
    parts = urlsplit(url)
    if not (parts.scheme == "https" and parts.hostname) and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise ValueError("not an https:// URL")


def fetch(where: str) -> bytes:
    """The document. Raises OSError or ValueError."""
    return _fetch_url(where) if is_url(where) else _bounded(Path(where).open("rb"))


class _SameScheme(urllib.request.HTTPRedirectHandler):
    def redirect_request(  # noqa: PLR0913, PLR0917 - urllib's signature
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        """Follow a redirect only where what it leads to may be believed as much."""
        try:
            check_url(newurl)
            if urlsplit(newurl).scheme != urlsplit(req.full_url).scheme:
                raise ValueError("redirected to another scheme")
        except ValueError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch_url(url: str) -> bytes:
    check_url(url)
    request = urllib.request.Request(url, headers={"accept": "application/json"})  # noqa: S310 - checked above
    try:
        return _bounded(urllib.request.build_opener(_SameScheme).open(request, timeout=TIMEOUT))
    except urllib.error.HTTPError as error:
        error.close()
        raise OSError(f"status {error.code}") from None
    except HTTPException as error:
        raise OSError(f"not HTTP: {type(error).__name__}") from None


def _bounded(file: IO[bytes]) -> bytes:
    """All of it. A peer that sends a little now and then is not waited for."""
    ends = time.monotonic() + TIMEOUT
    content = b""
    with file:
        # of a response, read1 gives what is there, and read waits for all
        while part := file.read1(MOST_BYTES + 1 - len(content)):  # type: ignore[attr-defined]
            content += part
            if len(content) > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES} bytes")
            if time.monotonic() > ends:
                raise TimeoutError("it takes too long")
    return content
