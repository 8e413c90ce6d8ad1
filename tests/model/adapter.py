"""Adapter: the code's decisions in the model's words.

A log of the model stands for a log of real events; the code's fold and decisions see nothing else.
The agent that runs in a turn is the model's: it makes its calls, waits for their results, steers at
the boundary, answers and is done. An answer is closed at once: `CloseAnswer` has no counterpart.
Everything is stored at second 0, and an overdue turn is looked at later than it may take.
"""

from functools import cache
from typing import TypeVar

from agent_runner import decide as agent
from broker.acts import Act as RealAct
from broker.acts import Drop, Perform, Put, Settle, Wait
from contracts.session import Session
from tests.model.facts import Fact, Fold, Log, fold
from tests.model.reference import Reference
from tests.model.rules import Case
from tests.model.state import Act, Disagreement, Task
from tests.model.translate import answer_id, event_of, fact_of, message_id
from tool_runner import decide as tool

CLAIMS = ("turn_start", "started")
SECONDS, OVERDUE = 1.0, 2.0
T = TypeVar("T")


class Real:
    """What the code's holders do."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._tools = case.tools
        self.session = cache(self._session)

    def _session(self, log: Log) -> Session:
        if not log:
            return Session()
        session = self.session(log[:-1]).copy()
        session.apply(len(log), event_of(log[-1]))
        return session

    def first_look(self, role: str, trigger: int, log: Log) -> int:
        """The claim that the code remembers when a delivery comes."""
        task = Task(role, trigger, 0, len(log))
        if role == "tool":
            call = self._call_holding(task, log)
            tool.first_look(self.session(log), call)
            return call.joined
        holding = self._holding(task, log)
        agent.first_look(self.session(log), holding)
        return holding.joined

    def decide(self, task: Task, log: Log, late: int) -> Act | None:
        """The code's next act."""
        return self._agent(task, log, late) if task.role == "agent" else self._tool(task, log)

    def release(self, task: Task, log: Log) -> Fact | None:
        """What the code appends when it is told to stop."""
        put = agent.release(self.session(log), self._holding(task, log))
        return fact_of(put.event) if put else None

    def _holding(self, task: Task, log: Log) -> agent.Holding:
        return agent.Holding(
            "s",
            message_id(log[task.trigger - 1][1]),
            task.trigger,
            joined=task.joined,
            claim=task.claim,
            limit=self._case.limit,
            seconds=SECONDS,
        )

    def _call_holding(self, task: Task, log: Log) -> tool.Holding:
        name = log[task.trigger - 1][1]
        asks = self._case.approval and name == "c"
        return tool.Holding(
            "s",
            name,
            tool.Permit("ask" if asks else "allow", repeatable=self._tools[name] == "idempotent"),
            joined=task.joined,
            claim=task.claim,
            limit=self._case.starts,
            late=task.flag == "late",
            outcome=tool.Outcome("completed") if task.flag == "ran" else None,
        )

    def _agent(self, task: Task, log: Log, late: int) -> Act | None:
        session, holding, m = self.session(log), self._holding(task, log), log[task.trigger - 1][1]
        now = OVERDUE if late == m else 0.0
        act = agent.decide(session, holding, now)
        if not isinstance(act, Perform):
            assert not isinstance(act, agent.CloseAnswer), "an answer is open"
            return _abstract(act)
        turn = session.turns[holding.message_id]
        if m == 1 and self._tools:
            if unmade := [name for name in self._tools if name not in turn.calls]:
                return ("call", unmade[0])
            if None in turn.calls.values():
                return ("waits", m) if self._case.waits and ("waits", m) not in log[task.claim :] else None
        if answer_id(m) not in turn.answers:
            steer = agent.steer(session, holding)
            return fact_of(steer.event) if steer else ("answer", m)
        holding.outcome = agent.Outcome("completed")
        done = agent.decide(session, holding, now)
        assert isinstance(done, Put), done
        return _abstract(done)

    def _tool(self, task: Task, log: Log) -> Act | None:
        session, holding = self.session(log), self._call_holding(task, log)
        act = tool.decide(session, holding, now=0.0)
        if isinstance(act, Wait):
            assert act.until is not None, "nothing would end this"
            act = tool.decide(session, holding, now=act.until)
        return _abstract(act)


def _abstract(act: RealAct) -> Act | None:
    match act:
        case Settle():
            return "ack"
        case Drop():
            return "drop"
        case Perform():
            return "run"
        case Wait(until=None):
            return None
        case Put(event=event, claim=claim):
            fact = fact_of(event)
            assert claim == (fact[0] in CLAIMS), f"claim={claim} of {fact}"
            return fact
    raise AssertionError(act)


class Agreed(Real):
    """What the code's holders do; a Disagreement where the reference does otherwise."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self._reference = Reference(case)

    def _session(self, log: Log) -> Session:
        session, f = super()._session(log), fold(log)
        _agree("open messages", [*session.turns], [*map(message_id, f.waiting)])
        ended = {message_id(m): status for m, status in f.ended.items()}
        _agree("ended messages", session.ended, ended)
        for m in f.waiting:
            _agree(f"the turn of m{m}", _turn_in_the_code(session, m), _turn_in_the_reference(f, m))
        return session

    def first_look(self, role: str, trigger: int, log: Log) -> int:
        """The claim that both find."""
        real = super().first_look(role, trigger, log)
        return _agree("first look", real, self._reference.first_look(role, trigger, log))

    def decide(self, task: Task, log: Log, late: int) -> Act | None:
        """What both do."""
        return _agree(task, super().decide(task, log, late), self._reference.decide(task, log, late))

    def release(self, task: Task, log: Log) -> Fact | None:
        """What both append."""
        return _agree(task, super().release(task, log), self._reference.release(task, log))


def _turn_in_the_code(session: Session, m: int) -> dict[str, object]:
    turn = session.turns[message_id(m)]
    return {
        "claim": turn.claim,
        "attempt": turn.attempt,
        "failures": turn.failures,
        "waiting": turn.waiting,
        "stopping": turn.stopping,
        "aim": turn.aim,
        "untold": {taken for taken, steer in turn.steered.items() if not steer.told},
        "calls": {name: result and result.status for name, result in turn.calls.items()},
    }


def _turn_in_the_reference(f: Fold, m: int) -> dict[str, object]:
    aim = f.aims.get(m)
    return {
        "claim": f.claims.get(m, 0),
        "attempt": f.attempts.get(m, 0),
        "failures": f.failures.get(m, 0),
        "waiting": m in f.resting,
        "stopping": m in f.stopping,
        "aim": message_id(aim) if aim and m not in f.missed else None,
        "untold": {message_id(s) for s, taker in f.taken.items() if taker == m and s not in f.applied},
        "calls": {name: call.result for name, call in f.calls.items()} if m == 1 else {},
    }


def _agree(what: object, real: T, reference: T) -> T:
    if real != reference:
        raise Disagreement(f"{what}: the code says {real}, the reference {reference}")
    return real
