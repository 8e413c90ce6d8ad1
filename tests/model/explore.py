"""Exploring: every state that can be reached, and what is wrong with the first bad one.

Liveness: the system's own steps (no client, no fault) cannot cycle, and wherever they end
everything is settled.
"""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from tests.model import objections
from tests.model.facts import fold
from tests.model.rules import Case
from tests.model.state import Conduct, Disagreement, State
from tests.model.steps import World

MOST = 6_000_000
"""States that an exploration may have: a few GiB."""


class Finding(NamedTuple):
    """What is wrong, or None; the labels that lead there; how many states were seen."""

    wrong: str | None
    trace: list[str]
    states: int


def check(case: Case, conduct: Callable[[Case], Conduct]) -> Finding:
    """Explore a case, breadth first: a trace is a shortest one."""
    try:
        return _Exploration(case, conduct(case)).run()
    finally:
        fold.cache_clear()


class _Exploration:
    def __init__(self, case: Case, conduct: Conduct) -> None:
        start = State(
            cancels=case.cancel,
            duplicate=case.duplicate,
            crash=case.crash,
            pause=case.pause,
            stop=case.stop,
            overdue=case.overdue,
            unknown=case.unknown,
        )
        self._world = World(case, conduct)
        self._number = {start: 0}
        self._origin: list[tuple[int, str]] = [(-1, "")]
        self._waiting = deque([start])
        self._system: list[list[int]] = []

    def run(self) -> Finding:
        while self._waiting:
            state = self._waiting.popleft()
            try:
                wrong, trace = self._expand(state)
            except Disagreement as disagreement:
                wrong, trace = str(disagreement), self._trace(self._number[state])
            if not wrong and len(self._number) > MOST:
                wrong = "too many states"
            if wrong:
                return Finding(wrong, trace, len(self._number))
        cycle = _cycle(self._system)
        if cycle is not None:
            return Finding("livelock", self._trace(cycle), len(self._number))
        return Finding(None, [], len(self._number))

    def _expand(self, state: State) -> tuple[str | None, list[str]]:
        here, own = self._number[state], []
        for label, after, by_system, wrong in self._world.steps(state):
            there = self._number.setdefault(after, len(self._number))
            if there == len(self._origin):
                self._origin.append((here, label))
                self._waiting.append(after)
            if wrong:
                return wrong, [*self._trace(here), label]
            if by_system:
                own.append(there)
        self._system.append(own)
        wrong = None if own else objections.to_rest(state)
        return wrong, self._trace(here) if wrong else []

    def _trace(self, at: int) -> list[str]:
        labels: list[str] = []
        while at:
            at, label = self._origin[at]
            labels.append(label)
        return labels[::-1]


def _cycle(system: list[list[int]]) -> int | None:
    """A state on or behind a cycle of the system's own steps, None if there is none (Kahn)."""
    into = [0] * len(system)
    for targets in system:
        for target in targets:
            into[target] += 1
    free = [state for state, count in enumerate(into) if not count]
    while free:
        for target in system[free.pop()]:
            into[target] -= 1
            if not into[target]:
                free.append(target)
    return next((state for state, count in enumerate(into) if count), None)
