"""Reference: what holders are to do, as DESIGN.md section 2 ("A message", "A tool call") says."""

from tests.model.facts import Fact, Fold, Log, fold
from tests.model.rules import Case
from tests.model.state import Act, Task

FENCED = {"drop": "drop", "ack": "ack", "nak": "nak", "keep": None}


class Reference:
    """The conduct that the design asks for, under a case's rules."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._rules = case.rules

    def first_look(self, role: str, trigger: int, log: Log) -> int:
        """The last claim of what has not ended."""
        f, m = fold(log), log[trigger - 1][1]
        if role == "agent":
            return 0 if m in f.ended else f.claims.get(m, 0)
        return 0 if f.result and 1 in f.ended else f.started

    def decide(self, task: Task, log: Log) -> Act | None:
        """The next act."""
        if task.role == "agent":
            return self._agent(task, log)
        return self._tool(task, fold(log))

    def release(self, task: Task, log: Log) -> Fact | None:
        """Give the claim back where it is the last one and its turn goes on."""
        f, m = fold(log), log[task.trigger - 1][1]
        mine = task.claim and task.claim == f.claims.get(m) and m not in f.ended
        return ("turn_release", m) if mine else None

    def _agent(self, task: Task, log: Log) -> Act | None:
        f, m = fold(log), log[task.trigger - 1][1]
        latest, again = f.claims.get(m, 0), log[task.trigger - 1] in log[: task.trigger - 1]
        if m in f.ended or (again and self._rules.first_only):
            return "ack"
        if task.claim:
            return self._turn(task, f, m) if task.claim == latest else FENCED[self._rules.fenced]
        if latest > task.joined and self._rules.newcomer_drops:
            return "drop"
        if f.waiting[0] < m and self._rules.answer_waits:
            return None
        if f.failures.get(m, 0) >= self._case.limit:
            return ("turn_end", m, "failed")
        return ("turn_start", m, f.attempts.get(m, 0) + 1)

    def _turn(self, task: Task, f: Fold, m: int) -> Fact | None:
        if m in f.stopping:
            return ("turn_end", m, "cancelled")
        if m in f.aims and m not in f.missed and self._rules.missed_tells:
            return ("steer_missed", m, f.aims[m])
        if m == 1 and self._case.tool:
            if not f.call or (not self._rules.replay and f.call < task.claim):
                return ("call", "c")
            if f.result is None:
                return None
        if steer := self._steer(f, m):
            return steer  # one that comes after the answer has a turn of its own
        return ("turn_end", m, "completed") if m in f.answered else ("answer", m)

    def _steer(self, f: Fold, m: int) -> Fact | None:
        ends, applied = [], []
        for s, policy in f.policy.items():
            late = m in f.answered and self._rules.late_steers_wait
            if policy == "steer" and s > m and s not in f.ended and s not in f.stopping and not late:
                ends.append(("turn_end", s, "steered"))
                applied += [] if self._rules.end_takes_in else [("steer_applied", s, m)]
        applied += [("steer_applied", s, m) for s, taker in f.taken.items() if taker == m]
        applied = [fact for fact in applied if fact[1] not in f.applied]
        wanted = ends + applied if self._rules.end_takes_in else applied + ends
        return wanted[0] if wanted else None

    def _tool(self, task: Task, f: Fold) -> Act | None:  # noqa: PLR0911 - one return a rule
        if f.result:
            return "ack"
        over = f.over if self._rules.stop_counts else 1 in f.ended
        if task.claim:
            return self._execute(task, f, over)
        if f.started > task.joined and self._rules.newcomer_drops:
            return "drop"
        if f.started and (self._rules.started_first or not over):
            return self._again(f, over)
        if over:
            return ("result", "c", "cancelled")
        if f.approved is False:
            return ("result", "c", "rejected")
        if self._case.approval and f.approved is None:
            return ("result", "c", "expired") if f.ask else ("ask", "c")  # at any time
        return ("started", "c", 1)

    def _execute(self, task: Task, f: Fold, over: bool) -> Act | None:
        if task.claim != f.started:
            return FENCED[self._rules.fenced]
        if task.flag == "late":
            return "drop"
        if task.flag == "ran":
            return ("result", "c", "completed")
        if over:
            tells = task.joined and self._rules.restart_tells
            return ("result", "c", "unknown" if tells else "cancelled")
        return "run"

    def _again(self, f: Fold, over: bool) -> Fact:
        if over or self._case.tool != "idempotent":
            return ("result", "c", "unknown")
        if f.starts >= self._case.starts:
            return ("result", "c", "failed")
        return ("started", "c", f.starts + 1)
