"""Objections to what the holder of a tool call does, whatever the rules say.

One result a call; a tool that is not idempotent runs once at most, never without consent and never
where the result says that it did not; no start once a cancel, an interrupt or the turn's end is
stored; `unknown` only after a start, and not while one is at it who started before this holder's
eyes; starts have a limit. All of it for each call by itself.
"""

from tests.model.facts import Call, Fact, fold
from tests.model.rules import Case
from tests.model.state import State, Task


def to_call_fact(case: Case, state: State, task: Task, fact: Fact) -> str | None:
    """Why this holder of a call must not store this fact now."""
    f, (kind, name, *more) = fold(state.log), fact
    call = f.calls[name]
    if name != state.log[task.trigger - 1][1]:
        return f"{kind} of {name} from the holder of another call"
    if kind == "ask":
        return "asked twice" if call.asked else None
    if kind == "started":
        return _to_start(case, call, name, f.over)
    return _to_result(case, state, task, name, more[0])


def _to_start(case: Case, call: Call, name: str, over: bool) -> str | None:
    if call.result:
        return "started after its result"
    if over:
        return "started after cancel, interrupt or turn_end"
    if case.approval and name == "c" and call.approved is not True:
        return "started without consent"
    return "a start past the limit" if call.starts >= case.starts else None


def _to_result(  # noqa: PLR0911 - a table
    case: Case, state: State, task: Task, name: str, status: str
) -> str | None:
    call = fold(state.log).calls[name]
    if call.result:
        return "two results"
    if status == "completed" and name not in state.ran:
        return "completed, and yet it did not run"
    if status in ("cancelled", "expired", "rejected") and call.started and name in state.ran:
        return f"{status}, and yet it ran"
    if status != "unknown":
        return None
    if not call.started:
        return "unknown without a start"
    if (state.crash, state.pause, state.stop) == (case.crash, case.pause, case.stop):
        return "unknown without a fault"
    if call.started > task.joined and any(other.claim == call.started for other in state.tasks if other != task):
        return "spurious: unknown, while one who started after this holder joined is at work"
    return None


def to_run(case: Case, state: State, task: Task) -> str | None:
    """Why the tool must not run now."""
    name = state.log[task.trigger - 1][1]
    result = fold(state.log).calls[name].result
    if name in state.ran and case.tools[name] == "once":
        return "a tool that is not idempotent runs twice"
    if result in ("cancelled", "expired", "rejected"):
        return f"runs after result {result}"
    return "executes too late" if task.flag == "late" else None
