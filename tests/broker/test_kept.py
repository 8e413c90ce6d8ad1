"""A holder's fold begins from the one that was kept beside the log, and proves it."""

from functools import partial
from typing import Any

import pytest

from agent_runner.conversation import ROOM
from agent_runner.state import State
from broker import folded as leaving
from broker import hold as module
from broker.append import Append, append
from broker.connect import Broker
from broker.folded import Folded, holding
from broker.kept import epoch, load
from broker.read import Record, page
from contracts import events
from contracts.kept import session_of
from contracts.session import Session
from contracts.subjects import Topic
from tests.broker.conftest import Connect
from tests.broker.holders import CANCEL, ROOMY, TOPIC, delivery
from tests.harness.nats_server import NatsServer
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

FACTS = 400


def folded(*, keeps: bool = True) -> Folded[State]:
    """As an agent runner has it that has just started."""
    kept = State.kept if keeps else None
    return Folded(State, ROOMY, again=lambda stored, epoch: State.again(stored, epoch, ROOM), kept=kept)


async def talk(edge: Broker, agent: Broker, turns: int, first: int = 0) -> None:
    """A session of so many turns."""
    base: dict[str, Any] = {"timestamp": events.timestamp(), "session_id": TOPIC.id}
    for n in range(first, first + turns):
        name = f"m{n}"
        message = events.Message(
            **base, id=f"e{n}", message_id=name, role="user", content=name, user_id="u", client_message_id=name
        )
        end = events.TurnEnd(**base, id=f"t{n}", reply_to=name, status="completed")
        await append(edge, Append(TOPIC.fact("message"), events.encode(message), message.id))
        await append(agent, Append(TOPIC.fact("agent"), events.encode(end), end.id))


async def is_kept(agent: Broker, upto: int) -> bool:
    """Whether a state is kept that goes so far."""
    stored = await load(agent, TOPIC.turns_state)
    again = State.again(stored, epoch(agent), ROOM) if stored else None
    return again is not None and again[1] == upto


async def look(agent: Broker, states: Folded[State]) -> tuple[State, int]:
    """What a holder knows after its first look, and how many facts it folded itself."""
    async with holding(agent, delivery(agent), states) as hold:
        return hold.state, states.take(TOPIC).number


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many facts each page had that a holder has read."""
    numbers: list[int] = []

    async def counted(*given: Any, **more: Any) -> tuple[list[Record], bool]:
        found = await page(*given, **more)
        numbers.append(len(found[0]))
        return found

    monkeypatch.setattr(module, "page", counted)
    return numbers


async def test_a_runner_that_has_just_started_folds_what_came_since(edge: Broker, agent: Broker) -> None:
    """The cost of waking does not grow with the session."""
    await talk(edge, agent, FACTS // 2)
    first, number = await look(agent, folded())
    assert number == FACTS
    await until(lambda: load(agent, TOPIC.turns_state))
    again, number = await look(agent, folded())
    assert number == 0
    assert again.session.ended.keys() == first.session.ended.keys()
    assert again.conversation == first.conversation
    await talk(edge, agent, 5, first=FACTS)
    grown, number = await look(agent, folded())
    assert number == 10
    assert len(grown.session.ended) == FACTS // 2 + 5


async def test_a_first_look_at_a_long_session_reads_a_bounded_number_of_facts(
    edge: Broker, agent: Broker, pages: list[int]
) -> None:
    """As many as a new state is kept after, twice; and the one that the kept state ends with."""
    number = 0
    for turns in (50, 300, 700):
        await talk(edge, agent, turns, first=number)
        await look(agent, folded())
        await until(partial(is_kept, agent, 2 * (number + turns)))
        await talk(edge, agent, 31, first=number + turns)
        number += turns + 31
        pages.clear()
        await look(agent, folded(keeps=False))
        assert pages == [module.KEEP_AFTER, 1 + 62]


async def test_what_several_holders_of_a_process_have_folded_is_kept_when_it_is_enough(
    edge: Broker, agent: Broker
) -> None:
    """Short turns, one after another in the same process: else another one would fold them all."""
    states = folded()
    for n in range(7):
        await talk(edge, agent, 5, first=5 * n)
        await look(agent, states)
    await until(partial(is_kept, agent, 70))


async def test_a_state_whose_last_fact_does_not_stand_where_it_stood_is_passed_over(
    edge: Broker, agent: Broker
) -> None:
    """It is of another history: of a log that was lost and has the same epoch, or whoever wrote it was wrong."""
    await talk(edge, agent, 49)
    await edge.request(Topic.session("acme", "another").fact("message"), CANCEL)
    await talk(edge, agent, 1, first=49)
    await agent.request(TOPIC.turns_state, State().kept(epoch(agent), 99))
    state, number = await look(agent, folded(keeps=False))
    assert (number, len(state.session.ended)) == (100, 50)


async def test_a_short_session_is_folded_from_its_beginning(
    edge: Broker, agent: Broker, pages: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fits into the first page needs nothing that was kept, and is read with one request."""
    asked = []
    monkeypatch.setattr(leaving, "load", lambda _broker, subject: asked.append(subject))
    await talk(edge, agent, 3)
    assert (await look(agent, folded()))[1] == 6
    assert (asked, pages) == ([], [6])


async def test_garbage_and_what_is_of_another_log_is_passed_over(edge: Broker, agent: Broker, nats: NatsServer) -> None:
    """It is a cache: nothing rests on it."""
    await talk(edge, agent, 50)
    state, _ = await look(agent, folded(keeps=False))
    last = 100
    good = partial(state.kept, epoch(agent))
    for stored in (b"garbage", state.kept("another", last), good(last - 1) + b"x", good(last + 5), b"\xc0"):
        await agent.request(TOPIC.turns_state, stored)
        assert (await look(agent, folded(keeps=False)))[1] == 100
    await agent.request(TOPIC.turns_state, good(last))
    assert (await look(agent, folded(keeps=False)))[1] == 0


async def test_a_tool_runner_begins_from_what_an_agent_runner_kept(
    edge: Broker, agent: Broker, service: Connect
) -> None:
    """It needs the session only."""
    await talk(edge, agent, FACTS // 2)
    await look(agent, folded())
    await until(lambda: load(agent, TOPIC.turns_state))
    async with service("tool_runner") as tools:
        states = Folded(Session, ROOMY, again=session_of)
        async with holding(tools, delivery(tools), states) as hold:
            assert states.take(TOPIC).number == 0
            assert len(hold.state.ended) == FACTS // 2


async def test_a_fold_that_cannot_be_kept_harms_nobody(
    edge: Broker, agent: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too large, or of what MessagePack does not hold."""
    await talk(edge, agent, 50)
    monkeypatch.setattr(leaving, "KEPT_BYTES", 10)
    assert (await look(agent, folded()))[1] == 100

    def refuse(*_: object) -> bytes:
        raise OverflowError

    states = Folded(State, ROOMY, again=lambda stored, epoch: State.again(stored, epoch, ROOM), kept=refuse)
    assert (await look(agent, states))[1] == 100
    assert await load(agent, TOPIC.turns_state) is None
