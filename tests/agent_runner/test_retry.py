"""How long to wait before a model is asked again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runner.retry import FIRST, LONGEST, PATIENCE, pause


@given(st.integers(1, 1000))
def test_pauses_double_up_to_a_limit_and_differ_by_half(failures: int) -> None:
    """Turns that failed together do not come back together."""
    most = min(LONGEST, FIRST * 2 ** min(failures - 1, 20))
    waited = [pause(failures) or 0.0 for _ in range(20)]
    assert all(most / 2 <= seconds <= most for seconds in waited)
    assert len(set(waited)) > 1


@pytest.mark.parametrize("asked", [0.0, 3.0, PATIENCE])
def test_what_the_server_asks_for_is_waited_for(asked: float) -> None:
    """`Retry-After`: never less."""
    waited = pause(1, asked)
    assert waited is not None
    assert asked + FIRST / 2 <= waited <= asked + FIRST


def test_a_server_that_asks_for_too_much_is_not_asked_again() -> None:
    """Our choice: a person had better know."""
    assert pause(1, PATIENCE + 1) is None


def test_a_server_that_asks_for_nonsense_is_waited_for_as_usual() -> None:
    """A date in the past gives a negative time."""
    waited = pause(1, -5.0)
    assert waited is not None
    assert FIRST / 2 <= waited <= FIRST
