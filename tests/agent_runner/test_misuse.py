"""Agents that do what nobody would, or what Python makes easy: their turns end, others go on, and nothing is lost."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from agent_runner import answer
from agent_runner.agents import Agents
from agent_runner.decide import Holding, decide
from agent_runner.state import State
from agent_runner.turn import Turn
from broker.acts import Put
from broker.settle import settle
from contracts import events
from contracts.config import Agent, Config
from contracts.errors import Code, MillraceError
from tests.contracts import facts as a
from tests.harness.attempts import Function, Log, attempt, ended, holder
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

TOOLS = {"tools": ("demo.*",)}


class Panic(BaseException):
    """As extensions in Rust raise it."""


@pytest.fixture(autouse=True)
def deltas_of(monkeypatch: pytest.MonkeyPatch) -> list[Log]:
    """The log whose deltas are read where an answer is closed: the first of the list."""
    logs: list[Log] = []

    async def read(*_: object) -> AsyncIterator[list[Any]]:
        await asyncio.sleep(0)
        yield [SimpleNamespace(data=events.encode(delta)) for delta in logs[0].said]

    monkeypatch.setattr(answer, "read", read)
    return logs


@pytest.fixture
def log(deltas_of: list[Log]) -> Log:
    log = Log()
    log.topic.delta = ""
    deltas_of.append(log)
    return log


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


async def swallows(turn: Turn) -> None:
    """Takes being interrupted for something to clean up after."""

    async def pieces() -> AsyncIterator[str]:
        yield "half "
        await asyncio.Event().wait()

    with suppress(asyncio.CancelledError):
        await turn.say(pieces())


async def test_an_agent_that_swallows_its_interruption_has_not_completed(log: Log) -> None:
    """Promise: a deployment hands the turn over; half an answer is no whole one."""
    hold: Any = log
    running = asyncio.create_task(settle(hold, holder(log, swallows)))
    await until(lambda: log.said)
    log.stopping = log.delivery.stopping = True
    log.news.set()
    async with asyncio.timeout(5):
        await running
    assert not log.of(events.StreamEnd)
    assert not log.of(events.TurnEnd)
    assert log.of(events.TurnRelease)


async def polls(turn: Turn) -> None:
    """Computes for long, and looks whether it is to stop."""
    while not turn.cancelled:  # noqa: ASYNC110 - it stands for computing
        await asyncio.sleep(0)


async def test_an_agent_that_heeds_its_interruption_has_not_completed(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: a deployment hands its turn over, also where it returns before it is cancelled."""
    never = asyncio.Event()

    async def slowly(_seconds: float = 0) -> None:
        await never.wait()

    monkeypatch.setattr(log, "news_folded", slowly)
    hold: Any = log
    running = asyncio.create_task(settle(hold, holder(log, polls)))
    await until(lambda: log.of(events.TurnStart))
    await asyncio.sleep(0)
    log.stopping = log.delivery.stopping = True
    async with asyncio.timeout(5):
        await running
    assert log.of(events.TurnRelease)
    assert not log.of(events.TurnEnd)


async def groups(turn: Turn) -> None:
    """A TaskGroup takes the interruption of one of its tasks for that task's own."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(turn.call("demo.note", {}))


async def test_a_turn_that_finds_no_room_in_a_group_of_tasks_has_not_completed(log: Log) -> None:
    """Promise: what was left out is done by a later attempt."""
    hold: Any = log
    running = asyncio.create_task(settle(hold, holder(log, groups, **TOOLS)))
    await until(lambda: log.delivery.resting)

    async def no_room(_delivery: object) -> None:
        await asyncio.sleep(0)
        log.stopping = log.delivery.stopping = True

    log.delivery.admitted = no_room
    log.add(a.tool_result(log.of(events.ToolCall)[0].tool_call_id, "m1"))
    async with asyncio.timeout(5):
        await running
    assert not log.of(events.TurnEnd)


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


async def turns_it_into_another(turn: Turn) -> None:
    """Its clean-up raises something else."""
    try:
        await swallows_nothing(turn)
    except asyncio.CancelledError:
        raise ValueError from None


async def swallows_nothing(turn: Turn) -> None:
    """Streams until it is interrupted."""

    async def pieces() -> AsyncIterator[str]:
        yield "half "
        await asyncio.Event().wait()

    await turn.say(pieces())


async def test_what_an_agent_raises_because_it_is_cut_off_fails_no_turn(log: Log) -> None:
    """Promise: a process that ends in a hurry takes no turn with it."""
    hold: Any = log
    running = asyncio.create_task(settle(hold, holder(log, turns_it_into_another)))
    await until(lambda: log.said)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not log.of(events.Error)


async def fails_and_goes_on(turn: Turn) -> None:
    """What it streams breaks off, and it does without."""

    async def pieces() -> AsyncIterator[str]:
        yield "The dose is 5"
        raise ConnectionError

    with suppress(ConnectionError):
        await turn.say(pieces())


async def test_an_answer_that_broke_off_is_not_told_as_whole(log: Log) -> None:
    """Promise: partial text is kept as such."""
    assert (await ended(log, fails_and_goes_on)).status == "completed"
    (end,) = log.of(events.StreamEnd)
    assert (end.content, end.finish_reason) == ("The dose is 5", "error")


async def test_what_a_step_has_returned_is_the_agents_own(log: Log) -> None:
    """Promise: what is recorded stays as it is, whatever the agent does to what it got."""
    (await attempt(log).step("s", lambda: [1])).append(2)
    again = await attempt(log).step("s", int)
    assert again == [1]
    again.append(3)
    assert await attempt(log).step("s", int) == [1]


async def called(log: Log, arguments: dict[str, Any]) -> events.ToolResult:
    """An attempt that calls a tool, whose result is there."""
    calling = asyncio.create_task(attempt(log, **TOOLS).call("demo.x", arguments))
    await until(lambda: log.of(events.ToolCall))
    call_id = log.of(events.ToolCall)[0].tool_call_id
    log.add(
        events.ToolResult(
            **a.BASE, tool_call_id=call_id, reply_to="m1", status="completed", result={"rows": [1]}, error=None
        )
    )
    return await calling


async def test_arguments_and_results_are_the_agents_own(log: Log) -> None:
    """Promise: as above."""
    arguments: dict[str, Any] = {"page": 1}
    (await called(log, arguments)).result["rows"].clear()
    arguments["page"] = 2
    assert (await called(log, {"page": 1})).result == {"rows": [1]}
    assert len(log.of(events.ToolCall)) == 1


async def test_the_message_is_the_agents_own(log: Log) -> None:
    """Promise: as above."""
    assert attempt(log).message is not log.state.session.turns["m1"].message


async def test_a_set_among_arguments_is_the_same_in_every_process(log: Log) -> None:
    """Promise: unchanged code finds its call again; sets have another order in each process."""
    tags = [str(n) for n in range(20)]
    await called(log, {"tags": set(tags), "also": 1})
    assert log.of(events.ToolCall)[0].arguments == {"also": 1, "tags": sorted(tags)}


async def test_keys_that_are_numbers_are_texts(log: Log) -> None:
    """Standard: JSON."""
    names: dict[Any, str] = {1: "a"}
    await called(log, {"names": names, "tags": {"b", "a", "c"}})
    assert log.of(events.ToolCall)[0].arguments == {"names": {"1": "a"}, "tags": ["a", "b", "c"]}


async def test_arguments_keep_their_order(log: Log) -> None:
    """Our choice: people read them."""
    await called(log, {"to": "a", "about": "b"})
    assert list(log.of(events.ToolCall)[0].arguments) == ["to", "about"]


async def test_what_nobody_could_read_is_refused(log: Log) -> None:
    """Promise: one such fact would be the end of its session."""
    turn = attempt(log, **TOOLS)
    before = len(log.facts)
    nothing: Any = None
    number: Any = 1
    fraction: Any = 1.5
    with pytest.raises(TypeError, match="a dict"):
        await turn.call("demo.x", nothing)
    with pytest.raises(TypeError, match="JSON"):
        await turn.call("demo.x", {"x": object()})
    with pytest.raises(TypeError, match="name"):
        await turn.step(number, int)
    with pytest.raises(TypeError, match="completed"):
        await turn.progress("x", 0.5, completed=fraction)
    assert len(log.facts) == before


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


def test_a_turn_that_was_cancelled_ends_so_though_its_attempts_are_used_up() -> None:
    """Promise: nobody redrives what a person has cancelled."""
    state = State()
    for seq, fact in enumerate([a.message("m1"), a.turn_start("m1"), a.turn_start("m1", 2), a.cancel("m1")], 1):
        state.apply(seq, fact)
    holding = Holding("s", "m1", 1, joined=3, limit=2)
    act = decide(state.session, holding)
    assert isinstance(act, Put)
    assert act.claim
    state.apply(5, act.event)
    holding.claim = 5
    act = decide(state.session, holding)
    assert isinstance(act, Put)
    assert isinstance(act.event, events.TurnEnd)
    assert act.event.status == "cancelled"


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
