"""A holder's fold begins from the one that was kept beside the log, and proves it."""

from functools import partial
from typing import Any

import pytest

from agent_runner.conversation import ROOM
from agent_runner.state import State
from broker import hold as module
from broker.append import Append, append
from broker.connect import Broker
from broker.hold import Folded, holding
from broker.kept import epoch, load
from contracts import events
from contracts.kept import session_of
from contracts.session import Session
from tests.broker.conftest import Connect
from tests.broker.holders import TOPIC, delivery
from tests.harness.nats_server import NatsServer
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

FACTS = 400


def folded(*, keeps: bool = True) -> Folded[State]:
    """As an agent runner has it that has just started."""
    kept = State.kept if keeps else None
    return Folded(State, again=lambda stored, epoch: State.again(stored, epoch, ROOM), kept=kept)


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


async def look(agent: Broker, states: Folded[State]) -> tuple[State, int]:
    """What a holder knows after its first look, and how many facts it folded itself."""
    async with holding(agent, delivery(agent), states) as hold:
        return hold.state, hold.number


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


async def test_a_short_session_is_folded_from_its_beginning(
    edge: Broker, agent: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fits into the first page needs nothing that was kept."""
    asked = []
    monkeypatch.setattr(module, "load", lambda _broker, subject: asked.append(subject))
    await talk(edge, agent, 3)
    assert (await look(agent, folded()))[1] == 6
    assert not asked


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
        states = Folded(Session, again=session_of)
        async with holding(tools, delivery(tools), states) as hold:
            assert hold.number == 0
            assert len(hold.state.ended) == FACTS // 2


async def test_a_fold_that_cannot_be_kept_harms_nobody(
    edge: Broker, agent: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too large, or of what MessagePack does not hold."""
    await talk(edge, agent, 50)
    monkeypatch.setattr(module, "KEPT_BYTES", 10)
    assert (await look(agent, folded()))[1] == 100

    def refuse(*_: object) -> bytes:
        raise OverflowError

    states = Folded(State, again=lambda stored, epoch: State.again(stored, epoch, ROOM), kept=refuse)
    assert (await look(agent, states))[1] == 100
    assert await load(agent, TOPIC.turns_state) is None
