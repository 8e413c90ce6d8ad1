"""Cursors: what was sent comes back as it was, and what is no cursor is refused."""

import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contracts.cursor import Cursor, base36

unhurried = settings(deadline=None)
epochs = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=36)
sequences = st.integers(0, 2**63)
cursors = st.builds(Cursor, epochs, st.lists(sequences, min_size=1, max_size=8).map(tuple))


@given(cursors)
@unhurried
def test_a_cursor_comes_back_as_it_was(cursor: Cursor) -> None:
    """Promise P2."""
    assert Cursor.parse(str(cursor)) == cursor


@given(sequences)
@unhurried
def test_a_position_is_a_number_to_the_base_36(number: int) -> None:
    """Short in every frame."""
    assert int(base36(number), 36) == number


@given(cursors, cursors)
@unhurried
def test_two_cursors_never_look_the_same(one: Cursor, other: Cursor) -> None:
    """Promise P2."""
    assert (str(one) == str(other)) == (one == other)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "epoch",
        "epoch.",
        "epoch..1",
        ".1",
        "é.1",
        "epoch.!",
        "a-b.1",
        "epoch.1 2",
        "x." * 200,
    ],
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    """WIRE: it is answered with `resume_gap`, so it must be seen."""
    with pytest.raises(ValueError, match=r"cursor|int"):
        Cursor.parse(text)


@given(st.text() | st.text("ae0129.-+_ z", max_size=20))
@example("e.+1")
@example("e.1_0")
@example("e. 1")
@example("e.١")
@example("e.-1")
@example("e.Z")
@example("e.01")
@unhurried
def test_what_is_parsed_is_what_could_have_been_sent(text: str) -> None:
    """Promise P2: a position before the beginning, or another way to write one, is refused."""
    try:
        cursor = Cursor.parse(text)
    except ValueError:
        return
    assert str(cursor) == text
