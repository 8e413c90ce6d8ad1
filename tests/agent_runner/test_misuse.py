"""Agents that do what nobody would, or what Python makes easy: their turns end, others go on, and nothing is lost."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine

import pytest

from agent_runner.agents import Agents
from agent_runner.turn import Turn
from contracts import events
from contracts.config import Agent, Config
from contracts.errors import Code, MillraceError
from tests.harness.attempts import Function, Log, attempt, ended

pytestmark = pytest.mark.anyio


class Panic(BaseException):
    """As extensions in Rust raise it."""


async def panics(_turn: Turn) -> None:
    """Raises what no `except Exception` catches."""
    raise Panic


async def panics_in_a_group(_turn: Turn) -> None:
    """The same, in a group."""
    raise BaseExceptionGroup("x", [Panic(), ValueError()])


async def panics_in_a_step(turn: Turn) -> None:
    """The same, in a thread."""

    def work() -> None:
        raise Panic

    await turn.step("x", work)


async def exits(_turn: Turn) -> None:
    """As a script does."""
    sys.exit()


async def exits_beside(turn: Turn) -> None:
    """In a task of its own, where it would end the process."""
    await asyncio.gather(turn.step("a", sys.exit), turn.step("b", int))


async def searches(turn: Turn) -> None:
    """`next` without a default, in a thread: no future takes what it raises."""
    await turn.step("find", lambda: next(iter([])))


async def cancels_its_own(turn: Turn) -> None:
    """Waits for what it has cancelled itself."""

    async def pieces() -> AsyncIterator[str]:
        yield "half"
        task = asyncio.create_task(asyncio.Event().wait())
        task.cancel()
        await task

    await turn.say(pieces())


async def cancels_in_a_step(turn: Turn) -> None:
    """The same, in a step."""

    async def work() -> None:
        raise asyncio.CancelledError

    await turn.step("x", work)


async def says_within(turn: Turn) -> None:
    """Would wait for itself."""

    async def pieces() -> AsyncIterator[str]:
        yield "a"
        await turn.say("b")

    await turn.say(pieces())


async def steps_within(turn: Turn) -> None:
    """A later attempt would not come by the inner step."""
    await turn.step("outer", lambda: turn.step("inner", int))


@pytest.mark.parametrize(
    ("agent", "told"),
    [
        (panics, "Panic"),
        (panics_in_a_group, "BaseExceptionGroup"),
        (panics_in_a_step, "RuntimeError"),
        (exits, "SystemExit"),
        (exits_beside, "RuntimeError"),
        (searches, "RuntimeError"),
        (cancels_its_own, "CancelledError"),
        (cancels_in_a_step, "CancelledError"),
        (says_within, "RuntimeError"),
        (steps_within, "RuntimeError"),
    ],
)
async def test_whatever_an_agent_raises_fails_its_turn(log: Log, agent: Function, told: str) -> None:
    """Promise: its turn, and nothing else; and not again and again."""
    end = await ended(log, agent)
    assert (end.status, end.error and end.error.error) == ("failed", f"the agent raised {told}")
    assert len(log.of(events.TurnStart)) == 1


async def refused_in_a_group(turn: Turn) -> None:
    """One of its tasks is refused something."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(turn.call("not.allowed", {}))


async def test_what_is_refused_within_a_group_keeps_its_sentence(log: Log) -> None:
    """Our choice: a TaskGroup only wraps it."""
    end = await ended(log, refused_in_a_group)
    assert end.error
    assert end.error.code == Code.TOOL_DENIED


async def names_a_file(_turn: Turn) -> None:
    """A name that is no UTF-8, as the system gives it."""
    raise MillraceError(Code.AGENT_FAILED, "cannot read \udcff.txt" + "x" * 10_000_000)


async def test_the_sentence_of_a_failure_is_one_that_can_be_stored(log: Log) -> None:
    """Promise: the turn ends with it."""
    end = await ended(log, names_a_file)
    assert end.error
    assert end.error.error.startswith("cannot read ?.txtx")
    assert len(end.error.error) < 5000


async def mends(turn: Turn) -> None:
    """One of its tasks fails, and it does without: Python 3.11 and 3.12 leave the task marked as cancelled."""

    async def failing() -> None:
        raise ValueError

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(failing())
            tasks.create_task(asyncio.Event().wait())
    except* ValueError:
        await turn.say("without")


async def mends_and_cancels(turn: Turn) -> None:
    """And then waits for what it has cancelled itself."""
    await mends(turn)
    await cancels_its_own(turn)


async def test_a_group_of_tasks_that_failed_interrupts_nobody(log: Log) -> None:
    """Promise: the agent goes on, and its turn ends once."""
    assert (await ended(log, mends)).status == "completed"
    assert len(log.of(events.StreamEnd)) == 1


async def test_a_cancellation_of_its_own_after_a_group_fails_the_turn(log: Log) -> None:
    """Promise: it is not begun again for ever."""
    end = await ended(log, mends_and_cancels)
    assert (end.status, end.error and end.error.error) == ("failed", "the agent raised CancelledError")


async def twice(turn: Turn) -> None:
    """Two steps."""
    await turn.step("one", int)
    await turn.step("two", int)
    await turn.say("done")


async def test_what_a_step_has_begun_may_act_when_it_is_over(log: Log) -> None:
    """Our choice: a worker of the whole process may have been begun within a step."""
    turn, going = attempt(log), asyncio.Event()

    async def works() -> str:
        await going.wait()
        return await turn.say("later")

    worker = await begun(turn, works)
    going.set()
    assert await worker == "later"


async def begun(turn: Turn, works: Callable[[], Coroutine[None, None, str]]) -> asyncio.Task[str]:
    """A task that a step begins."""
    tasks: list[asyncio.Task[str]] = []

    async def begin() -> None:
        tasks.append(asyncio.create_task(works()))

    await turn.step("begin", begin)
    return tasks[0]


async def test_a_step_after_a_step_is_not_within_it(log: Log) -> None:
    """Our choice: it is only while it works."""

    assert (await ended(log, twice)).status == "completed"


async def test_a_model_that_could_not_be_opened_is_opened_again(monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    """Our choice: too many open files is no reason to be restarted."""
    tried: list[Agent] = []

    def open_model(agent: Agent) -> object:
        tried.append(agent)
        raise OSError(24, "Too many open files")

    async def nothing(_globs: tuple[str, ...]) -> tuple[()]:
        return ()

    monkeypatch.setattr("agent_runner.agents.open_model", open_model)
    agents = Agents(Config({}, {"a": Agent(model="openai:x")}, {}), nothing)
    for _ in range(2):
        turn = attempt(log)
        with pytest.raises(OSError, match="Too many"):
            await agents.run(turn._journal)
    assert len(tried) == 2
