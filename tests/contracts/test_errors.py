"""The catalogue of errors: every code that the wire names, and what a client is to conclude."""

import re

import pytest

from contracts.errors import CATALOGUE, Code, MillraceError

_WIRE = """
unauthorized token_expired forbidden session_not_found session_closed bad_request unknown_type
too_large log_full turn_in_progress turn_timeout agent_failed model_unavailable model_rate_limited
context_too_long tool_not_found tool_denied tool_error tool_timeout approval_not_found
approval_decided approval_expired invalid_event rate_limited connection_limit slow_consumer
broker_unavailable internal_error
"""
WIRE = _WIRE.split()
"""The codes of WIRE.md section 3."""

CLOSES = {
    "unauthorized": 4001,
    "token_expired": 4001,
    "forbidden": 4003,
    "session_not_found": 4004,
    "slow_consumer": 4009,
    "rate_limited": 4029,
    "connection_limit": 4029,
    "too_large": 1009,
}
"""The close codes of WIRE.md section 1 that stand for an error."""


def test_every_code_of_the_wire_is_in_the_catalogue() -> None:
    """WIRE: codes are append-only."""
    assert set(WIRE) <= {str(code) for code in Code}
    assert CATALOGUE.keys() == set(Code)


@pytest.mark.parametrize("code", Code)
def test_a_status_says_whose_fault_it_is(code: Code) -> None:
    """Standard: RFC 9110, 4xx is the client's and 5xx the server's."""
    assert 400 <= CATALOGUE[code].status <= 599


@pytest.mark.parametrize("code", Code)
def test_a_code_closes_the_socket_only_as_the_wire_says(code: Code) -> None:
    """WIRE: an agent's or a tool's error never does."""
    assert CATALOGUE[code].close == CLOSES.get(code)


@pytest.mark.parametrize("code", Code)
def test_what_may_succeed_later_is_retryable_and_nothing_else(code: Code) -> None:
    """Standard: 429, 503 and 504 ask to come back; a malformed or forbidden request stays so."""
    entry = CATALOGUE[code]
    if entry.status in (429, 503, 504, 507):
        assert entry.retryable
    if entry.status in (400, 401, 403, 404, 410, 413):
        assert not entry.retryable


@pytest.mark.parametrize("code", Code)
def test_a_code_is_explained_in_sentences(code: Code) -> None:
    """Our choice: what it means, and what to do."""
    for text in (CATALOGUE[code].meaning, CATALOGUE[code].remedy):
        assert re.fullmatch(r"[A-Z].*\.", text)


def test_an_error_carries_its_code_its_details_and_a_text() -> None:
    """Our choice: without a text it says what its code means."""
    error = MillraceError(Code.RATE_LIMITED, retry_after=1.5)
    assert (error.code, error.details) == ("rate_limited", {"retry_after": 1.5})
    assert str(error) == CATALOGUE[Code.RATE_LIMITED].meaning
    assert error.entry is CATALOGUE[Code.RATE_LIMITED]
    told = MillraceError(Code.BAD_REQUEST, "no content")
    assert (str(told), told.details) == ("no content", None)
