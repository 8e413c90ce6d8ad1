"""Steps: everything that may happen next in a state.

A log of facts, conditional appends (the writer has folded everything, or it is refused), holders
of deliveries. Deliveries come at least once, in any order; one with a live holder, however stale,
comes again only after a pause. Nothing ever wakes a holder but its own look at the log, so every
live message counts as lost. Deltas are not in the log: they stand under the same condition as
facts and nothing reads them; `answer` stands for them.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from tests.model import call_objections, objections
from tests.model.facts import TRIGGERS, Fact, fold
from tests.model.rules import Case
from tests.model.state import STALE, Act, Conduct, State, Step, Task


class World:
    """One case, and the conduct of its holders."""

    def __init__(self, case: Case, conduct: Conduct) -> None:
        self._case = case
        self._conduct = conduct
        self._decide = cache(conduct.decide)

    def steps(self, state: State) -> Iterator[Step]:
        """What may happen next."""
        yield from self._clients(state)
        yield from self._time(state)
        yield from self._deliveries(state)
        for number, task in enumerate(state.tasks):
            others = state.tasks[:number] + state.tasks[number + 1 :]
            yield from self._holder(state, task, others)
        yield from self._crashes(state)

    def _step(self, label: str, after: State, own: bool = True, wrong: str | None = None) -> Step:
        tasks = sorted(self._canonical(task, after) for task in after.tasks)
        return Step(label, after._replace(tasks=tuple(tasks)), own, wrong)

    def _canonical(self, task: Task, state: State) -> Task:
        """A stale holder that waits or would append can only read on: how stale does not matter.

        Nor does it where the holder would do the same if it were not stale.
        """
        log = state.log
        knows = task.seen in (STALE, len(log)) or task.flag.startswith("pending")
        if knows or not self._case.rules.conditional:
            return task
        act = self._decide(task, log[: task.seen], state.late)
        if not isinstance(act, str):
            return task._replace(seen=STALE)
        fresh = task._replace(seen=len(log))
        return fresh if self._decide(fresh, log, state.late) == act else task

    def _objection(self, state: State, task: Task, fact: Fact) -> str | None:
        to_fact = objections.to_turn_fact if task.role == "agent" else call_objections.to_call_fact
        return to_fact(self._case, state, task, fact)

    def _clients(self, state: State) -> Iterator[Step]:
        log, f, case = state.log, fold(state.log), self._case

        def sends(fact: Fact, **change: Any) -> Step:
            return self._step(str(fact), state._replace(log=(*log, fact), **change), own=False)

        if state.sent < len(case.messages):
            number = state.sent + 1
            yield sends(("message", number, case.messages[state.sent]), sent=number)
        if state.sent and state.cancels:
            for m in [0] if case.unnamed else range(1, state.sent + 1):
                yield sends(("cancel", m), cancels=0)
        if state.sent and state.duplicate:
            yield sends(log[0], duplicate=0)
        for name, call in f.calls.items():
            if call.asked and call.approved is None and not call.result and not f.over:
                for approved in (True, False):  # the edge appends conditionally
                    yield sends(("approval", name, approved))

    def _time(self, state: State) -> Iterator[Step]:
        """No clock of a holder matters: what one decided before this moment is as if it was stored before."""
        if state.overdue and (m := fold(state.log).open):
            yield self._step(f"m{m} is overdue", state._replace(late=m, overdue=0), own=False)

    def _deliveries(self, state: State) -> Iterator[Step]:
        for seq, fact in enumerate(state.log, 1):
            role = TRIGGERS.get(fact[0])
            if not role or seq in state.settled:
                continue
            held = sum(task.trigger == seq for task in state.tasks)
            if held > 1 or (held and not state.pause):
                continue
            if role == "agent" and sum(t.role == role for t in state.tasks) >= self._case.slots:
                continue
            claimed = any(other[:2] == ("turn_start", fact[1]) for other in state.log)
            if claimed and fact[0] == "message" and not self._case.rules.redeliver:
                continue
            joined = self._conduct.first_look(role, seq, state.log)
            task = Task(role, seq, joined, len(state.log))
            after = state._replace(tasks=(*state.tasks, task), pause=state.pause - bool(held))
            again = " again: its holder is paused" if held else ""
            yield self._step(f"deliver #{seq} {fact[0]}{again}", after, own=not held)

    def _holder(self, state: State, task: Task, others: tuple[Task, ...]) -> Iterator[Step]:
        name, size = f"{task.role}#{task.trigger}@{task.joined}", len(state.log)
        if task.flag == "released":
            yield self._step(f"{name} naks", state._replace(tasks=others))
            return
        if task.flag.startswith("pending"):
            found = self._case.rules.resolve or task.claim <= task.seen
            knows = task._replace(seen=size, claim=task.claim if found else 0, flag=task.flag[7:])
            yield self._step(f"{name} looks its append up", state._replace(tasks=(*others, knows)))
            return
        if task.seen < size:
            knows = task._replace(seen=size)
            yield self._step(f"{name} reads to {size}", state._replace(tasks=(*others, knows)))
        if state.stop:
            yield from self._stopped(name, state, task, others)
        if task.seen == STALE:
            return
        act = self._decide(task, state.log[: task.seen], state.late)
        if isinstance(act, str):
            yield from self._does(name, state, task, others, act)
        elif act and (task.seen == size or not self._case.rules.conditional):
            yield from self._appends(name, state, task, others, act)

    def _stopped(self, name: str, state: State, task: Task, others: tuple[Task, ...]) -> Iterator[Step]:
        after = state._replace(tasks=others, stop=state.stop - 1)
        if not task.claim:
            yield self._step(f"{name} is stopped, naks", _nak(after, task), own=False)
        elif task.role == "tool":
            yield self._step(f"{name} is stopped, drops", after, own=False)
        elif task.seen == len(state.log):
            fact = self._conduct.release(task, state.log)
            if fact is None:
                yield self._step(f"{name} is stopped, drops", after, own=False)
                return
            released, wrong = task._replace(seen=task.seen + 1, flag="released"), self._objection(state, task, fact)
            after = after._replace(log=(*state.log, fact), tasks=(*others, released))
            yield self._step(f"{name} is stopped, releases", after, own=False, wrong=wrong)

    def _does(self, name: str, state: State, task: Task, others: tuple[Task, ...], act: Act) -> Iterator[Step]:
        after = state._replace(tasks=others)
        match act:
            case "ack":
                after = after._replace(settled=state.settled | {task.trigger})
                yield self._step(f"{name} acks", after, wrong=objections.to_ack(state, task))
            case "drop":
                yield self._step(f"{name} drops", after)
            case "nak":
                yield self._step(f"{name} naks", _nak(after, task))
            case "run":
                call = state.log[task.trigger - 1][1]
                ran = state.ran if state.ran.count(call) > 1 else tuple(sorted((*state.ran, call)))
                after = state._replace(tasks=(*others, task._replace(flag="ran")), ran=ran)
                wrong = call_objections.to_run(self._case, state, task)
                yield self._step(f"{name} RUNS the tool", after, wrong=wrong)
                if state.pause and not task.flag:
                    late = (*others, task._replace(flag="late"))
                    after = state._replace(tasks=late, pause=state.pause - 1)
                    yield self._step(f"{name} is late", after, own=False)

    def _appends(self, name: str, state: State, task: Task, others: tuple[Task, ...], fact: Fact) -> Iterator[Step]:
        size, wrong = len(state.log), self._objection(state, task, fact)
        claim = size + 1 if fact[0] in ("turn_start", "started") else task.claim
        stored = state._replace(log=(*state.log, fact))
        knows = task._replace(seen=size + 1, claim=claim)
        label = f"{name} appends {fact}"
        yield self._step(label, stored._replace(tasks=(*others, knows)), wrong=wrong)
        if state.unknown:
            doubts = task._replace(claim=claim, flag="pending" + task.flag)
            after = stored._replace(tasks=(*others, doubts), unknown=state.unknown - 1)
            yield self._step(f"{label}, outcome unknown", after, own=False, wrong=wrong)

    def _crashes(self, state: State) -> Iterator[Step]:
        if not state.crash:
            return
        services = (tuple(t for t in state.tasks if t.role == role) for role in ("agent", "tool"))
        for gone in sorted({(task,) for task in state.tasks} | set(services) - {()}):
            rest = list(state.tasks)
            for task in gone:
                rest.remove(task)
            after = state._replace(tasks=tuple(rest), crash=state.crash - 1)
            names = ", ".join(f"{t.role}#{t.trigger}@{t.joined}" for t in gone)
            yield self._step(f"CRASH of {names}", after, own=False)


def _nak(state: State, task: Task) -> State:
    """A nak may bring the delivery again though another holder, who has it too, lives."""
    again = any(other.trigger == task.trigger for other in state.tasks)
    return state._replace(pause=state.pause + again)
