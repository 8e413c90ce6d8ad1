"""Takeovers: how long a turn had nobody after its runner was killed. Reported, never asserted."""

from collections.abc import Iterable
from statistics import median

from tests.harness.call_rules import stored
from tests.harness.history import Fault, Record


def takeovers(log: Iterable[Record], faults: Iterable[Fault]) -> list[float]:
    """Seconds from the first death of an agent runner in an attempt to the next `turn_start` of its turn."""
    deaths = sorted(f.noticed for f in faults if f.service == "agent_runner" and f.is_death)
    claimed: dict[str, float] = {}
    times: list[float] = []
    for record in log:
        if record.type == "turn_release":
            claimed.pop(record.event["reply_to"], None)
        elif record.type == "turn_start":
            turn, at = record.event["reply_to"], stored(record)
            before = claimed.get(turn)
            times += [at - death for death in deaths if before is not None and before <= death <= at][:1]
            claimed[turn] = at
    return times


def said(times: list[float]) -> str:
    """The figures in a line."""
    if not times:
        return "no takeovers"
    return f"{len(times)} takeovers, p50 {median(times):.2f} s, max {max(times):.2f} s"
