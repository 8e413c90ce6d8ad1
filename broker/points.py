"""Points: named places where a test lets this process die or hang. For tests only.

    append:<type>:before | after    an event is about to be appended | the broker has acknowledged it
    append:letter:before | after    a dead letter is about to be stored | the broker has acknowledged it
    settle:<word>:before | after    a delivery is about to be answered with ack or nak | the answer is on the wire
    call:before | after             a tool is about to be called | it has answered

`MILLRACE_FAULT=<point>:<n>:kill` ends the process with SIGKILL when it reaches that point for the n-th time;
`pause` stops it with SIGSTOP. Without the variable, reaching a point costs one comparison.
"""

import os
import signal
from typing import Literal

from msgspec import Struct

from contracts import events

SIGNALS = {"kill": signal.SIGKILL, "pause": signal.SIGSTOP}
Side = Literal["before", "after"]


class _Fault(Struct):
    point: str
    left: int
    number: signal.Signals

    def reached(self, point: str) -> None:
        if point != self.point:
            return
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)


_fault: _Fault | None = None


def arm(fault: str) -> None:
    """Fail at that point, or nowhere if it is empty. Raises ValueError for what names no fault."""
    global _fault
    match fault.rsplit(":", 2):
        case [""]:
            _fault = None
        case [point, nth, act] if act in SIGNALS and nth.isdigit():
            _fault = _Fault(point, int(nth), SIGNALS[act])
        case _:
            raise ValueError(f"not a fault: {fault!r}")


def reach(place: str, side: Side) -> None:
    """This process is at that point."""
    if _fault is not None:
        _fault.reached(f"{place}:{side}")


def appending(payload: bytes, side: Side) -> None:
    """This process is appending that event; anything else has no point."""
    if _fault is not None and payload.startswith(b'{"type":"'):
        _fault.reached(f"append:{events.type_of(payload)}:{side}")
