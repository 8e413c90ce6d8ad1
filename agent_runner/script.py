"""The agent `script`: needs no model. A message that is a JSON list is a program; anything else is echoed.

The steps are WIRE's: stream, say, tool, workflow, sleep_ms, fail. Streaming steps in a row make one answer; a tool
step closes it; after a failed or rejected tool the program goes on.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from agent_runner.model import Piece, Said
from agent_runner.turn import Turn
from contracts.errors import Code, MillraceError

Count = Annotated[int, Meta(ge=0, le=10_000_000)]
Milliseconds = Annotated[float, Meta(ge=0, le=86_400_000)]


class ScriptFailed(MillraceError):
    """The program said `fail`, or is no program."""

    def __init__(self, text: str) -> None:
        super().__init__(Code.AGENT_FAILED, text)


class Stream(Struct, frozen=True, forbid_unknown_fields=True):
    """Deltas `<i> <CLOCK_MONOTONIC ns> `, padded to `size` bytes, the last a newline."""

    deltas: Count
    interval_ms: Milliseconds = 0
    size: Annotated[int, Meta(ge=1, le=65_536)] = 32


class Workflow(Struct, frozen=True, forbid_unknown_fields=True):
    """Progress through named steps."""

    id: Annotated[str, Meta(min_length=1, max_length=128)]
    steps: list[str]
    interval_ms: Milliseconds = 0


class Step(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One step: exactly one of its kinds."""

    stream: Stream | None = None
    say: str | None = None
    tool: str | None = None
    arguments: dict[str, Any] | None = None
    workflow: Workflow | None = None
    sleep_ms: Milliseconds | None = None
    fail: str | None = None

    def __post_init__(self) -> None:
        """Refuse a step of no kind or of two, and arguments without a tool."""
        kinds = [self.stream, self.say, self.tool, self.workflow, self.sleep_ms, self.fail]
        if sum(kind is not None for kind in kinds) != 1 or (self.arguments is not None and self.tool is None):
            raise ValueError("a step is one of stream, say, tool (with arguments), workflow, sleep_ms, fail")


def parse(content: str) -> list[Step] | None:
    """The program that a message is, or None for any other content. Raises ScriptFailed for a malformed one."""
    try:
        program = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not isinstance(program, list):
        return None
    try:
        return msgspec.convert(program, list[Step])
    except msgspec.ValidationError as error:
        raise ScriptFailed(f"not a program: {error}") from error


async def run(turn: Turn) -> None:
    """Run the message's program, or echo it word by word. Raises ScriptFailed."""
    program = parse(turn.message.content)
    if program is None:
        await turn.say(_echo(turn.message.content))
        return
    segment: list[Step] = []
    for step in program:
        if step.tool is None:
            segment.append(step)
            continue
        await turn.say(_pieces(turn, segment), closes=True)
        segment = []
        await turn.boundary()
        await turn.call(step.tool, step.arguments or {})
    await turn.say(_pieces(turn, segment))


async def _echo(content: str) -> AsyncGenerator[Piece | Said]:
    for word in re.findall(r"\s*\S+\s*$|\s*\S+|\s+", content):
        yield Piece(word)


async def _pieces(turn: Turn, steps: list[Step]) -> AsyncGenerator[Piece | Said]:
    for step in steps:
        if step.stream is not None:
            async for piece in _stream(step.stream):
                yield piece
        elif step.say is not None:
            yield Piece(step.say)
        elif step.workflow is not None:
            await _workflow(turn, step.workflow)
        elif step.sleep_ms is not None:
            await asyncio.sleep(step.sleep_ms / 1000)
        elif step.fail is not None:
            raise ScriptFailed(step.fail)


async def _stream(stream: Stream) -> AsyncGenerator[Piece]:
    began, interval, width = time.monotonic(), stream.interval_ms / 1000, stream.size - 1
    for i in range(stream.deltas):
        if interval and (wait := began + i * interval - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        yield Piece(f"{i} {time.monotonic_ns()} ".ljust(width) + "\n")


async def _workflow(turn: Turn, workflow: Workflow) -> None:
    total = len(workflow.steps)
    for done, name in enumerate(workflow.steps, 1):
        await turn.progress(name, done / total, workflow_id=workflow.id, completed=done, total=total)
        await asyncio.sleep(workflow.interval_ms / 1000)
