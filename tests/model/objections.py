"""Objections to what an agent's holder does, and to where the system rests, whatever the rules say.

One `turn_end` a message and none after it, with the status that the log asks for; agent facts only
from the holder of the open turn's last claim; turns do not overlap; a turn that is to be stopped or
is overdue does not go on, one that waits for a call's result neither; a steered message is not
answered too; one receipt a steer, and never both kinds; attempts have a limit; acks only of what is
done. What concerns calls is in `call_objections`.
"""

from tests.model.facts import Fact, Fold, fold
from tests.model.rules import Case
from tests.model.state import State, Task


def to_turn_fact(  # noqa: PLR0911 - a table
    case: Case, state: State, task: Task, fact: Fact
) -> str | None:
    """Why this holder of a message must not store this fact now."""
    f, kind, m = fold(state.log), fact[0], state.log[task.trigger - 1][1]
    if wrong := _to_write(f, kind, m, task.claim) or _to_go_on(state, m, fact):
        return wrong
    match fact:
        case ("turn_start", _, attempt):
            return _to_turn_start(case, state, m, attempt)
        case ("turn_end", steer, "steered"):
            return _to_take_in(f, m, steer)
        case ("turn_end", _, status):
            return _to_turn_end(case, state, m, status)
        case ("steer_missed" | "steer_applied", _, _):
            return _to_receipt(f, fact)
        case ("call", name):
            return "the same call twice" if name in f.calls else None
    return _to_answer(f, m) if kind == "answer" else None


def _to_write(f: Fold, kind: str, m: int, claim: int) -> str | None:
    if m in f.ended:
        return f"{kind} after turn_end({m})"
    if f.open not in (None, m):
        return f"{kind} of m{m} inside the turn of m{f.open}"
    return f"{kind} of m{m} from an older claim" if claim and f.claims.get(m) != claim else None


def _to_go_on(state: State, m: int, fact: Fact) -> str | None:
    late, stopped = state.late == m, m in fold(state.log).stopping
    match fact:
        case ("turn_start", _, _) if late:  # one that is to be stopped is claimed, and ended at once
            return f"turn_start of m{m}, which is overdue"
        case ("call" | "answer" | "waits" as kind, _) | ("turn_end" as kind, _, "steered") if late or stopped:
            return f"{kind} of m{m}, which is {'overdue' if late else 'to be stopped'}"
    return None


def _to_answer(f: Fold, m: int) -> str | None:
    if m == 1 and (missing := [name for name, call in f.calls.items() if not call.result]):
        return f"m{m} is answered without the result of {missing}"
    if m in f.aims and m not in f.missed:
        return f"m{m} is answered as its own and was not told that it missed m{f.aims[m]}"
    return None


def _to_receipt(f: Fold, fact: Fact) -> str | None:
    kind, steer, turn = fact
    if steer in f.missed or steer in f.applied:
        return f"m{steer} gets a second receipt: {kind}"
    if kind == "steer_applied":
        return None
    if steer in f.stopping:
        return f"m{steer} is to be stopped and is told that it is answered"
    if not f.claims.get(steer):
        return f"m{steer} is told that it is answered before its turn began"
    return None if f.aims.get(steer) == turn else f"m{steer} did not miss m{turn}"


def _to_take_in(f: Fold, m: int, steer: int) -> str | None:
    if steer in f.ended:
        return f"turn_end after turn_end({steer})"
    if steer in f.stopping:
        return f"m{steer} was to be stopped and is taken in"
    return f"m{steer} is taken in after the answer, and nothing answers it" if m in f.answered else None


def _to_turn_end(case: Case, state: State, m: int, status: str) -> str | None:
    f = fold(state.log)
    stopped, spent = m in f.stopping, f.failures.get(m, 0) >= case.limit
    asked = {
        "completed": m in f.answered and not stopped and state.late != m,
        "cancelled": stopped,
        "failed": spent or (state.late == m and not stopped),
    }
    return None if asked[status] else f"m{m} ends as {status}, which nothing asks for"


def _to_turn_start(case: Case, state: State, m: int, attempt: int) -> str | None:
    f = fold(state.log)
    faults = case.crash - state.crash + case.pause - state.pause
    if f.waiting[0] < m:
        return f"m{m} out of turn"
    if m in f.applied:
        return f"m{m} was steered and is answered too"
    if f.attempts.get(m, 0) > faults:
        return f"attempt {f.attempts[m] + 1} after {faults} faults"
    if attempt != f.attempts.get(m, 0) + 1:
        return f"attempt {f.attempts.get(m, 0) + 1} is counted as {attempt}"
    if f.failures.get(m, 0) >= case.limit:
        return "an attempt past the limit"
    return None


def to_ack(state: State, task: Task) -> str | None:
    """Why this delivery must not be acked."""
    f, trigger = fold(state.log), state.log[task.trigger - 1]
    if task.role == "tool":
        return None if f.calls[trigger[1]].result else "ack of a call without result"
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
    untold = f.aims.keys() - f.applied - f.missed - f.stopping
    if untold:
        return f"steers that were told nothing: {sorted(untold)}"
    return "a call without result" if any(not call.result for call in f.calls.values()) else None
