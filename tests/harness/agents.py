"""Agents in Python for the tests. What they do outside the log is a line in the file `$AGENTS_TEST_EFFECTS`."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from agent_runner.turn import Turn


def effect(line: str) -> str:
    """Something done outside the log."""
    with Path(os.environ["AGENTS_TEST_EFFECTS"]).open("a") as file:
        file.write(line + "\n")
    return line


async def worker(turn: Turn) -> None:
    """Steps, an answer in pieces, a tool, progress, another answer; version 2 does them in another order."""
    if os.environ.get("AGENTS_TEST_VERSION") == "2":
        await turn.say("another code\n")
    first = await turn.step("first", lambda: {"n": len(effect("first"))})
    await turn.progress("half", 0.5)
    await turn.say(_slowly(f"n={first['n']} "))
    note = await turn.call("demo.note", {"text": "noted"})
    await turn.step("second", _second)
    await turn.progress("done", 1.0)
    await turn.say(f"{note.status}\n")


async def _second() -> None:
    await asyncio.sleep(0)
    effect("second")


async def _slowly(text: str) -> AsyncIterator[str]:
    for word in (text, "and ", "more"):
        yield word
        await asyncio.sleep(0.02)


async def place(turn: Turn) -> None:
    """Tells which groups its process serves."""
    await turn.say(os.environ.get("MILLRACE_GROUPS", "every"))


async def computing(turn: Turn) -> None:
    """Holds up its whole process, until a file is there; tells which process that was."""
    folder = Path(turn.message.content)
    (folder / turn.message.message_id).touch()
    while not (folder / "done").exists():
        time.sleep(0.01)  # noqa: ASYNC251 - what it is for
    await turn.say(str(os.getpid()))


async def noting(turn: Turn) -> None:
    """Notes something, which somebody may have to allow, and then works in a thread until a file is there."""
    folder = Path(turn.message.content)

    def work() -> None:
        (folder / turn.message.message_id).touch()
        while not (folder / "done").exists():
            time.sleep(0.01)

    await turn.call("demo.note", {"text": str(folder)})
    await turn.step("work", work)
    await turn.say("done")


async def parallel(turn: Turn) -> None:
    """Two calls side by side."""
    results = await turn.call_all([("demo.add", {"a": 1, "b": 2}), ("demo.fail", {"text": "no"})])
    await turn.say(" ".join(f"{result.status}:{result.result or result.code}" for result in results))


async def reader(turn: Turn) -> None:
    """Tells what was said in the session."""
    await turn.say("|".join(f"{type(entry).__name__} {entry.content}" for entry in turn.conversation()))


async def faulty(turn: Turn) -> None:
    """Fails in the way that it is asked to."""
    how = turn.message.content
    if how == "die speaking":
        await turn.say(_last_words())
    await turn.say("before ")
    if how == "raise":
        raise ValueError("a secret")
    if how == "exit":
        raise SystemExit(3)
    if how == "unrecordable":
        await turn.step("bad", object)
    if how == "forbidden":
        await turn.call("demo.add", {"a": 1, "b": 2})
    if how == "deep":
        deep: dict[str, object] = {}
        for _ in range(2000):
            deep = {"d": deep}
        await turn.call("demo.note", deep)
    if how == "timeout":
        async with asyncio.timeout(0):
            await asyncio.sleep(10)
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    await turn.say("after")


async def _last_words() -> AsyncIterator[str]:
    yield "half"
    os.kill(os.getpid(), signal.SIGKILL)


async def endless(turn: Turn) -> None:
    """Never ends by itself: floods, loops over a tool, or waits."""
    match turn.message.content:
        case "flood":
            await turn.say(_flood())
        case "caught":
            await _caught(turn)
        case "loop":
            while True:
                await turn.call("demo.add", {"a": 1, "b": 2})
        case "stubborn":
            await turn.say("stubborn")
            while not turn.cancelled:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    effect("cancelled")
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    effect("still here")
        case _:
            try:
                await turn.say("waiting")
                await asyncio.sleep(3600)
            finally:
                effect("cleaned up")


async def _caught(turn: Turn) -> None:
    while True:
        with suppress(Exception):
            await turn.say("flood " * 200)


async def _flood() -> AsyncIterator[str]:
    while True:
        yield "flood " * 200


async def steered(turn: Turn) -> None:
    """Works until it is steered; tells what it was told."""
    await turn.say("working\n")
    told: list[str] = []
    while "stop" not in told:
        told += [steer.content for steer in await turn.steers()]
        await asyncio.sleep(0.02)
    await turn.say(",".join(told))


async def redirected(turn: Turn) -> None:
    """Waits until it is steered, does a step, looks once more; tells what it found at either look."""
    await turn.say("working\n")
    found: list[str] = []
    while not found:
        found += [steer.content for steer in await turn.steers()]
        await asyncio.sleep(0.02)
    await turn.step("between", lambda: effect("between"))
    more = [steer.content for steer in await turn.steers()]
    await turn.say(f"{','.join(found)}|{','.join(more)}")


async def beside(turn: Turn) -> None:
    """Two steps side by side, begun in the order that the message says."""
    work = {"quick": lambda: effect("quick"), "slow": _slow}
    names = turn.message.content.split()
    await turn.say(" ".join(await asyncio.gather(*(turn.step(name, work[name]) for name in names))))


async def _slow() -> str:
    """Hangs when it is done for the first time."""
    if _is_first("slow"):
        await asyncio.Event().wait()
    return "slow"


def _is_first(line: str) -> bool:
    effect(line)
    return Path(os.environ["AGENTS_TEST_EFFECTS"]).read_text().split().count(line) == 1
