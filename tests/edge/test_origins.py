"""Origins: the edge's own pages and the listed ones, and no trick of spelling."""

import pytest

from edge.origins import allowed

LISTED = ("https://app.example.com", "http://localhost:3000", "https://[2001:db8::1]:8443")


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "https://app.example.com",
        "https://app.example.com:443",
        "HTTPS://App.Example.COM",
        "http://localhost:3000",
        "http://localhost:03000",
        "https://[2001:DB8::1]:8443",
        "https://edge.example.com",  # its own
        "http://edge.example.com",  # its own, the proxy took TLS off
        "https://EDGE.example.com:443",
    ],
)
def test_these_are_let_in(origin: str | None) -> None:
    """RFC 6454: scheme, host and port, case-insensitive, default ports left out; no origin is no browser."""
    assert allowed(origin, "edge.example.com", LISTED)


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        " ",
        "*",
        "https://evil.com",
        "http://app.example.com",  # the scheme
        "https://app.example.com:8443",  # the port
        "https://app.example.com.",  # a trailing dot is another host
        "https://app.example.com.evil.com",
        "https://app.example.evil.com",
        "https://evilapp.example.com",
        "https://sub.app.example.com",
        "https://example.com",
        "https://app.example.com@evil.com",
        "https://evil.com@app.example.com",
        "https://app.example.com:443@evil.com",
        "https://app.example.com/",
        "https://app.example.com/path",
        "https://app.example.com?x",
        "https://app.example.com#x",
        "https://app.example.com:",
        "https://app.example.com:443443",
        "https://app.example.com:４４３",  # full-width digits
        "https://app.example.com\n",
        " https://app.example.com",
        "https://app.example.com https://evil.com",
        "https://app.example.com,https://evil.com",
        "https://app\u3002example.com",
        "https:app.example.com",
        "https:///app.example.com",
        "//app.example.com",
        "app.example.com",
        "ftp://app.example.com",
        "file://app.example.com",
        "chrome-extension://abcdef",
        "javascript:alert(1)",
        "https://edge.example.com:8000",  # its own host, another port
        "https://edge.example.com.",
        "https://edge.example.com.evil.com",
        "http://localhost",
        "http://localhost:30000",
        "https://[2001:db8::1]",
        "https://[2001:db8::2]:8443",
    ],
)
def test_these_are_refused(origin: str) -> None:
    """Standard: OWASP's exact list of origins; `null` is what any sandboxed page sends."""
    assert not allowed(origin, "edge.example.com", LISTED)


@pytest.mark.parametrize("origin", ["https://evil.com", "http://localhost:1"])
def test_a_star_lists_every_origin(origin: str) -> None:
    """The configuration says so."""
    assert allowed(origin, "edge.example.com", ("*",))


@pytest.mark.parametrize("origin", ["null", "nonsense", ""])
def test_a_star_lists_nothing_that_is_no_origin(origin: str) -> None:
    """Our choice: a sandboxed page or a file is nobody's."""
    assert not allowed(origin, "edge.example.com", ("*",))


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True),
        ("http://localhost:8000", "127.0.0.1:8000", False),
        ("http://127.0.0.1:8000", "127.0.0.1:8001", False),
        ("http://127.0.0.1", "127.0.0.1:80", True),
        ("https://127.0.0.1", "127.0.0.1:443", True),
        ("https://127.0.0.1", "127.0.0.1:80", False),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("http://evil.com", "evil.com@edge.example.com", False),
        ("http://evil.com", "evil.com/", False),
        ("http://evil.com", "", False),
        ("http://evil.com", None, False),
    ],
)
def test_the_same_origin_is_the_host_and_port_of_the_request(origin: str, host: str | None, same: bool) -> None:
    """A page that the edge served may call it."""
    assert allowed(origin, host) is same


def test_where_the_scheme_is_known_the_other_one_is_another_origin() -> None:
    """Our choice: behind a proxy that tells, a page over plain HTTP is somebody on the line."""
    assert allowed("https://edge.example.com", "edge.example.com", scheme="https")
    assert not allowed("http://edge.example.com", "edge.example.com", scheme="https")
