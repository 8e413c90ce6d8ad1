"""What ends an attempt for good: a replay that does not match, a limit. The agent cannot go on by catching it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from agent_runner.turn import Turn
from contracts import events
from contracts.errors import Code, MillraceError
from tests.harness.attempts import Function, Log, attempt, dies, ended

pytestmark = pytest.mark.anyio

DONE: list[str] = []


@pytest.fixture(autouse=True)
def _done() -> None:
    DONE.clear()


async def recorded(turn: Turn) -> None:
    """What the agent was: one step is recorded."""
    await turn.step("first", lambda: DONE.append("first"))
    await asyncio.Event().wait()


async def goes_on(turn: Turn) -> None:
    """What it is now: does something else, catches what comes of it, and would do the step again at the next place."""
    with suppress(Exception):
        await turn.say("x")
    with suppress(Exception):
        await turn.step("first", lambda: DONE.append("again"))


async def raises_another(turn: Turn) -> None:
    """Makes something else of it."""
    try:
        await turn.say("x")
    except MillraceError:
        raise ValueError("a secret") from None


async def never_stops(turn: Turn) -> None:
    """Tries again for ever."""
    while True:
        with suppress(Exception):
            await turn.say("x")


async def never_ends(turn: Turn) -> None:
    """Nor lets itself be cancelled."""
    with suppress(asyncio.CancelledError):
        await never_stops(turn)
    await asyncio.Event().wait()


@pytest.mark.parametrize("agent", [goes_on, raises_another, never_stops, never_ends])
async def test_a_mismatch_that_the_agent_catches_ends_its_turn_all_the_same(
    agent: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decision 0018: nothing is guessed, and nothing is done twice."""
    monkeypatch.setattr("broker.settle.CANCEL_GRACE", 0.05)
    log = Log()
    await dies(log, recorded, upto=1)
    end = await ended(log, agent)
    assert end.status == "failed"
    assert end.error
    assert end.error.code == Code.AGENT_FAILED
    assert "the step 'first' at place 1, now an answer" in end.error.error
    assert [error.error for error in log.of(events.Error)] == [end.error.error]
    assert DONE == ["first"]
    assert not log.of(events.StreamStart)


async def test_after_a_limit_every_act_raises_it_again() -> None:
    """Our choice: the attempt is over for good, whatever the agent tries."""
    log = Log()
    turn = attempt(log, max_bytes=3, tools=("demo.*",))
    for act in (
        lambda: turn.say("xxxx"),
        lambda: turn.say("x"),
        lambda: turn.step("s", int),
        lambda: turn.step("", int),
        lambda: turn.call("demo.add", {}),
        lambda: turn.call("not.allowed", {}),
        lambda: turn.call_all([("demo.add", {})]),
        lambda: turn.progress("half", 0.5),
        lambda: turn.progress("wrong", 5),
        turn.steers,
    ):
        with pytest.raises(MillraceError) as caught:
            await act()
        assert caught.value.code == Code.TURN_LIMIT
    assert turn.cancelled
    assert not log.of(events.StreamStart)


async def returns(turn: Turn) -> None:
    """Reaches a limit and returns as if nothing had been."""
    with suppress(Exception):
        await turn.say("xxxx")


async def test_a_limit_that_the_agent_catches_ends_its_turn_all_the_same() -> None:
    """Our choice: a turn is not completed whose answer is missing."""
    end = await ended(Log(), returns, max_bytes=3)
    assert (end.status, end.error and end.error.code) == ("failed", Code.TURN_LIMIT)


async def test_an_answer_stops_where_something_beside_it_ends_the_attempt() -> None:
    """Our choice: what was produced before is told."""
    log = Log()
    turn = attempt(log, max_calls=0, tools=("demo.*",))

    async def pieces() -> AsyncIterator[str]:
        yield "one"
        with suppress(MillraceError):
            await turn.call("demo.add", {})
        yield "two"

    with pytest.raises(MillraceError):
        await turn.say(pieces())
    assert [delta.delta for delta in log.said] == ["one"]


async def forbidden(turn: Turn) -> None:
    """Catches what it may."""
    with suppress(MillraceError):
        await turn.call("not.allowed", {})
    with suppress(ValueError):
        await turn.step("", int)
    await turn.say("after")


async def test_what_an_act_refuses_for_its_own_sake_may_be_caught() -> None:
    """Our choice: the agent may do without it."""
    log = Log()
    assert (await ended(log, forbidden)).status == "completed"
    assert [end.content for end in log.of(events.StreamEnd)] == ["after"]
