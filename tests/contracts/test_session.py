"""The fold of a session: in one go or in two, and never alive again what has ended."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import events
from contracts.events import AnyEvent
from contracts.session import Session, Steer, Turn
from tests.contracts import facts as a

histories = st.lists(a.arbitrary, max_size=30) | a.honest()
unhurried = settings(deadline=None)


def fold(facts: list[AnyEvent], session: Session | None = None, *, after: int = 0) -> Session:
    """The session after those facts, which stand behind sequence `after`."""
    session = session or Session()
    for seq, fact in enumerate(facts, after + 1):
        session.apply(seq, fact)
    return session


def turn(*facts: AnyEvent, of: str = "m1") -> Turn:
    """One open turn after those facts."""
    return fold(list(facts)).turns[of]


@given(histories, st.integers(0, 30))
@unhurried
def test_folding_a_prefix_and_then_the_rest_is_folding_everything(facts: list[AnyEvent], cut: int) -> None:
    """Promise: a state that a holder left behind is as good as a new fold."""
    cut = min(cut, len(facts))
    assert fold(facts[cut:], fold(facts[:cut]), after=cut) == fold(facts)


@given(histories, st.integers(0, 30))
@unhurried
def test_a_copy_goes_its_own_way(facts: list[AnyEvent], cut: int) -> None:
    """Our choice: states may be handed over and kept at once."""
    cut = min(cut, len(facts))
    session = fold(facts[:cut])
    copy = session.copy()
    assert copy == session
    fold(facts[cut:], copy, after=cut)
    assert session == fold(facts[:cut])


@given(histories)
@unhurried
def test_every_prefix_is_consistent(facts: list[AnyEvent]) -> None:
    """Promise P1, P3: what has ended is not open; open turns stand in the order of the log."""
    session, ended = Session(), dict[str, str]()
    for seq, fact in enumerate(facts, 1):
        session.apply(seq, fact)
        assert not session.turns.keys() & session.ended.keys()
        assert session.ended.items() >= ended.items(), "an end is for ever"
        ended = dict(session.ended)
        assert [turn.seq for turn in session.turns.values()] == sorted(turn.seq for turn in session.turns.values())
        assert session.first == min(session.turns, key=lambda message_id: session.turns[message_id].seq, default=None)


@given(histories)
@unhurried
def test_a_call_leaves_when_it_has_its_result_and_its_turn_has_ended(
    facts: list[AnyEvent],
) -> None:
    """Our choice: what stays in memory is what somebody still has to act on."""
    session = fold(facts)
    for call in session.calls.values():
        assert call.result is None or call.call.reply_to in session.turns


@given(a.honest())
@unhurried
def test_an_honest_history_never_counts_less_than_nothing(facts: list[AnyEvent]) -> None:
    """A release gives back what its own claim has counted, also where a step was recorded since."""
    for open_turn in fold(facts).turns.values():
        assert 0 <= open_turn.failures <= open_turn.attempt


@given(histories)
@unhurried
def test_facts_that_are_read_again_revive_nothing(facts: list[AnyEvent]) -> None:
    """Promise P1: exactly one turn for a message, however often it is stored."""
    before = fold(facts)
    again = fold(facts, before.copy(), after=len(facts))
    assert again.ended.items() >= before.ended.items()
    assert not again.turns.keys() & before.ended.keys()


def test_a_message_is_its_first_fact() -> None:
    """DESIGN: the same message stored again is not another one, and interrupts nothing."""
    session = fold([a.message("m1"), a.message("m2", "interrupt"), a.message("m1", "interrupt")])
    assert (session.turns["m1"].seq, session.turns["m1"].stopping) == (1, True)
    assert not session.turns["m2"].stopping


def test_a_message_that_has_ended_is_not_opened_again() -> None:
    """Promise P1: exactly one `turn_end`."""
    session = fold([a.message("m1"), a.turn_end("m1", "failed"), a.message("m1")])
    assert (session.turns, session.ended) == ({}, {"m1": "failed"})


def test_a_call_is_kept_until_it_has_its_result_and_its_turn_has_ended() -> None:
    """Our choice: in either order."""
    called = [a.message("m1"), a.turn_start("m1"), a.tool_call("c1", "m1")]
    ends = [a.tool_result("c1", "m1"), a.turn_end("m1", "cancelled")]
    for first, second in (ends, ends[::-1]):
        assert "c1" in fold([*called, first]).calls
        assert fold([*called, first, second]).calls == {}


def test_an_interrupt_stops_every_earlier_message_and_no_later_one() -> None:
    """DESIGN: at its place in the log."""
    session = fold([a.message("m1"), a.message("m2"), a.message("m3", "interrupt"), a.message("m4")])
    assert [turn.stopping for turn in session.turns.values()] == [True, True, False, False]


def test_a_cancel_without_id_means_the_first_message_at_its_place() -> None:
    """DESIGN: the message behind it, which is first later, is not meant."""
    facts = [a.message("m1"), a.message("m2"), a.cancel(), a.turn_end("m1", "cancelled")]
    assert not fold(facts).turns["m2"].stopping
    assert fold([*facts, a.cancel()]).turns["m2"].stopping


def test_a_cancel_of_an_answer_means_its_question() -> None:
    """WIRE: `message_id` of a question or an answer."""
    facts = [a.message("m1"), a.turn_start("m1"), a.stream_start("a1", "m1"), a.cancel("a1")]
    assert turn(*facts).stopping


def test_a_cancel_of_what_has_ended_or_is_unknown_means_nothing() -> None:
    """DESIGN: nothing that has ended."""
    facts = [a.message("m1"), a.turn_end("m1"), a.message("m2"), a.cancel("m1"), a.cancel("m9")]
    assert not turn(*facts, of="m2").stopping


def test_attempts_are_counted_and_failures_since_the_last_recorded_step() -> None:
    """DESIGN: claims since the last recorded step; the attempt that recorded it is the first."""
    facts = [a.message("m1"), a.turn_start("m1"), a.turn_start("m1", 2), a.turn_start("m1", 3)]
    assert (turn(*facts).attempt, turn(*facts).failures) == (3, 3)
    for recorded in (a.step("m1"), a.stream_end("a1", "m1")):
        assert (turn(*facts, recorded).attempt, turn(*facts, recorded).failures) == (3, 1)
    called = [*facts, a.tool_call("c1", "m1"), a.tool_result("c1", "m1")]
    assert turn(*called).failures == 1


def test_attempts_are_not_counted_while_a_turn_only_waits() -> None:
    """Promise: who waits for a person is not to blame for what kills its process, before or after it says so again."""
    waits = [a.message("m1"), a.turn_start("m1"), a.turn_start("m1", 2), a.tool_call("c1", "m1"), a.status("m1")]
    assert turn(*waits).failures == 0
    taken_over = [*waits, *(a.turn_start("m1", attempt) for attempt in (3, 4, 5))]
    assert (turn(*taken_over).failures, turn(*taken_over).attempt) == (0, 5)
    asked = [*taken_over, a.request("c1", "m1"), a.status("m1", "waiting_approval"), a.turn_start("m1", 6)]
    assert turn(*asked).failures == 0
    goes_on = [*asked, a.approval("c1"), a.tool_result("c1", "m1")]
    assert turn(*goes_on, a.turn_start("m1", 7), a.turn_start("m1", 8)).failures == 2


@pytest.mark.parametrize(
    "goes_on",
    [a.step("m1"), a.stream_start("a1", "m1"), a.tool_call("c2", "m1"), a.status("m1", "thinking")],
    ids=lambda event: type(event).__name__,
)
def test_a_turn_that_does_something_beside_its_wait_is_counted_again(goes_on: AnyEvent) -> None:
    """Our choice: so an agent that gathers a call with something that kills its process comes to an end."""
    waits = [a.message("m1"), a.turn_start("m1"), a.tool_call("c1", "m1"), a.status("m1")]
    assert turn(*waits, goes_on, a.turn_start("m1", 2), a.turn_start("m1", 3)).failures == 2


def test_a_turn_with_an_open_answer_does_not_only_wait() -> None:
    """Our choice: what it computes beside its call may be what kills its process."""
    both = [a.message("m1"), a.turn_start("m1"), a.stream_start("a1", "m1"), a.tool_call("c1", "m1"), a.status("m1")]
    assert turn(*both, a.turn_start("m1", 2)).failures == 2


def test_a_turn_waits_until_its_last_call_has_its_result() -> None:
    """Calls side by side: the attempt says so once, for the first of them."""
    calls = [a.tool_call("c1", "m1"), a.tool_call("c2", "m1"), a.status("m1"), a.tool_result("c2", "m1")]
    waits = [a.message("m1"), a.turn_start("m1"), *calls]
    assert turn(*waits, a.turn_start("m1", 2)).failures == 0
    assert turn(*waits, a.tool_result("c1", "m1"), a.turn_start("m1", 2)).failures == 1


def test_a_release_of_an_attempt_that_waited_gives_nothing_back() -> None:
    """It was not counted."""
    waits = [a.message("m1"), a.turn_start("m1"), a.tool_call("c1", "m1"), a.status("m1"), a.turn_release("m1")]
    assert (turn(*waits).attempt, turn(*waits).failures) == (0, 0)


def test_a_release_is_no_attempt_and_leaves_its_claim() -> None:
    """DESIGN: such a handover is no attempt; who comes next knows the claim as an older one."""
    released = turn(a.message("m1"), a.turn_start("m1"), a.turn_release("m1"))
    assert (released.attempt, released.failures, released.claim) == (0, 0, 2)


def test_a_steer_belongs_to_the_turn_that_took_it_in() -> None:
    """DESIGN: `steer_applied` is added by a later attempt at that turn, by no other turn."""
    facts = [a.message("m1"), a.message("m2"), a.message("m3", "steer"), a.turn_start("m1")]
    taken = [*facts, a.turn_end("m3", "steered")]
    message = a.message("m3", "steer")
    assert isinstance(message, events.Message)
    assert turn(*taken).steered == {"m3": Steer(message, after=0)}
    assert turn(*taken, a.steer_applied("m3", "m1")).steered == {"m3": Steer(message, after=0, told=True)}
    assert turn(*taken, a.turn_end("m1", "cancelled"), of="m2").steered == {}


def test_the_first_decision_on_a_call_counts() -> None:
    """Promise P6: an approval is decided once."""
    facts = [a.message("m1"), a.tool_call("c1", "m1"), a.request("c1", "m1")]
    call = fold([*facts, a.approval("c1", False), a.approval("c1", True)]).calls["c1"]
    assert call.decision
    assert not call.decision.approved


def test_a_reset_answer_begins_again_where_it_was_reset() -> None:
    """What was streamed before is void."""
    facts = [a.message("m1"), a.turn_start("m1"), a.stream_start("a1", "m1")]
    assert turn(*facts).answers["a1"].since == 3
    opened = turn(*facts, a.stream_reset("a1")).open_answer
    assert opened
    assert opened.since == 4
