"""State: one moment of the model, and what everybody who takes part in it must offer."""

from typing import NamedTuple, Protocol

from tests.model.facts import Fact, Log

Act = str | Fact
"""`ack`, `drop`, `nak`, `run` (the tool), or a fact to append."""

STALE = -1


class Task(NamedTuple):
    """A holder of one delivery.

    `trigger`: where its trigger is; `joined`: the last claim it found when it came; `seen`: how far
    it has folded; `claim`: where its claim is; `flag`: `ran` (the tool), `late`, `released`, or
    `pending` (its last append's outcome is unknown), which may stand before another.
    """

    role: str
    trigger: int
    joined: int
    seen: int
    claim: int = 0
    flag: str = ""


class State(NamedTuple):
    """The log, the holders, and how many faults are left.

    `late`: the message whose turn is overdue, 0 for none; `ran`: the calls whose tool ran, each twice at most.
    """

    log: Log = ()
    settled: frozenset[int] = frozenset()
    tasks: tuple[Task, ...] = ()
    sent: int = 0
    cancels: int = 0
    duplicate: int = 0
    crash: int = 0
    pause: int = 0
    stop: int = 0
    overdue: int = 0
    unknown: int = 0
    late: int = 0
    ran: tuple[str, ...] = ()


class Step(NamedTuple):
    """What may happen next. `own`: by the system itself; `wrong`: why it must not."""

    label: str
    state: State
    own: bool = True
    wrong: str | None = None


class Conduct(Protocol):
    """What holders do, knowing this much of the log."""

    def first_look(self, role: str, trigger: int, log: Log) -> int:
        """The claim that is there when a delivery comes, 0 if there is none."""

    def decide(self, task: Task, log: Log, late: int) -> Act | None:
        """The holder's next act, when that message's turn is overdue; None to wait."""

    def release(self, task: Task, log: Log) -> Fact | None:
        """What a holder appends that is told to stop; None where its claim is not the last one."""


class Disagreement(Exception):
    """The code does not do what the reference does."""
