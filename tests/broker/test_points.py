"""The named points at which the crash tests let a process die."""

import os
import signal
from collections.abc import Iterator

import pytest

from broker import points
from contracts import events


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The signals that this process would have sent itself."""
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _pid, number: sent.append(number))
    yield sent
    points.arm("")


def test_a_process_without_a_fault_passes_every_point(signals: list[int]) -> None:
    points.arm("")
    points.reach("call", "before")
    points.appending(b"no event at all", "after")
    assert signals == []


def test_a_process_dies_when_it_reaches_its_point_for_the_nth_time(signals: list[int]) -> None:
    points.arm("settle:ack:before:2:kill")
    points.reach("settle:ack", "after")
    points.reach("settle:ack", "before")
    assert signals == []
    points.reach("settle:ack", "before")
    points.reach("settle:ack", "before")
    assert signals == [signal.SIGKILL]


def test_an_append_is_a_point_by_the_type_of_its_event(signals: list[int]) -> None:
    points.arm("append:turn_start:after:1:pause")
    start = events.TurnStart(id="e", timestamp="t", reply_to="m", attempt=1)
    points.appending(events.encode(start), "before")
    points.appending(b"no event at all", "after")
    assert signals == []
    points.appending(events.encode(start), "after")
    assert signals == [signal.SIGSTOP]


@pytest.mark.parametrize("fault", ["call", "call:before:1:explode", "call:before:x:kill"])
def test_what_names_no_fault_is_refused(fault: str) -> None:
    with pytest.raises(ValueError, match="not a fault"):
        points.arm(fault)
