"""The rules of DESIGN.md section 2, "A message": what its holder does next."""

from typing import Any

import pytest

from agent_runner.decide import CloseAnswer, Holding, Outcome, decide, first_look, release, steer
from broker.acts import Drop, Perform, Put, Settle, Wait
from contracts import events
from contracts.events import AnyEvent, Failure
from contracts.session import Session
from tests.contracts import facts as a

CLAIMED = (a.message("m1"), a.turn_start("m1"))
DONE = Outcome("completed")


def fold(*facts: AnyEvent) -> Session:
    """The session after those facts."""
    session = Session()
    for seq, fact in enumerate(facts, 1):
        session.apply(seq, fact)
    return session


def holding(message_id: str = "m1", trigger: int = 1, **more: Any) -> Holding:
    """A holder of the first fact, unless it matters."""
    return Holding("s", message_id, trigger, **more)


def mine(**more: Any) -> Holding:
    """A holder whose claim is the second fact."""
    return holding(claim=2, **more)


def put(act: object) -> AnyEvent:
    """The fact that is to be appended."""
    assert isinstance(act, Put), act
    return act.event


def ends(act: object, message_id: str, status: str) -> events.TurnEnd:
    """The `turn_end` that is to be appended."""
    event = put(act)
    assert isinstance(event, events.TurnEnd)
    assert (event.reply_to, event.status, event.session_id) == (message_id, status, "s")
    return event


def test_a_message_that_nobody_holds_is_claimed() -> None:
    """DESIGN: `turn_start(m, attempt)`."""
    act = decide(fold(a.message("m1")), holding())
    start = put(act)
    assert isinstance(act, Put)
    assert act.claim
    assert isinstance(start, events.TurnStart)
    assert (start.reply_to, start.attempt) == ("m1", 1)


def test_the_holder_of_the_last_claim_runs_the_turn() -> None:
    """DESIGN: claim, run."""
    assert decide(fold(*CLAIMED), mine()) == Perform()


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "steered"])
def test_a_message_that_has_ended_is_settled(status: events.TurnStatus) -> None:
    """DESIGN: `turn_end(m)` exists: ack; also for who was overtaken."""
    session = fold(*CLAIMED, a.turn_end("m1", status))
    assert decide(session, holding()) == decide(session, mine()) == Settle()


def test_the_same_message_stored_again_is_settled() -> None:
    """DESIGN: a message is its first fact."""
    assert decide(fold(a.message("m1"), a.message("m1")), holding(trigger=2)) == Settle()


def test_a_message_waits_for_every_earlier_one() -> None:
    """DESIGN: an earlier message without `turn_end`: wait."""
    waiting = holding("m2", 2)
    assert decide(fold(a.message("m1"), a.message("m2")), waiting) == Wait()
    after = fold(a.message("m1"), a.message("m2"), a.turn_end("m1"))
    assert isinstance(put(decide(after, waiting)), events.TurnStart)


def test_an_older_foreign_claim_is_taken_over() -> None:
    """DESIGN: a holder's first look divides the claims."""
    newcomer, session = holding(), fold(*CLAIMED)
    first_look(session, newcomer)
    assert newcomer.joined == 2
    start = put(decide(session, newcomer))
    assert isinstance(start, events.TurnStart)
    assert start.attempt == 2


def test_a_newer_foreign_claim_makes_a_holder_drop_also_while_it_waits() -> None:
    """DESIGN: to drop is to settle nothing."""
    assert decide(fold(*CLAIMED), holding()) == Drop()
    session = fold(a.message("m1"), a.message("m2"), a.turn_start("m2"))
    assert decide(session, holding("m2", 2)) == Drop()


@pytest.mark.parametrize("outcome", [None, DONE])
def test_a_holder_that_was_overtaken_drops_whatever_it_has_done(outcome: Outcome | None) -> None:
    """Promise P4."""
    assert decide(fold(*CLAIMED, a.turn_start("m1", 2)), mine(outcome=outcome)) == Drop()


def test_a_turn_past_the_limit_of_attempts_fails() -> None:
    """DESIGN: `turn_end failed`, without a claim."""
    newcomer = holding(joined=3, limit=2)
    session = fold(*CLAIMED, a.turn_start("m1", 2))
    failed = ends(decide(session, newcomer), "m1", "failed")
    assert failed.error
    assert failed.error.code == "agent_failed"
    newcomer.limit = 3
    assert isinstance(put(decide(session, newcomer)), events.TurnStart)


def test_a_recorded_step_gives_a_turn_new_attempts() -> None:
    """DESIGN: attempts are counted since the last recorded step."""
    session = fold(*CLAIMED, a.turn_start("m1", 2), a.step("m1"))
    assert isinstance(put(decide(session, holding(joined=3, limit=2))), events.TurnStart)


def test_a_turn_that_only_waits_is_taken_over_past_the_limit() -> None:
    """Promise P1: turns survive what is not their doing; where the turn goes on, attempts are counted again."""
    waits = [*CLAIMED, a.turn_start("m1", 2), a.tool_call("c1", "m1"), a.status("m1"), a.turn_start("m1", 3)]
    assert isinstance(put(decide(fold(*waits), holding(joined=6, limit=1))), events.TurnStart)
    goes_on = fold(*waits, a.tool_result("c1", "m1"), a.turn_start("m1", 4))
    ends(decide(goes_on, holding(joined=8, limit=1)), "m1", "failed")


@pytest.mark.parametrize(
    "stops",
    [a.cancel("m1"), a.cancel(), a.message("m2", "interrupt")],
    ids=["named", "unnamed", "interrupt"],
)
def test_a_cancel_or_an_interrupt_ends_the_turn(stops: AnyEvent) -> None:
    """Promise P8: whatever the agent has done by then."""
    session = fold(*CLAIMED, stops)
    assert ends(decide(session, mine()), "m1", "cancelled").error is None
    ends(decide(session, mine(outcome=DONE)), "m1", "cancelled")


def test_a_message_that_was_cancelled_before_its_turn_is_claimed_and_ended() -> None:
    """DESIGN: agent facts only from the holder of the last claim."""
    session = fold(a.message("m1"), a.cancel("m1"))
    assert isinstance(put(decide(session, holding())), events.TurnStart)


@pytest.mark.parametrize(
    ("more", "outcome", "now", "status"),
    [
        ([], DONE, 0, "completed"),
        ([], Outcome("failed", Failure("agent_failed", "no")), 0, "failed"),
        ([a.cancel()], None, 0, "cancelled"),
        ([a.message("m2", "interrupt")], None, 0, "cancelled"),
        ([], None, 1e9, "failed"),
    ],
)
def test_a_turn_tells_its_usage_however_it_ends(
    more: list[AnyEvent], outcome: Outcome | None, now: float, status: str
) -> None:
    """WIRE: `turn_end` tells the usage; what was used is paid for."""
    holder = mine(outcome=outcome, usage={"output_tokens": 3})
    assert ends(decide(fold(*CLAIMED, *more), holder, now), "m1", status).usage == {"output_tokens": 3}


def test_an_agent_that_failed_ends_its_turn_and_says_why() -> None:
    """WIRE: `error` {code, error, retryable}; nobody is steered into a failed turn."""
    failure = Failure("model_unavailable", "away", True)
    session = fold(*CLAIMED, a.message("m2", "steer"))
    act = decide(session, mine(outcome=Outcome("failed", failure)))
    assert ends(act, "m1", "failed").error == failure


def test_a_turn_whose_agent_has_failed_fails_also_where_somebody_else_ends_it() -> None:
    """An answer that broke off is recorded as one that has ended: run again, the agent would go on after it."""
    answer = [a.stream_start("a1", "m1"), a.error("no"), a.stream_end("a1", "m1"), a.turn_start("m1", 2)]
    act = decide(fold(*CLAIMED, *answer), holding(claim=6))
    assert ends(act, "m1", "failed").error == Failure("agent_failed", "no")


@pytest.mark.parametrize(
    ("more", "outcome", "reason"),
    [
        ([a.cancel()], None, "cancelled"),
        ([], DONE, "error"),
        ([], Outcome("failed", Failure("agent_failed", "no")), "error"),
    ],
)
def test_an_open_answer_ends_before_its_turn(more: list[AnyEvent], outcome: Outcome | None, reason: str) -> None:
    """WIRE: `stream_end` with the partial content, then `turn_end`."""
    session = fold(*CLAIMED, a.stream_start("a1", "m1"), *more)
    assert decide(session, mine(outcome=outcome)) == CloseAnswer("a1", reason)  # type: ignore[arg-type]


def test_a_turn_past_the_limit_ends_its_open_answer_first() -> None:
    """WIRE: an answer that is open when its turn fails ends before it."""
    streaming = [*CLAIMED, a.stream_start("a1", "m1"), a.turn_start("m1", 2)]
    assert decide(fold(*streaming), holding(joined=4, limit=2)) == CloseAnswer("a1", "error")
    closed = fold(*streaming, a.stream_end("a1", "m1", "error"))
    ends(decide(closed, holding(joined=4, limit=2)), "m1", "failed")


def test_a_steer_is_taken_in_by_its_end_and_then_said_to_be_applied() -> None:
    """DESIGN: also by a later attempt, where `steer_applied` is missing."""
    facts = [*CLAIMED, a.message("m2", "steer")]
    ends(steer(fold(*facts), mine()), "m2", "steered")
    facts.append(a.turn_end("m2", "steered"))
    applied = put(steer(fold(*facts, a.turn_start("m1", 2)), holding(claim=5)))
    assert isinstance(applied, events.SteerApplied)
    assert (applied.message_id, applied.reply_to) == ("m2", "m1")
    assert steer(fold(*facts, a.steer_applied("m2", "m1")), mine()) is None


@pytest.mark.parametrize("stops", [a.cancel("m2"), a.message("m3", "interrupt")], ids=["cancel", "interrupt"])
def test_a_steer_that_was_itself_stopped_is_not_taken_in(stops: AnyEvent) -> None:
    """DESIGN: it is ended as its own turn."""
    assert steer(fold(*CLAIMED, a.message("m2", "steer"), stops), mine()) is None


def test_only_steers_are_taken_in() -> None:
    """WIRE: `policy`."""
    assert steer(fold(*CLAIMED, a.message("m2")), mine()) is None


def test_a_steer_of_a_turn_that_was_cancelled_is_not_applied_by_the_next_turn() -> None:
    """DESIGN: by a later attempt at the same turn, not by another one."""
    facts = [*CLAIMED, a.message("m2"), a.message("m3", "steer"), a.turn_end("m3", "steered")]
    session = fold(*facts, a.turn_end("m1", "cancelled"), a.turn_start("m2"))
    assert steer(session, holding("m2", 3, claim=7)) is None


def test_a_holder_that_is_told_to_stop_gives_its_last_claim_back() -> None:
    """DESIGN: such a handover is no attempt; where there is a newer claim it drops."""
    act = release(fold(*CLAIMED), mine())
    assert isinstance(put(act), events.TurnRelease)
    assert release(fold(*CLAIMED), holding()) is None
    assert release(fold(*CLAIMED, a.turn_start("m1", 2)), mine()) is None
    assert release(fold(*CLAIMED, a.turn_end("m1")), mine()) is None


def test_deciding_changes_nothing() -> None:
    """Promise: a decision is a function of what it is given."""
    session, holder = fold(*CLAIMED, a.message("m2", "steer"), a.stream_start("a1", "m1")), mine()
    before = session.copy()
    decide(session, holder)
    steer(session, holder)
    release(session, holder)
    assert (session, holder) == (before, mine())
