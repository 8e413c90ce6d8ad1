"""What an agent runner folds of a session, and how it is kept."""

import gc
import tracemalloc
from typing import Any

import pytest

from agent_runner import state as module
from agent_runner.conversation import ROOM
from agent_runner.state import DIGEST, State
from broker.folded import KEPT_BYTES
from contracts import events
from contracts.events import AnyEvent
from tests.agent_runner.test_conversation import answers, asks, calls, ends, results
from tests.contracts import facts as a


def fold(*facts: AnyEvent, into: State | None = None, first: int = 1) -> State:
    """The state after those facts."""
    state = into or State()
    for seq, fact in enumerate(facts, first):
        state.apply(seq, fact)
    return state


def test_what_is_kept_and_gone_on_with_is_what_is_folded_at_once() -> None:
    """Promise: nobody can tell a state that was kept from one that was folded."""
    facts: list[AnyEvent] = [asks("m1"), a.turn_start("m1"), answers("m1", "one"), calls("m1", "c1"), asks("m2")]
    facts += [a.step("m1"), ends("m1"), a.turn_start("m2"), answers("m2", "two"), ends("m2"), asks("m3", "open")]
    for cut in range(len(facts) + 1):
        kept = fold(*facts[:cut]).kept("e", cut)
        again = State.again(kept, "e", ROOM)
        assert again
        assert again[1] == cut
        whole = fold(*facts)
        for status in (again[0].session.ended, whole.session.ended):
            status.update(dict.fromkeys(status, "completed"))  # how it ended is not kept
        assert fold(*facts[cut:], into=again[0], first=cut + 1) == whole


def test_what_is_no_kept_state_of_this_log_is_passed_over() -> None:
    """Promise: it is a cache."""
    kept = fold(asks("m1")).kept("e", 1)
    assert State.again(kept, "another epoch", ROOM) is None
    assert State.again(kept, "e", 2 * ROOM) is None
    assert State.again(kept[:-3], "e", ROOM) is None
    assert State.again(b"", "e", ROOM) is None
    assert State.again(b"\xff" * 100, "e", ROOM) is None


def test_a_message_stored_again_opens_no_turn_however_late(monkeypatch: Any) -> None:
    """WIRE: never a second turn; the ids of old messages are digests."""
    monkeypatch.setattr(module, "REMEMBERED", 3)
    state = State()
    for n in range(50):
        fold(asks(f"m{n}"), ends(f"m{n}"), into=state)
    assert len(state.session.ended) == 3
    assert len(state.past) == 47 * DIGEST
    for n in range(50):
        fold(asks(f"m{n}", "again"), into=state)
    assert not state.session.turns
    fold(asks("new"), into=state)
    assert list(state.session.turns) == ["new"]


def test_a_message_of_a_forgotten_turn_that_is_stored_again_is_not_shown_and_takes_no_steer() -> None:
    """WIRE: a message is its first fact. A turn that never ends would also keep later ones from being forgotten."""
    state = State.empty(1000)
    for n in range(40):
        fold(asks(f"m{n}"), answers(f"m{n}", "x" * 100), ends(f"m{n}"), into=state)
    assert "m0" not in state.conversation.turns
    fold(asks("m0", "again"), asks("now"), asks("s"), ends("s", "steered"), asks("s"), into=state)
    assert [entry.content for entry in state.conversation.prompt("now").entries][-2:] == ["now", "s"]
    assert not {"m0", "s"} & {*state.conversation.turns, *state.session.turns}


def test_a_session_of_short_turns_can_be_kept_however_long_it_is() -> None:
    """One that cannot would be folded from its beginning by every runner that has just started."""
    state = State()
    for n in range(20_000):
        message_id = f"m_{n:032x}"
        fold(asks(message_id, "ok"), answers(message_id, ""), ends(message_id), into=state)
    assert len(state.kept("e", 1)) < KEPT_BYTES / 2


def test_a_digest_is_found_only_where_one_begins() -> None:
    """What lies across two digests is none."""
    state = State()
    one, two = module._digest("one"), module._digest("two")
    state.past = one + two
    assert state._is_past("one")
    assert state._is_past("two")
    state.past = b"x" + one + b"x" * (DIGEST - 1)
    assert not state._is_past("one")
    state.past = b"x" + one + b"x" * (DIGEST - 1) + one
    assert state._is_past("one")


def test_digests_give_way_when_there_are_too_many(monkeypatch: Any) -> None:
    """The state stays small."""
    monkeypatch.setattr(module, "REMEMBERED", 2)
    monkeypatch.setattr(module, "PAST", 10)
    state = State()
    for n in range(100):
        fold(asks(f"m{n}"), ends(f"m{n}"), into=state)
        assert len(state.past) <= 10 * DIGEST
    assert state._is_past("m97")


def test_facts_that_are_no_messages_are_taken_in_as_they_come() -> None:
    """A cancel of a message that is past stops nothing."""
    state = fold(asks("m1"), ends("m1"), events.Cancel(**a.BASE, user_id="u"))
    assert not state.session.turns


@pytest.mark.parametrize(
    ("turns", "size", "called"),
    [(1, 20, 0), (1, 2_000, 0), (100, 20, 0), (2_500, 20, 0), (100, 2_000, 0), (8, 20_000, 0), (100, 20, 3)],
)
def test_a_state_weighs_about_what_it_takes_of_the_memory(turns: int, size: int, called: int) -> None:
    """Our choice: within a third. It is what the memory of `MILLRACE_STATES_BYTES` is divided by."""

    def folded(name: str) -> State:
        state = State.empty(ROOM)
        for n in range(turns):
            message_id = f"{name}-{n:08d}-of-some-length"
            facts: list[AnyEvent] = [asks(message_id, "why?"), a.turn_start(message_id)]
            for c in range(called):
                facts += [calls(message_id, f"{message_id}-{c}"), results(message_id, f"{message_id}-{c}")]
            facts += [answers(message_id, "w" * size), ends(message_id)]
            fold(*(fact for fact in map(events.decode, map(events.encode, facts)) if fact), into=state)
        return state

    folded("first")  # what is made once
    number = max(2, 200 // turns)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        states = [folded(f"state {n}") for n in range(number)]
        gc.collect()
        taken = (tracemalloc.get_traced_memory()[0] - before) / number
    finally:
        tracemalloc.stop()
    assert states[0].weight == pytest.approx(taken, rel=1 / 3)


def test_what_is_forgotten_weighs_nothing() -> None:
    """Promise: a state is of bounded size, and so is its weight."""
    state, most = State.empty(4096), 0
    for n in range(300):
        fold(asks(f"m{n}"), calls(f"m{n}", f"c{n}"), results(f"m{n}", f"c{n}"), answers(f"m{n}", "x" * 99), into=state)
        fold(ends(f"m{n}"), into=state)
        if n == 100:
            most = state.weight
    assert state.weight - most < 200 * 101
