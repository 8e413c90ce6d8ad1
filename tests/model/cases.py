"""Cases: what is explored. Small ones in the tests, long ones by `python -m tests.model --long`."""

from dataclasses import replace
from typing import Any

from tests.model.rules import Case, Rules

TOOL = Case(tool="once", approval=True)
TWO = Case(messages=("enqueue", "enqueue"))
STEER = Case(messages=("enqueue", "steer"))

CASES = {
    "two": replace(TWO, crash=1, pause=1),
    "two-cancel": replace(TWO, cancel=1, unknown=1),
    "two-cancel-unnamed": replace(TWO, cancel=1, unnamed=True, crash=1),
    "tool": replace(TOOL, cancel=1, crash=1, pause=1),
    "tool-unknown": replace(TOOL, cancel=1, unknown=1, pause=1),
    "idempotent": Case(tool="idempotent", cancel=1, crash=1, pause=1),
    "interrupt": Case(messages=("enqueue", "interrupt"), tool="once", crash=1),
    "steer": replace(STEER, cancel=1, crash=1),
    "steer-pause": replace(STEER, pause=1),
    "steer-tool": replace(STEER, tool="once", crash=1),
    "steer-twice": Case(messages=("enqueue", "steer", "steer")),
    "three": Case(messages=("enqueue", "steer", "interrupt")),
    "duplicate": Case(duplicate=1, crash=1, pause=1),
    "stop": replace(TWO, stop=1, pause=1),
    "stop-crash": replace(TWO, stop=1, crash=1),
    "stop-tool": replace(TOOL, stop=1, crash=1),
    "stop-limit": Case(stop=1, limit=1, crash=1),
    "limit": replace(TOOL, limit=1, crash=1, pause=1),
    "limit-step": Case(tool="once", limit=2, crash=2),
    "starts": Case(tool="idempotent", starts=1, crash=1, pause=1),
}

LONG = {
    "two-long": replace(TWO, cancel=1, crash=1, pause=1, unknown=1),
    "three-long": Case(messages=("enqueue", "steer", "interrupt"), crash=1),
    "tool-long": replace(TOOL, cancel=1, crash=1, pause=1, unknown=1),
    "interrupt-long": Case(messages=("enqueue", "interrupt"), tool="once", pause=1),
    "steer-long": replace(STEER, cancel=1, crash=1, pause=1),
    "steer-past-another": Case(messages=("enqueue", "enqueue", "steer"), cancel=1),
    "steer-tool-long": replace(STEER, tool="once", pause=1),
    "stop-long": replace(TWO, stop=1, crash=1, pause=1),
    "limit-long": replace(TOOL, limit=2, crash=2, pause=1, cancel=1),
}


def _without(case: Case, **rules: Any) -> Case:
    return replace(case, rules=Rules(**rules))


MUTATIONS = {
    "unconditional": _without(replace(TWO, pause=1), conditional=False),
    "newcomer-claims": _without(replace(TOOL, pause=1), newcomer_drops=False),
    "fenced-keeps": _without(Case(pause=1, crash=1), fenced="keep"),
    "fenced-naks": _without(Case(pause=1), fenced="nak"),
    "fenced-acks": _without(replace(TWO, pause=1, crash=1), fenced="ack"),
    "duplicate-is-held": _without(Case(duplicate=1), first_only=False),
    "restart-cancels": _without(Case(tool="idempotent", cancel=1, pause=1), restart_tells=False),
    "ended-first": _without(replace(TOOL, cancel=1, crash=1), started_first=False),
    "cancel-is-no-end": _without(replace(TOOL, cancel=1), stop_counts=False),
    "steer-applied-first": _without(replace(STEER, cancel=1), end_takes_in=False),
    "late-steer-is-taken-in": _without(STEER, late_steers_wait=False),
    "missed-is-not-told": _without(STEER, missed_tells=False),
    "no-replay": _without(replace(TOOL, crash=1), replay=False),
    "unknown-is-refused": _without(replace(TOOL, unknown=1), resolve=False),
    "max-deliver": _without(replace(TWO, crash=1), redeliver=False),
    "no-order": _without(TWO, answer_waits=False),
    "slots": replace(TWO, slots=1, crash=1),
}
"""Each leaves one rule out."""
