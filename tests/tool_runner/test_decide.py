"""The rules of DESIGN.md section 2, "A tool call": what its holder does next, in this order."""

from typing import Any

import pytest

from broker.acts import Drop, Perform, Put, Settle, Wait
from contracts import events
from contracts.events import AnyEvent
from contracts.session import Session
from tests.contracts import facts as a
from tool_runner.decide import Holding, Outcome, Permit, decide, first_look

NOW = 50.0
"""Before a question of the tests expires, at 100."""

CALLED = (a.message("m1"), a.turn_start("m1"), a.tool_call("c1", "m1"))
ASKED = (*CALLED, a.request("c1", "m1", expires_at=100))
STARTED = (*CALLED, a.tool_started("c1", "m1"))
STOPS = pytest.mark.parametrize(
    "stops",
    [a.cancel("m1"), a.message("m2", "interrupt"), a.turn_end("m1", "cancelled")],
    ids=["cancelled", "interrupted", "ended"],
)

ALLOW = Permit("allow")
ASK = Permit("ask", expires=30)
AGAIN = Permit("allow", repeatable=True)


def act(facts: tuple[AnyEvent, ...], permit: Permit = ALLOW, now: float = NOW, **more: Any) -> object:
    """What the holder of the call does after those facts."""
    session = Session()
    for seq, fact in enumerate(facts, 1):
        session.apply(seq, fact)
    return decide(session, Holding("s", "c1", permit, **more), now)


def result(act: object) -> str:
    """The status of the result that is to be appended."""
    assert isinstance(act, Put), act
    assert isinstance(act.event, events.ToolResult)
    assert (act.event.tool_call_id, act.event.reply_to) == ("c1", "m1")
    return act.event.status


def start(act: object) -> int:
    """The attempt of the start that is to be appended."""
    assert isinstance(act, Put), act
    assert isinstance(act.event, events.ToolStarted)
    assert act.claim
    return act.event.attempt


def test_an_allowed_call_is_started_and_executed() -> None:
    """DESIGN: `tool_started(c, attempt)`, then it is executed."""
    assert start(act(CALLED)) == 1
    assert act(STARTED, claim=4) == Perform()


@pytest.mark.parametrize("after", [(), (a.turn_end("m1"),)], ids=["open", "ended"])
@pytest.mark.parametrize("holder", [{}, {"claim": 4}, {"claim": 4, "late": True}])
def test_a_call_with_a_result_is_settled(after: tuple[AnyEvent, ...], holder: dict[str, Any]) -> None:
    """DESIGN: `tool_result(c)` exists: ack."""
    assert act((*STARTED, a.tool_result("c1", "m1"), *after), **holder) == Settle()


def test_what_the_execution_gave_is_reported() -> None:
    """Also where the turn was stopped meanwhile: it ran."""
    outcome = Outcome("failed", result=[1], error="no", code="tool_error")
    for facts in (STARTED, (*STARTED, a.cancel())):
        put = act(facts, claim=4, outcome=outcome)
        assert isinstance(put, Put)
        assert isinstance(put.event, events.ToolResult)
        told = put.event
        assert Outcome(told.status, told.result, told.error, told.code) == outcome


def test_a_call_that_an_earlier_holder_started_is_unknown() -> None:
    """Promise P5: it may have run; it is not run again."""
    assert result(act(STARTED, joined=4)) == "unknown"


def test_a_repeatable_call_that_an_earlier_holder_started_is_started_again() -> None:
    """DESIGN: idempotent or read-only, with the same idempotency key."""
    assert start(act(STARTED, AGAIN, joined=4)) == 2


@STOPS
def test_a_started_call_is_not_started_again_for_a_turn_that_is_over(stops: AnyEvent) -> None:
    """DESIGN: else `unknown`: "started before" is asked before "its turn has ended"."""
    assert result(act((*STARTED, stops), AGAIN, joined=4)) == "unknown"


def test_starts_past_the_limit_fail() -> None:
    """DESIGN: past a limit, `failed`."""
    twice = (*STARTED, a.tool_started("c1", "m1", 2))
    assert result(act(twice, AGAIN, joined=5, limit=2)) == "failed"
    assert start(act(twice, AGAIN, joined=5, limit=3)) == 3


def test_the_first_look_divides_the_starts() -> None:
    """DESIGN: an older foreign one is taken over, a newer one makes the holder drop."""
    session, newcomer = Session(), Holding("s", "c1", ALLOW)
    for seq, fact in enumerate(STARTED, 1):
        session.apply(seq, fact)
    first_look(session, newcomer)
    assert newcomer.joined == 4
    assert act(STARTED) == Drop()


def test_a_holder_that_was_overtaken_drops_whatever_it_has_done() -> None:
    """Promise P5: one result."""
    overtaken = (*STARTED, a.tool_started("c1", "m1", 2))
    assert act(overtaken, AGAIN, claim=4) == Drop()
    assert act(overtaken, AGAIN, claim=4, outcome=Outcome("completed")) == Drop()


def test_a_holder_that_comes_too_late_to_execute_drops() -> None:
    """DESIGN: it executes within `ack_wait` of the start, or not at all."""
    assert act(STARTED, claim=4, late=True) == Drop()


@STOPS
def test_a_call_of_a_turn_that_is_over_is_cancelled(stops: AnyEvent) -> None:
    """Promise P8: before it is asked, while it is asked, and where it was allowed."""
    for facts, permit in ((CALLED, ALLOW), (CALLED, ASK), (ASKED, ASK)):
        assert result(act((*facts, stops), permit)) == "cancelled"
    assert result(act((*ASKED, a.approval("c1"), stops), ASK)) == "cancelled"


@STOPS
def test_who_has_started_and_not_executed_looks_once_more(stops: AnyEvent) -> None:
    """DESIGN: stopped: `cancelled`, or `unknown` if it was a restart."""
    assert result(act((*STARTED, stops), claim=4)) == "cancelled"
    again = (*STARTED, a.tool_started("c1", "m1", 2), stops)
    assert result(act(again, AGAIN, joined=4, claim=5)) == "unknown"


def test_a_call_that_a_rule_denies_fails() -> None:
    """WIRE: `code` is `tool_denied`."""
    put = act(CALLED, Permit("deny"))
    assert result(put) == "failed"
    assert isinstance(put, Put)
    assert isinstance(put.event, events.ToolResult)
    assert put.event.code == "tool_denied"


def test_a_call_that_cannot_be_made_fails_and_says_why() -> None:
    """WIRE: `tool_not_found`."""
    put = act(CALLED, Permit("deny", problem="there is no tool", code="tool_not_found"))
    assert isinstance(put, Put)
    assert isinstance(put.event, events.ToolResult)
    assert (put.event.status, put.event.code) == ("failed", "tool_not_found")


@pytest.mark.parametrize("decision", ["allow", "ask"])
def test_a_server_that_is_away_takes_nobodys_approval_back(decision: str) -> None:
    """Promise P6: a question stays until it is answered or expires; then the call finds out for itself."""
    away = Permit(decision, problem="the tool server cannot be reached", code="tool_error")
    assert result(act(CALLED, away)) == "failed"
    assert act(ASKED, away) == Wait(100)
    assert result(act(ASKED, away, now=100)) == "expired"
    assert result(act((*ASKED, a.approval("c1", False)), away)) == "rejected"
    assert start(act((*ASKED, a.approval("c1")), away)) == 1
    gone = Permit("deny", problem="there is no tool", code="tool_not_found")
    assert result(act(ASKED, gone)) == "failed"


def test_a_person_is_asked_for_the_arguments_of_the_call() -> None:
    """Promise P6: for exactly the arguments shown, until a time that the broker's clock tells."""
    put = act(CALLED, ASK)
    assert isinstance(put, Put)
    assert isinstance(put.event, events.ToolApprovalRequest)
    assert not put.claim
    assert (put.event.tool, put.event.arguments) == ("demo.note", {"text": "x"})
    assert events.unix_time(put.event.expires_at) == NOW + 30


def test_a_call_waits_until_its_question_is_answered_or_expires() -> None:
    """Promise P6: the time is that of the question, whatever the rules say now."""
    assert act(ASKED, ASK) == Wait(100)
    assert act(ASKED, ASK, now=99.999) == Wait(100)
    assert result(act(ASKED, ASK, now=100)) == "expired"


def test_an_approved_call_is_started_though_its_question_has_expired_since() -> None:
    """Promise P6: decided once; also where a person has edited the arguments."""
    for decision in (a.approval("c1"), a.approval("c1", arguments={"text": "edited"})):
        assert start(act((*ASKED, decision), ASK, now=1000)) == 1


def test_a_rejected_call_is_rejected_with_the_persons_reason() -> None:
    """Promise P6."""
    put = act((*ASKED, a.approval("c1", False, reason="too dear")), ASK, now=1000)
    assert result(put) == "rejected"
    assert isinstance(put, Put)
    assert isinstance(put.event, events.ToolResult)
    assert put.event.error == "too dear"


def test_who_was_asked_decides_though_the_rules_would_not_ask_any_more() -> None:
    """Promise P6: a rejected call does not run because a rule was changed meanwhile."""
    assert act(ASKED, ALLOW) == Wait(100)
    assert result(act((*ASKED, a.approval("c1", False)), ALLOW)) == "rejected"
    assert start(act((*ASKED, a.approval("c1")), ALLOW)) == 1


def test_a_rule_that_denies_meanwhile_counts_though_a_person_approved() -> None:
    """DESIGN: denied comes before asked."""
    assert result(act((*ASKED, a.approval("c1")), Permit("deny"))) == "failed"


def test_deciding_changes_nothing() -> None:
    """Promise: a decision is a function of what it is given."""
    session, holder = Session(), Holding("s", "c1", ASK)
    for seq, fact in enumerate(ASKED, 1):
        session.apply(seq, fact)
    before = session.copy()
    decide(session, holder, NOW)
    assert (session, holder) == (before, Holding("s", "c1", ASK))
