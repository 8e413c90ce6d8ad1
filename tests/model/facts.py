"""Facts of the model's log, and what they amount to: the reference of `contracts.session`.

A fact is `(kind, message number or call, …)`. Its place in the log is its sequence, from 1.
"""

from functools import cache
from typing import Any

from msgspec import Struct, field

Fact = tuple[Any, ...]
Log = tuple[Fact, ...]

TRIGGERS = {"message": "agent", "call": "tool"}
"""What is delivered, and to whom."""


class Call(Struct):
    """What a log amounts to for one call. `made` and `started` are places in the log."""

    made: int
    asked: bool = False
    approved: bool | None = None
    started: int = 0
    starts: int = 0
    result: str | None = None


class Fold(Struct):
    """What a log amounts to. Messages are numbered in their order; all calls are of the first one's turn.

    `told`: where a turn told last that it waits for calls; `resting`: turns that have done nothing since.
    """

    policy: dict[int, str] = field(default_factory=dict)
    ended: dict[int, str] = field(default_factory=dict)
    claims: dict[int, int] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)
    failures: dict[int, int] = field(default_factory=dict)
    told: dict[int, int] = field(default_factory=dict)
    resting: set[int] = field(default_factory=set)
    stopping: set[int] = field(default_factory=set)
    taken: dict[int, int] = field(default_factory=dict)
    applied: set[int] = field(default_factory=set)
    aims: dict[int, int] = field(default_factory=dict)
    missed: set[int] = field(default_factory=set)
    answered: set[int] = field(default_factory=set)
    open: int | None = None
    calls: dict[str, Call] = field(default_factory=dict)

    @property
    def waiting(self) -> list[int]:
        """The messages without `turn_end`, in order."""
        return [m for m in self.policy if m not in self.ended]

    @property
    def over(self) -> bool:
        """Whether the turn that makes the calls has ended or is to be stopped."""
        return 1 in self.ended or 1 in self.stopping


@cache
def fold(log: Log) -> Fold:
    """What the log amounts to. Nobody may change it."""
    state = Fold()
    for seq, (kind, who, *more) in enumerate(log, 1):
        if isinstance(who, str):
            _fold_call(state, seq, kind, who, more)
        else:
            _fold_turn(state, seq, kind, who, more)
    return state


def _fold_turn(  # noqa: C901 - a table
    state: Fold, seq: int, kind: str, m: int, more: list[Any]
) -> None:
    match kind:
        case "message" if m not in state.policy:
            if more[0] == "interrupt":
                state.stopping.update(state.waiting)
            if more[0] == "steer" and state.waiting:
                state.aims[m] = state.waiting[0]
            state.policy[m] = more[0]
        case "cancel":
            named = m or next(iter(state.waiting), 0)
            state.stopping.update({named} & set(state.waiting))
        case "turn_start":
            state.claims[m], state.open = seq, m
            state.attempts[m] = state.attempts.get(m, 0) + 1
            state.failures[m] = state.failures.get(m, 0) + (m not in state.resting)
        case "turn_release":
            state.attempts[m] -= 1
            state.failures[m] = max(0, state.failures[m] - 1)
        case "waits":
            state.told[m], state.failures[m] = seq, 0
            state.resting.add(m)
        case "turn_end":
            state.ended[m] = more[0]
            if more[0] == "steered" and state.open:
                state.taken[m] = state.open
            state.open = None if state.open == m else state.open
        case "answer":
            state.answered.add(m)
            state.failures[m] = min(state.failures[m], 1)
            state.resting.discard(m)
        case "steer_applied":
            state.applied.add(m)
        case "steer_missed":
            state.missed.add(m)


def _fold_call(state: Fold, seq: int, kind: str, name: str, more: list[Any]) -> None:
    if kind == "call":
        state.calls[name] = Call(seq)
        state.resting.discard(1)
        return
    call = state.calls[name]
    match kind:
        case "ask":
            call.asked = True
        case "approval":
            call.approved = more[0]
        case "started":
            call.started, call.starts = seq, more[0]
        case "result":
            call.result = more[0]
            state.failures[1] = min(state.failures[1], 1)
            if all(other.result for other in state.calls.values()):
                state.resting.discard(1)
