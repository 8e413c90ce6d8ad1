"""Planting: changing a recorded history so that it breaks one rule.

The history was recorded from a real system with `python -m tests.harness.record`.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tests.harness.history import History

RECORDED = Path(__file__).parents[1] / "pipeline" / "histories" / "good.json"

Plant = Callable[[History], None]


def where(history: History, type_: str, nth: int = 0, **fields: Any) -> int:
    """The place of a record in the log."""
    found = [
        n
        for n, record in enumerate(history.log)
        if record.type == type_ and all(record.event.get(name) == value for name, value in fields.items())
    ]
    return found[nth]


def change(history: History, place: int, **fields: Any) -> None:
    """Change an event in the log and wherever it was delivered, so that only the log's own rules can object."""
    record = history.log[place]
    for connection in history.connections:
        for frame in connection.frames:
            if frame.get("id") == record.event["id"]:
                frame.update(fields)
    record.event.update(fields)


def repeat(history: History, place: int, at: int, **fields: Any) -> None:
    """Store an event again at another place, as a new event that was delivered to nobody."""
    record = history.log[place]
    event = copy.deepcopy(record.event) | {"id": f"planted-{place}-{at}"} | fields
    history.log.insert(at, msgspec.structs.replace(record, event=event))


def remove(history: History, place: int) -> None:
    """Take an event out of the log and out of what was delivered."""
    event_id = history.log.pop(place).event["id"]
    for connection in history.connections:
        for n, frame in enumerate(connection.frames):
            if frame.get("id") == event_id:
                connection.frames[n] = {"type": "nothing"}


def move(history: History, place: int, to: int) -> None:
    """Put a record elsewhere in the log."""
    history.log.insert(to, history.log.pop(place))


def call_id(history: History, word: str) -> str:
    """The call of that note."""
    calls = [r.event for r in history.log if r.type == "tool_call"]
    return str(next(c["tool_call_id"] for c in calls if c["arguments"].get("text", "").endswith(word)))


def plant(history: History, at: int, type_: str, lane: str = "agent", **fields: Any) -> None:
    """Store an event before the one at a place, at the same time, as somebody who has folded everything would."""
    next_ = history.log[at]
    session = next_.subject.rpartition(".fact.")[0] or next_.subject.rpartition(".")[0]
    event = {"type": type_, "id": f"planted-{type_}-{len(history.log)}", "timestamp": next_.time[:26] + "Z", **fields}
    subject = f"{session}.delta" if lane == "delta" else f"{session}.fact.{lane}"
    headers = next_.headers if next_.headers else {}
    history.log.insert(at, msgspec.structs.replace(next_, subject=subject, event=event, headers=headers))
