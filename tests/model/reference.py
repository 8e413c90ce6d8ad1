"""Reference: what holders are to do, as DESIGN.md section 2 ("A message", "A tool call") says."""

from tests.model.facts import Call, Fact, Fold, Log, fold
from tests.model.rules import Case
from tests.model.state import Act, Task

FENCED = {"drop": "drop", "ack": "ack", "nak": "nak", "keep": None}


class Reference:
    """The conduct that the design asks for, under a case's rules."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._rules = case.rules
        self._tools = case.tools

    def first_look(self, role: str, trigger: int, log: Log) -> int:
        """The last claim of what has not ended."""
        f, who = fold(log), log[trigger - 1][1]
        if role == "agent":
            return 0 if who in f.ended else f.claims.get(who, 0)
        call = f.calls[who]
        return 0 if call.result and 1 in f.ended else call.started

    def decide(self, task: Task, log: Log, late: int) -> Act | None:
        """The next act."""
        if task.role == "agent":
            return self._agent(task, log, late)
        return self._tool(task, fold(log), log[task.trigger - 1][1])

    def release(self, task: Task, log: Log) -> Fact | None:
        """Give the claim back where it is the last one and its turn goes on."""
        f, m = fold(log), log[task.trigger - 1][1]
        mine = task.claim and task.claim == f.claims.get(m) and m not in f.ended
        return ("turn_release", m) if mine and self._rules.release_undoes else None

    def _agent(self, task: Task, log: Log, late: int) -> Act | None:  # noqa: PLR0911 - one return a rule
        f, m = fold(log), log[task.trigger - 1][1]
        latest, again = f.claims.get(m, 0), log[task.trigger - 1] in log[: task.trigger - 1]
        overdue = late == m and self._rules.overdue_ends
        if m in f.ended or (again and self._rules.first_only):
            return "ack"
        if task.claim:
            return self._turn(task, f, m, overdue) if task.claim == latest else FENCED[self._rules.fenced]
        if latest > task.joined and self._rules.newcomer_drops:
            return "drop"
        if f.waiting[0] < m and self._rules.answer_waits:
            return None
        if overdue and self._rules.overdue_rests:
            return self._fails(f, m)
        spent = f.failures if self._rules.waits_are_excused else f.attempts
        if spent.get(m, 0) >= self._case.limit:
            return self._tells(f, m) or ("turn_end", m, "failed")
        return ("turn_start", m, f.attempts.get(m, 0) + 1)

    def _turn(self, task: Task, f: Fold, m: int, overdue: bool) -> Fact | None:
        if m in f.stopping or overdue:
            return self._fails(f, m)
        if missed := self._missed(f, m):
            return missed
        if m == 1 and self._tools:
            for name in self._tools:
                if name not in f.calls or (not self._rules.replay and f.calls[name].made < task.claim):
                    return ("call", name)
            wanted = [*self._tools] if self._rules.results_all else ["c"]
            if any(f.calls[name].result is None for name in wanted):
                return ("waits", m) if self._case.waits and f.told.get(m, 0) < task.claim else None
        if steer := self._steer(f, m):
            return steer  # one that comes after the answer has a turn of its own
        return ("turn_end", m, "completed") if m in f.answered else ("answer", m)

    def _fails(self, f: Fold, m: int) -> Fact:
        return self._tells(f, m) or ("turn_end", m, "cancelled" if m in f.stopping else "failed")

    def _tells(self, f: Fold, m: int) -> Fact | None:
        """What the steers of a turn that does not go on have still to be told."""
        if not self._rules.stop_tells:
            return None
        applied = (("steer_applied", s, m) for s, taker in f.taken.items() if taker == m and s not in f.applied)
        return next(applied, None) or self._missed(f, m)

    def _missed(self, f: Fold, m: int) -> Fact | None:
        told = m not in f.aims or m in f.missed or m in f.stopping or not self._rules.missed_tells
        return None if told else ("steer_missed", m, f.aims[m])

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

    def _tool(self, task: Task, f: Fold, name: str) -> Act | None:  # noqa: PLR0911 - one return a rule
        call = f.calls[name]
        if call.result:
            return "ack"
        over = f.over if self._rules.stop_counts else 1 in f.ended
        if task.claim:
            return self._execute(task, call, name, over)
        if call.started > task.joined and self._rules.newcomer_drops:
            return "drop"
        if call.started and (self._rules.started_first or not over):
            return self._again(call, name, over)
        if over:
            return ("result", name, "cancelled")
        if call.approved is False:
            return ("result", name, "rejected")
        if self._case.approval and name == "c" and call.approved is None:
            return ("result", name, "expired") if call.asked else ("ask", name)  # at any time
        return ("started", name, 1)

    def _execute(self, task: Task, call: Call, name: str, over: bool) -> Act | None:
        if task.claim != call.started:
            return FENCED[self._rules.fenced]
        if task.flag == "late":
            return "drop"
        if task.flag == "ran":
            return ("result", name, "completed")
        if over:
            tells = task.joined and self._rules.restart_tells
            return ("result", name, "unknown" if tells else "cancelled")
        return "run"

    def _again(self, call: Call, name: str, over: bool) -> Fact:
        if over or self._tools[name] != "idempotent":
            return ("result", name, "unknown")
        if call.starts >= self._case.starts:
            return ("result", name, "failed")
        return ("started", name, call.starts + 1)
