"""Objections: why something must not happen. What is checked at every step, whatever the rules say.

One `turn_end` a message and none after it; agent facts only from the holder of the open turn's
last claim; turns do not overlap; a steered message is not answered too; one result a call; a tool
that is not idempotent runs once at most, never without consent and never where the result says
that it did not; no start once a cancel or interrupt is stored; `unknown` only after a start, and
not while one is at it who started before this holder's eyes; attempts and starts have a limit;
acks only of what is done.
"""

from tests.model.facts import Fact, Fold, fold
from tests.model.rules import Case
from tests.model.state import State, Task


def to_fact(  # noqa: C901, PLR0911 - a table
    case: Case, state: State, task: Task, fact: Fact
) -> str | None:
    """Why this holder must not store this fact now."""
    f, kind = fold(state.log), fact[0]
    match kind:
        case "ask":
            return "asked twice" if f.ask else None
        case "started":
            return _to_start(case, f)
        case "result":
            return _to_result(case, state, task, fact[2])
    m = state.log[task.trigger - 1][1]
    if m in f.ended or (kind == "turn_end" and fact[1] in f.ended):
        return f"{kind} after turn_end({m})"
    if f.open not in (None, m):
        return f"{kind} of m{m} inside the turn of m{f.open}"
    if task.claim and f.claims.get(m) != task.claim:
        return f"{kind} of m{m} from an older claim"
    if kind == "steer_missed" and (fact[1] in f.missed or fact[1] in f.applied or f.aims.get(fact[1]) != fact[2]):
        return f"m{fact[1]} is told again, or wrongly, that it missed m{fact[2]}"
    if kind == "answer" and m in f.aims and m not in f.missed:
        return f"m{m} is answered as its own and was not told that it missed m{f.aims[m]}"
    if kind == "call" and f.call:
        return "the same call twice"
    if kind == "turn_end" and fact[2] == "steered" and fact[1] in f.stopping:
        return f"m{fact[1]} was to be stopped and is taken in"
    if kind == "turn_end" and fact[2] == "steered" and m in f.answered:
        return f"m{fact[1]} is taken in after the answer, and nothing answers it"
    return _to_turn_start(case, state, m) if kind == "turn_start" else None


def _to_turn_start(case: Case, state: State, m: int) -> str | None:
    f = fold(state.log)
    faults = case.crash - state.crash + case.pause - state.pause
    if f.waiting[0] < m:
        return f"m{m} out of turn"
    if m in f.applied:
        return f"m{m} was steered and is answered too"
    if f.attempts.get(m, 0) > faults:
        return f"attempt {f.attempts[m] + 1} after {faults} faults"
    if f.failures.get(m, 0) >= case.limit:
        return "an attempt past the limit"
    return None


def _to_start(case: Case, f: Fold) -> str | None:
    if f.result:
        return "started after its result"
    if f.over:
        return "started after cancel, interrupt or turn_end"
    if case.approval and f.approved is not True:
        return "started without consent"
    return "a start past the limit" if f.starts >= case.starts else None


def _to_result(  # noqa: PLR0911 - a table
    case: Case, state: State, task: Task, status: str
) -> str | None:
    f = fold(state.log)
    if f.result:
        return "two results"
    if status in ("cancelled", "expired", "rejected") and f.started and state.runs:
        return f"{status}, and yet it ran"
    if status != "unknown":
        return None
    if not f.started:
        return "unknown without a start"
    if (state.crash, state.pause, state.stop) == (case.crash, case.pause, case.stop):
        return "unknown without a fault"
    if f.started > task.joined and any(other.claim == f.started for other in state.tasks if other != task):
        return "spurious: unknown, while one who started after this holder joined is at work"
    return None


def to_run(case: Case, state: State, task: Task) -> str | None:
    """Why the tool must not run now."""
    result = fold(state.log).result
    if state.runs and case.tool == "once":
        return "a tool that is not idempotent runs twice"
    if result in ("cancelled", "expired", "rejected"):
        return f"runs after result {result}"
    return "executes too late" if task.flag == "late" else None


def to_ack(state: State, task: Task) -> str | None:
    """Why this delivery must not be acked."""
    f, trigger = fold(state.log), state.log[task.trigger - 1]
    if task.role == "tool":
        return None if f.result else "ack of a call without result"
    done = trigger[1] in f.ended or trigger in state.log[: task.trigger - 1]
    return None if done else "ack of a message without turn_end"


def to_rest(state: State) -> str | None:
    """Why the system must not come to rest here, when nobody does anything any more."""
    f = fold(state.log)
    if state.tasks:
        return f"stuck: waits for ever: {[(task.role, task.trigger) for task in state.tasks]}"
    triggers = {seq for seq, fact in enumerate(state.log, 1) if fact[0] in ("message", "call")}
    if triggers - state.settled:
        return "stuck: a trigger is forgotten"
    if f.waiting:
        return "a message without turn_end"
    return "a call without result" if f.call and not f.result else None
