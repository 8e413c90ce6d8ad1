"""Cases: what is explored. Small ones in the tests, long ones by `python -m tests.model --long`."""

from dataclasses import replace
from typing import Any

from tests.model.rules import Case, Rules

TOOL = Case(tool="once", approval=True)
TWO = Case(messages=("enqueue", "enqueue"))
STEER = Case(messages=("enqueue", "steer"))
INTERRUPT = Case(messages=("enqueue", "interrupt"))
PAIR = Case(tool="once", beside="once")
ASKING = replace(PAIR, approval=True)
WAITS = Case(tool="once", waits=True, limit=1)

CASES = {
    "two": replace(TWO, crash=1, pause=1),
    "two-cancel": replace(TWO, cancel=1, unknown=1),
    "two-cancel-unnamed": replace(TWO, cancel=1, unnamed=True, crash=1),
    "tool": replace(TOOL, cancel=1, crash=1, pause=1),
    "tool-unknown": replace(TOOL, cancel=1, unknown=1, pause=1),
    "idempotent": Case(tool="idempotent", cancel=1, crash=1, pause=1),
    "interrupt": replace(INTERRUPT, tool="once", crash=1),
    "steer": replace(STEER, cancel=1, crash=1),
    "steer-pause": replace(STEER, pause=1),
    "steer-tool": replace(STEER, tool="once", crash=1),
    "steer-twice": Case(messages=("enqueue", "steer", "steer")),
    "steer-stop": replace(STEER, stop=1, crash=1),
    "steer-tool-stop": replace(STEER, tool="once", stop=1),
    "three": Case(messages=("enqueue", "steer", "interrupt")),
    "three-stop": Case(messages=("enqueue", "steer", "interrupt"), stop=1),
    "interrupt-steer": Case(messages=("enqueue", "interrupt", "steer"), tool="once"),
    "duplicate": Case(duplicate=1, crash=1, pause=1),
    "stop": replace(TWO, stop=1, pause=1),
    "stop-crash": replace(TWO, stop=1, crash=1),
    "stop-tool": replace(TOOL, stop=1, crash=1),
    "stop-interrupt": replace(INTERRUPT, tool="once", stop=1),
    "stop-limit": Case(stop=1, limit=1, crash=1),
    "limit": replace(TOOL, limit=1, crash=1, pause=1),
    "limit-waits": replace(WAITS, crash=2),
    "pair-waits": replace(WAITS, beside="once", crash=1),
    "stop-waits": replace(WAITS, stop=1, crash=1),
    "limit-step": Case(tool="once", limit=2, crash=2),
    "starts": Case(tool="idempotent", starts=1, crash=1, pause=1),
    "pair": replace(ASKING, cancel=1),
    "pair-crash": replace(ASKING, crash=1),
    "pair-crash-cancel": replace(PAIR, crash=1, cancel=1),
    "pair-pause": replace(PAIR, pause=1),
    "pair-unknown": replace(PAIR, cancel=1, unknown=1),
    "pair-idempotent": replace(PAIR, beside="idempotent", crash=1),
    "pair-limit": replace(PAIR, limit=1, crash=1),
    "pair-stop": replace(PAIR, stop=1),
    "pair-interrupt": replace(PAIR, messages=INTERRUPT.messages),
    "pair-steer": replace(PAIR, messages=STEER.messages),
    "overdue": replace(TWO, overdue=1, crash=1, pause=1),
    "overdue-cancel": replace(TWO, overdue=1, cancel=1, unknown=1),
    "overdue-stop": replace(TWO, overdue=1, stop=1),
    "overdue-limit": Case(overdue=1, limit=1, crash=1, pause=1),
    "steer-limit": replace(STEER, limit=1, crash=1),
    "overdue-steer": replace(STEER, overdue=1, cancel=1, crash=1),
    "overdue-interrupt": replace(INTERRUPT, tool="once", overdue=1),
    "overdue-tool": replace(TOOL, overdue=1, cancel=1, crash=1),
    "overdue-pair": replace(PAIR, overdue=1, crash=1),
}

LONG = {
    "two-long": replace(TWO, cancel=1, crash=1, pause=1, unknown=1),
    "three-long": Case(messages=("enqueue", "steer", "interrupt"), crash=1),
    "tool-long": replace(TOOL, cancel=1, crash=1, pause=1, unknown=1),
    "interrupt-long": replace(INTERRUPT, tool="once", pause=1),
    "steer-long": replace(STEER, cancel=1, crash=1, pause=1),
    "steer-past-another": Case(messages=("enqueue", "enqueue", "steer"), cancel=1),
    "steer-tool-long": replace(STEER, tool="once", pause=1),
    "stop-long": replace(TWO, stop=1, crash=1, pause=1),
    "limit-long": replace(TOOL, limit=2, crash=2, pause=1, cancel=1),
    "stop-interrupt-long": replace(INTERRUPT, tool="once", stop=1, crash=1),
    "three-stop-long": Case(messages=("enqueue", "steer", "interrupt"), stop=1, crash=1),
    "interrupt-steer-long": Case(messages=("enqueue", "interrupt", "steer"), tool="once", crash=1),
    "pair-long": replace(ASKING, cancel=1, crash=1),
    "pair-pause-long": replace(ASKING, pause=1, cancel=1),
    "pair-unknown-long": replace(ASKING, unknown=1, crash=1),
    "pair-idempotent-long": replace(ASKING, beside="idempotent", cancel=1, pause=1),
    "pair-stop-long": replace(PAIR, stop=1, crash=1),
    "pair-stop-asking": replace(ASKING, stop=1, cancel=1),
    "pair-interrupt-long": replace(PAIR, messages=INTERRUPT.messages, crash=1),
    "pair-steer-long": replace(PAIR, messages=STEER.messages, crash=1),
    "pair-three": replace(PAIR, messages=("enqueue", "steer", "interrupt")),
    "overdue-long": replace(TWO, overdue=1, crash=1, pause=1, cancel=1),
    "overdue-pair-long": replace(ASKING, overdue=1, crash=1),
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
    "steer-of-the-stopped": _without(replace(STEER, cancel=1), stop_tells=False),
    "overdue-goes-on": _without(Case(overdue=1), overdue_ends=False),
    "overdue-is-claimed": _without(Case(overdue=1, crash=1), overdue_rests=False),
    "handover-is-an-attempt": _without(Case(stop=1), release_undoes=False),
    "goes-on-without-a-result": _without(PAIR, results_all=False),
    "waiting-is-an-attempt": _without(replace(WAITS, crash=1), waits_are_excused=False),
    "no-replay-of-two": _without(replace(PAIR, crash=1), replay=False),
    "no-replay": _without(replace(TOOL, crash=1), replay=False),
    "unknown-is-refused": _without(replace(TOOL, unknown=1), resolve=False),
    "max-deliver": _without(replace(TWO, crash=1), redeliver=False),
    "no-order": _without(TWO, answer_waits=False),
    "slots": replace(TWO, slots=1, crash=1),
}
"""Each leaves one rule out."""
