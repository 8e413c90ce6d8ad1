"""What a turn did is what its agent's program says, whoever did it: nothing left out, nothing twice, and no failure."""

import json
from collections.abc import Iterator
from typing import Any

from msgspec import Struct, field

from tests.harness.history import Frame, Record
from tests.harness.stepping import SAYS

Program = list[Frame]


class Turn(Struct):
    """One message, and what was recorded of its turn, in order."""

    content: str
    answers: dict[str, Frame | None] = field(default_factory=dict)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    reports: list[tuple[str, str]] = field(default_factory=list)
    call_ids: list[str] = field(default_factory=list)
    status: str = ""
    error: str = ""


def check_script(log: list[Record]) -> Iterator[str]:
    """Every violation in the log of one session."""
    agents = [r.event["agent"] for r in log if r.type == "session_updated" and r.event.get("agent")]
    agent = agents[-1] if agents else "script"
    results = {r.event["tool_call_id"]: r.event["status"] for r in log if r.type == "tool_result"}
    for message_id, turn in _turns(log).items():
        if agent == "overdue" and turn.status == "failed":
            continue
        for text in _of_python(turn, agent, results) if agent in SAYS else _violations(turn):
            yield f"not its program: {text} in {message_id}"


def _of_python(turn: Turn, agent: str, results: dict[str, str]) -> Iterator[str]:
    statuses = [results.get(call_id, "") for call_id in turn.call_ids]
    answers = [told and told["content"] for told in turn.answers.values()]
    if turn.status == "failed":
        yield f"failed: {turn.error}"
    if turn.status == "completed" and answers != [SAYS[agent](statuses)]:
        yield f"said {answers} of {statuses}"


def _turns(log: list[Record]) -> dict[str, Turn]:
    turns: dict[str, Turn] = {}
    running = ""
    for record in log:
        event = record.event
        turn = turns.get(event.get("reply_to", running))
        match record.type:
            case "message":
                turns.setdefault(event["message_id"], Turn(event["content"]))
            case "turn_start":
                running = event["reply_to"]
            case "turn_end" if turn:
                turn.status, turn.error = event["status"], (event.get("error") or {}).get("error", "")
            case "stream_start" | "stream_end" if turn:
                turn.answers[event["message_id"]] = event if record.type == "stream_end" else None
            case "tool_call" if turn:
                turn.calls.append((event["tool"], event["arguments"]))
                turn.call_ids.append(event["tool_call_id"])
            case "workflow_progress" if turn and record.lane == "agent":
                turn.reports.append((event["workflow_id"], event["step"]))
    return turns


def _violations(turn: Turn) -> Iterator[str]:
    program = _program(turn.content)
    calls = [(step["tool"], step.get("arguments", {})) for step in program if "tool" in step]
    flows = [step["workflow"] for step in program if "workflow" in step]
    reports = [(flow["id"], name) for flow in flows for name in flow["steps"]]
    answers = [segment for segment in _segments(program) if any("say" in s or "stream" in s for s in segment)]
    told = next((step["fail"] for step in program if "fail" in step), "")
    if turn.status in ("completed", "failed") and turn.error != told:
        yield f"failed: {turn.error!r} instead of {told!r}"
    if turn.status == "completed":
        if turn.calls != calls:
            yield f"called {turn.calls}"
        if turn.reports != reports:
            yield f"reported {turn.reports}"
        if len(turn.answers) != len(answers):
            yield f"{len(turn.answers)} answers of {len(answers)}"
        for told, segment in zip(turn.answers.values(), answers, strict=False):
            if told is None or not _says(told["content"], segment):
                yield f"said {told and told['content'][:200]!r}"
    elif turn.calls != calls[: len(turn.calls)] or turn.reports != reports[: len(turn.reports)]:
        yield f"called {turn.calls}, reported {turn.reports}"
    elif len(turn.answers) > len(answers):
        yield f"{len(turn.answers)} answers of {len(answers)}"


def _program(content: str) -> Program:
    try:
        program = json.loads(content)
    except ValueError:
        program = None
    return program if isinstance(program, list) else [{"say": content}]


def _segments(program: Program) -> list[Program]:
    """The steps between calls: each makes one answer at most."""
    segments: list[Program] = [[]]
    for step in program:
        if "tool" in step:
            segments.append([])
        else:
            segments[-1].append(step)
    return segments


def _says(text: str, segment: Program) -> bool:
    for step in segment:
        if "say" in step:
            expected = step["say"]
            if not text.startswith(expected):
                return False
            text = text[len(expected) :]
        for number in range(step.get("stream", {}).get("deltas", 0)):
            size = step["stream"].get("size", 32)
            line, text = text[:size], text[size:]
            if not (line.startswith(f"{number} ") and line.endswith("\n")):
                return False
    return not text
