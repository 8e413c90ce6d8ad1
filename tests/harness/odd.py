"""Agents that go wrong in ways of their own."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from agent_runner.turn import Turn


class Panic(BaseException):
    """As extensions in Rust raise it."""


async def odd(turn: Turn) -> None:
    """As the message says."""
    nothing: Any = None
    match turn.message.content:
        case "panic":
            raise Panic
        case "exit":
            sys.exit()
        case "exit beside":
            await asyncio.gather(turn.step("a", sys.exit), turn.step("b", int))
        case "search":
            await turn.step("find", lambda: next(iter([])))
        case "cancel":
            task = asyncio.create_task(asyncio.Event().wait())
            task.cancel()
            await task
        case "no arguments":
            await turn.call("demo.add", nothing)
        case "half a step":
            half: Any = 0.5
            await turn.progress("x", 0.5, completed=half)
        case "wait":
            await turn.say("waiting")
            await asyncio.Event().wait()
        case "swallow":
            with suppress(asyncio.CancelledError):
                await turn.say(_slowly(turn))
        case _:
            await turn.say("hello")


async def _slowly(turn: Turn) -> AsyncIterator[str]:
    is_first = not turn._journal.turn.answers
    yield "half "
    if is_first:
        await asyncio.Event().wait()
    yield "whole"


async def grouped(turn: Turn) -> None:
    """Asks, in a TaskGroup; or works for as long as it may."""
    if turn.message.content == "work":
        await turn.say("working")
        await asyncio.Event().wait()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_noted(turn))


async def _noted(turn: Turn) -> None:
    note = await turn.call("demo.note", {"text": "x"})
    await turn.say(f"the note is {note.status}")
