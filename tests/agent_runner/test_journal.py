"""What an attempt finds of earlier ones, and when it only waits."""

import asyncio

import pytest

from agent_runner.turn import Turn
from contracts import events
from contracts.errors import Code
from tests.contracts import facts as a
from tests.harness.attempts import Function, Log, attempt, dies, ended
from tests.harness.wait import until

pytestmark = pytest.mark.anyio


async def test_a_turn_rests_again_when_what_it_did_beside_a_call_has_ended() -> None:
    """DESIGN: one that waits for a person is not counted among those that compute."""
    log = Log()
    turn = attempt(log, tools=("demo.*",))
    waiting = asyncio.create_task(turn.call("demo.note", {}))
    await until(lambda: log.delivery.resting)

    async def work() -> None:
        assert not log.delivery.resting
        raise LookupError

    with pytest.raises(LookupError):
        await turn.step("beside", work)
    assert log.delivery.resting
    waiting.cancel()


async def recorded(turn: Turn) -> None:
    """What the agent was when it recorded a step and a call."""
    await turn.step("one", int)
    await turn.call("demo.note", {"text": "x", "more": 1})


async def another_kind(turn: Turn) -> None:
    """An answer where a step is recorded."""
    await turn.say("x")


async def another_step(turn: Turn) -> None:
    """A step of another name."""
    await turn.step("two", int)


async def one_more(turn: Turn) -> None:
    """A step before what is recorded."""
    await turn.step("one", int)
    await turn.step("two", int)


async def another_tool(turn: Turn) -> None:
    """A call of another tool."""
    await turn.step("one", int)
    await turn.call("demo.add", {"text": "x", "more": 1})


async def other_arguments(turn: Turn) -> None:
    """The call with other arguments."""
    await turn.step("one", int)
    await turn.call("demo.note", {"text": "y", "more": 1})


async def ends_early(turn: Turn) -> None:
    """Without the call."""
    await turn.step("one", int)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (another_kind, "the step 'one' at place 1, now an answer"),
        (another_step, "the step 'one' at place 1, now the step 'two'"),
        (one_more, "the call of demo.note at place 2, now the step 'two'"),
        (another_tool, "the call of demo.note at place 2, now the call of demo.add"),
        (other_arguments, "the call of demo.note at place 2, now other arguments"),
        (ends_early, "more at place 2, now the end"),
    ],
)
async def test_code_that_does_not_match_what_is_recorded_does_nothing_and_says_where(now: Function, said: str) -> None:
    """Decision 0018: every form of it."""
    log = Log()
    await dies(log, recorded, upto=2, tools=("demo.*",))
    before = len(log.facts)
    end = await ended(log, now, tools=("demo.*",))
    assert end.error
    assert (end.status, end.error.code) == ("failed", Code.AGENT_FAILED)
    assert end.error.error.endswith(said)
    assert [type(fact) for fact in log.facts[before:]] == [events.TurnStart, events.Error, events.TurnEnd]


async def in_another_order(turn: Turn) -> None:
    """The same arguments."""
    await turn.step("one", int)
    await turn.call("demo.note", {"more": 1, "text": "x"})


async def test_the_same_arguments_in_another_order_match() -> None:
    """Standard: RFC 8259, the members of an object have no order."""
    log = Log()
    await dies(log, recorded, upto=2, tools=("demo.*",))
    (call,) = log.of(events.ToolCall)
    log.add(a.tool_result(call.tool_call_id, "m1"))
    assert (await ended(log, in_another_order, tools=("demo.*",))).status == "completed"
    assert len(log.of(events.ToolCall)) == 1


async def test_a_later_attempt_finds_at_each_look_what_steered_the_turn_there() -> None:
    """Decision 0018: what was taken in after something was recorded is not found before that."""
    log = Log()
    first = attempt(log)
    log.add(a.message("m2", "steer"))
    assert [message.message_id for message in await first.steers()] == ["m2"]
    await first.step("one", int)
    log.add(a.message("m3", "steer"))
    assert [message.message_id for message in await first.steers()] == ["m3"]
    await first.step("two", int)
    again = attempt(log)
    assert [message.message_id for message in await again.steers()] == ["m2"]
    await again.step("one", int)
    assert [message.message_id for message in await again.steers()] == ["m3"]


async def test_a_look_that_is_replayed_takes_in_nothing_new() -> None:
    """Likewise: an agent that looks no more would lose it."""
    log = Log()
    first = attempt(log)
    assert await first.steers() == []
    await first.step("one", int)
    log.add(a.message("m2", "steer"))
    again = attempt(log)
    assert await again.steers() == []
    assert not log.of(events.TurnEnd)
    await again.step("one", int)
    assert [message.message_id for message in await again.steers()] == ["m2"]
