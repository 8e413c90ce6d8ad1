"""Rules, each of which can be left out, and Case: what one exploration starts from."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Rules:
    """The rules as they must be. A mutation changes one, and the exploration must object."""

    conditional: bool = True
    """Appends of agent and tool name the last folded fact."""
    newcomer_drops: bool = True
    """A foreign claim that is newer than the first look: drop, as for a fenced holder."""
    fenced: Literal["drop", "ack", "nak", "keep"] = "drop"
    """What a fenced holder does with its delivery."""
    restart_tells: bool = True
    """Who stops a call that was started before writes `unknown`, not `cancelled`."""
    started_first: bool = True
    """"Started before" is asked before "its turn has ended"."""
    stop_counts: bool = True
    """For a tool call a stored cancel or interrupt is the end of its turn."""
    end_takes_in: bool = True
    """A steer is taken in by its `turn_end(steered)`; `steer_applied` follows, not the reverse."""
    late_steers_wait: bool = True
    """A steer that comes after the last answer is not taken in: nothing would answer it."""
    missed_tells: bool = True
    """A steer that no turn took in is told so when its own turn begins."""
    stop_tells: bool = True
    """Also a turn that is stopped or overdue tells the steers that it took in, or that it is one itself."""
    results_all: bool = True
    """A turn goes on when all its calls have their results."""
    overdue_ends: bool = True
    """A turn that takes too long is ended."""
    overdue_rests: bool = True
    """Who takes an overdue turn over ends it without a claim."""
    release_undoes: bool = True
    """Who is told to stop gives its claim back: a handover is no attempt."""
    waits_are_excused: bool = True
    """An attempt that came to only wait for calls, or found its turn so, is not counted against the limit."""
    replay: bool = True
    """A new attempt finds the recorded call by its id."""
    resolve: bool = True
    """An append whose outcome is unknown is looked up by its id, not taken for refused."""
    redeliver: bool = True
    """`max_deliver` is unlimited."""
    first_only: bool = True
    """The same message stored again (past the duplicate window) is acked, not held."""
    answer_waits: bool = True
    """A message waits for every earlier one."""


@dataclass(frozen=True)
class Case:
    """What clients send, and how many faults there are, at any moment of the broker's choice."""

    messages: tuple[str, ...] = ("enqueue",)
    """Their policies, in order."""
    tool: Literal["", "once", "idempotent"] = ""
    """What the turn of the first message calls: c."""
    beside: Literal["", "once", "idempotent"] = ""
    """What it calls too, before it waits for c: d."""
    waits: bool = False
    """Whether an attempt that comes to wait for calls tells so, which asks for many more states."""
    approval: bool = False
    """Whether a person is asked about c."""
    cancel: int = 0
    """One cancel, of any message."""
    unnamed: bool = False
    """The cancel names no message."""
    duplicate: int = 0
    """The first message is stored a second time."""
    crash: int = 0
    """A crash ends one holder, or all of a service."""
    pause: int = 0
    """A pause makes a delivery come again while its holder lives and goes on later, or too late."""
    stop: int = 0
    """One holder is told to stop."""
    overdue: int = 0
    """A turn has taken too long, from any moment after its first claim."""
    unknown: int = 0
    """An append is stored while its writer does not know."""
    limit: int = 9
    """Attempts at a turn."""
    starts: int = 9
    """Executions of a tool call."""
    slots: int = 9
    """Deliveries that the agent runners take at most."""
    rules: Rules = Rules()

    @property
    def tools(self) -> dict[str, str]:
        """The calls, in order, and what each may do."""
        return {name: tool for name, tool in (("c", self.tool), ("d", self.beside)) if tool}
