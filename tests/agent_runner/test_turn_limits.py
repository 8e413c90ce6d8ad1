"""What an attempt may use up and has used, and that recorded things count again when it is replayed."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from agent_runner.answer import PART
from agent_runner.converse import converse
from agent_runner.journal import ROOM, Journal
from agent_runner.model import Piece, Said
from agent_runner.prompt import Prompt, Tool, Use
from agent_runner.turn import Turn
from contracts import events
from contracts.errors import Code, MillraceError
from tests.contracts import facts as a
from tests.harness.attempts import MAX_EVENT_BYTES, Log, attempt, journal
from tests.harness.wait import until

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
    turn = attempt(log, max_bytes=1000)
    with pytest.raises(MillraceError) as caught:
        await turn.say(text)
    assert caught.value.code == Code.TURN_LIMIT
    assert sum(len(delta.delta) for delta in log.said) == streamed


async def test_a_text_that_exceeds_the_largest_event_ends_with_length() -> None:
    """Our choice: it is cut, also where it came at once; no delta is larger than the broker takes."""
    log = Log()
    turn = attempt(log)
    said = await turn.say("x" * (2 * MAX_EVENT_BYTES))
    (end,) = log.of(events.StreamEnd)
    assert (end.finish_reason, end.content) == ("length", said)
    assert MAX_EVENT_BYTES - ROOM - PART < len(said) <= MAX_EVENT_BYTES - ROOM
    assert max(len(delta.delta) for delta in log.said) <= 2 * PART


SAY = "x" * 600

Act = Callable[[Turn, int], Awaitable[Any]]


@pytest.mark.parametrize(
    ("act", "limits", "most"),
    [
        pytest.param(lambda turn, _n: turn.say(SAY), {"max_bytes": 1800}, 3, id="answers"),
        pytest.param(lambda turn, _n: turn.step("s", lambda: SAY), {"max_bytes": 1900}, 3, id="what steps return"),
        pytest.param(lambda turn, _n: turn.step("s", int), {"max_steps": 3}, 3, id="steps"),
        pytest.param(lambda turn, n: turn.progress("p", 0.5, workflow_id=f"w{n}"), {"max_steps": 3}, 3, id="reports"),
        pytest.param(lambda turn, _n: turn.progress("p", 0.5), {"max_steps": 3}, 3, id="reports that are left out"),
    ],
)
async def test_a_limit_is_one_of_the_turn_however_often_it_is_begun(
    act: Act, limits: dict[str, int], most: int
) -> None:
    """Our choice: what is recorded counts again, so an agent that dies now and then has no more than any other."""
    log = Log()
    for upto in range(1, most + 1):
        turn = attempt(log, **limits)
        for n in range(upto):
            await act(turn, n)
    facts = len(log.facts)
    with pytest.raises(MillraceError) as caught:
        await act(turn, most)
    assert caught.value.code == Code.TURN_LIMIT
    assert len(log.facts) == facts


class OneResponse:
    """A model that responds once and then is silent."""

    def __init__(self, response: Said) -> None:
        self._response: Said | None = response

    async def stream(self, _prompt: Prompt) -> AsyncGenerator[Piece | Said]:
        """The response."""
        if self._response is None:
            await asyncio.Event().wait()
        assert self._response
        yield Piece(SAY)
        yield self._response
        self._response = None

    async def aclose(self) -> None:
        """Nothing is open."""


async def _no_tools(_globs: tuple[str, ...]) -> tuple[Tool, ...]:
    return ()


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(Said(), id="an answer alone"),
        pytest.param(Said("tool_call", calls=(Use("no.tool", {}),)), id="with a call"),
    ],
)
async def test_the_recorded_responses_of_a_model_count_again(response: Said) -> None:
    """Likewise. The message that steers makes the model be asked once more where it has called nothing."""
    log = Log()
    log.add(a.message("m2", "steer"))
    first = journal(log)
    running = asyncio.create_task(converse(Turn(first), first, OneResponse(response), _no_tools))
    await until(lambda: log.of(events.StreamEnd) and first.spent.requests == 2)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    again = journal(log, max_bytes=1000)
    with pytest.raises(MillraceError) as caught:
        await converse(Turn(again), again, OneResponse(Said()), _no_tools)
    assert caught.value.code == Code.TURN_LIMIT
    assert again.spent.requests == 2


async def test_a_holder_knows_what_its_attempt_has_used() -> None:
    """WIRE: `usage`, also of a turn that is cancelled. What an attempt finds recorded was used, and is counted once."""
    log = Log()
    first = journal(log)
    await converse(Turn(first), first, OneResponse(Said(usage={"output_tokens": 3})), _no_tools)
    assert first.holding.usage == {"output_tokens": 3}
    again = Journal(first.hold, first.holding, "a", first.agent)
    await converse(Turn(again), again, OneResponse(Said(usage={"output_tokens": 5})), _no_tools)
    assert first.holding.usage == {"output_tokens": 3}
