"""Mutants: the code's own decisions with one rule broken. The exploration must object to each."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple
from unittest.mock import patch

from agent_runner import decide as agent
from contracts.session import Session
from tests.model import agent_mutants as a
from tests.model import fold_mutants as f
from tests.model import tool_mutants as t
from tests.model.cases import PAIR, STEER, TOOL, TWO, WAITS
from tests.model.rules import Case
from tool_runner import decide as tool

IDEMPOTENT = Case(tool="idempotent")


class Mutant(NamedTuple):
    """A case, and what replaces which attribute of the code in it."""

    case: Case
    owner: Any
    name: str
    replacement: Callable[..., object]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The code is broken here."""
        with patch.object(self.owner, self.name, self.replacement):
            yield


MUTANTS = {
    mutant.replacement.__name__: mutant
    for mutant in (
        Mutant(replace(TWO, pause=1, crash=1), agent, "decide", a.fenced_acks),
        Mutant(Case(pause=1, crash=1), agent, "decide", a.fenced_waits),
        Mutant(Case(limit=1, crash=1), agent, "decide", a.attempts_without_end),
        Mutant(TWO, agent, "decide", a.no_order),
        Mutant(Case(duplicate=1), agent, "decide", a.duplicate_is_held),
        Mutant(replace(STEER, cancel=1), agent, "steer", a.steer_applied_first),
        Mutant(replace(STEER, cancel=1), agent, "steer", a.steers_the_stopped),
        Mutant(STEER, agent, "decide", a.takes_the_late_in),
        Mutant(STEER, agent, "decide", a.missed_is_not_told),
        Mutant(STEER, agent, "decide", a.misses_another),
        Mutant(replace(STEER, cancel=1), agent, "decide", a.tells_the_cancelled),
        Mutant(STEER, agent, "tell_steer", a.applied_is_not_told),
        Mutant(Case(overdue=1), agent, "deadline", a.never_overdue),
        Mutant(Case(overdue=1), agent, "decide", a.runs_the_overdue),
        Mutant(Case(overdue=1, crash=1), agent, "decide", a.claims_the_overdue),
        Mutant(Case(overdue=1, crash=1), agent, "decide", a.leaves_the_overdue),
        Mutant(Case(overdue=1, cancel=1), agent, "decide", a.overdue_before_cancelled),
        Mutant(Case(stop=1), agent, "release", a.keeps_its_claim),
        Mutant(Case(stop=1, pause=1), agent, "release", a.gives_back_what_was_taken_over),
        Mutant(replace(TOOL, pause=1), tool, "decide", t.newcomer_claims),
        Mutant(replace(TOOL, cancel=1, crash=1), tool, "decide", t.ended_first),
        Mutant(replace(IDEMPOTENT, cancel=1, pause=1), tool, "decide", t.restart_cancels),
        Mutant(replace(TOOL, crash=1), tool, "decide", t.runs_again),
        Mutant(TOOL, tool, "decide", t.asks_nobody),
        Mutant(replace(TOOL, pause=1), tool, "decide", t.late_executes),
        Mutant(replace(IDEMPOTENT, starts=1, crash=1), tool, "decide", t.starts_without_end),
        Mutant(replace(TOOL, cancel=1), Session, "over", f.cancel_is_no_end),
        Mutant(replace(PAIR, cancel=1), Session, "over", f.cancels_the_first_call),
        Mutant(STEER, Session, "apply", f.forgets_the_receipt),
        Mutant(Case(messages=("steer",)), Session, "apply", f.aims_at_nothing),
        Mutant(Case(stop=1), Session, "apply", f.counts_the_handover),
        Mutant(replace(WAITS, crash=1), Session, "apply", f.counts_who_waits),
        Mutant(replace(WAITS, crash=2), Session, "apply", f.counts_until_it_waits),
        Mutant(replace(WAITS, crash=2), Session, "apply", f.excuses_who_goes_on),
        Mutant(Case(messages=("enqueue", "steer", "interrupt")), Session, "apply", f.interrupts_only_the_first),
        Mutant(Case(messages=("interrupt",)), Session, "apply", f.interrupts_itself),
        Mutant(PAIR, Session, "apply", f.one_result_for_all),
        Mutant(PAIR, Session, "apply", f.one_start_for_all),
        Mutant(PAIR, Session, "apply", f.knows_the_last_call),
        Mutant(replace(PAIR, cancel=1), Session, "apply", f.forgets_open_calls),
    )
}
