"""What an attempt may use up, and that recorded things count again when it is replayed."""

from collections.abc import AsyncIterator

import pytest

from agent_runner.answer import PART
from agent_runner.journal import ROOM
from contracts import events
from contracts.errors import Code, MillraceError
from tests.harness.attempts import MAX_EVENT_BYTES, Log, attempting

pytestmark = pytest.mark.anyio


async def _pieces(*pieces: str) -> AsyncIterator[str]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize(
    ("text", "streamed"),
    [
        pytest.param(_pieces(*["x" * 300] * 9), 900, id="many pieces"),
        pytest.param(_pieces("x" * 300, "x" * 1_000_000), 300, id="a large piece"),
        pytest.param("x" * 1_000_000, 0, id="a large text"),
        pytest.param(_pieces("x" * 900, '"' * 51), 900, id="bytes as JSON"),
    ],
)
async def test_nothing_beyond_max_bytes_is_streamed(text: str | AsyncIterator[str], streamed: int) -> None:
    """Our choice: a piece that would exceed it is not begun; what came before stays."""
    log = Log()
    async with attempting(log, max_bytes=1000) as turn:
        with pytest.raises(MillraceError) as caught:
            await turn.say(text)
        assert caught.value.code == Code.TURN_LIMIT
    assert sum(len(delta.delta) for delta in log.said) == streamed


async def test_a_text_that_exceeds_the_largest_event_ends_with_length() -> None:
    """Our choice: it is cut, also where it came at once; no delta is larger than the broker takes."""
    log = Log()
    async with attempting(log) as turn:
        said = await turn.say("x" * (2 * MAX_EVENT_BYTES))
    (end,) = log.of(events.StreamEnd)
    assert (end.finish_reason, end.content) == ("length", said)
    assert MAX_EVENT_BYTES - ROOM - PART < len(said) <= MAX_EVENT_BYTES - ROOM
    assert max(len(delta.delta) for delta in log.said) <= 2 * PART
