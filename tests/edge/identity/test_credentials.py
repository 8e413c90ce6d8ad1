"""Credentials: which of what a request shows counts."""

import pytest
from litestar.datastructures import Headers
from multidict import MultiDict

from edge.identity import Credentials

TOKEN, KEY, TICKET = ("authorization", "Bearer t"), ("x-api-key", "k"), {"ticket": "c"}


@pytest.mark.parametrize(
    ("headers", "query", "shown"),
    [
        ([], {}, Credentials()),
        ([TOKEN], {}, Credentials(token="t")),
        ([("Authorization", "bearer   t ")], {}, Credentials(token="t")),
        ([KEY], {}, Credentials(api_key="k")),
        ([], {"token": "q"}, Credentials(token="q")),
        ([], TICKET, Credentials(ticket="c")),
        ([TOKEN, KEY], TICKET | {"token": "q"}, Credentials(token="t")),
        ([KEY], TICKET | {"token": "q"}, Credentials(api_key="k")),
        ([], TICKET | {"token": "q"}, Credentials(ticket="c")),
        ([("authorization", "Basic eA==")], {"token": "q"}, Credentials(token="q")),
        ([("authorization", "Bearer ")], {}, Credentials()),
        ([("authorization", "Bearer")], {}, Credentials()),
        ([("x-api-key", " ")], {"token": "", "ticket": ""}, Credentials()),
        ([], {"TOKEN": "q", "api_key": "k"}, Credentials()),
    ],
)
def test_the_header_counts_before_the_query(
    headers: list[tuple[str, str]], query: dict[str, str], shown: Credentials
) -> None:
    """The brief: a documented order, in Litestar's own types."""
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    assert Credentials.of(Headers(raw), MultiDict(query)) == shown


def test_what_is_shown_is_not_written_down() -> None:
    """STYLE R14."""
    everything = Credentials(token="secret-1", api_key="secret-2", ticket="secret-3")
    assert repr(everything) == "Credentials(token, api_key, ticket)"
