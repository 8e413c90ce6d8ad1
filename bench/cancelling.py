"""The scenario `cancelled`: how soon a cancel is everywhere. Its floor is one append and the answer to it."""

import asyncio
import random
import time
from array import array

from bench.client import Pool, connected
from bench.model import PIECES, model_server
from bench.scenarios import Numbers, Scale, percentile, program, warm
from bench.system import System
from bench.turn import Turn

WAYS = {"stalled": False, "streaming": True}


async def cancelled(system: System, scale: Scale) -> Numbers:
    """Turns of the script at 100 deltas a second, and requests to a model, in four sessions each; all are cancelled."""
    numbers = await _floor(system, scale.cancels)
    if system.model_port:
        numbers |= await _scripts(system, scale.cancels)
        for way, goes_on in WAYS.items():
            numbers |= await _requests(system, scale.cancels, way, goes_on)
    return numbers


async def _floor(system: System, count: int) -> Numbers:
    async with connected(system.port, system.tokens, 4) as pool:
        await warm(pool)
        turns = [await pool.sessions[i % 4].run(program(1, 0)) for i in range(count)]
    return _spread("append", array("q", (turn.accepted - turn.sent for turn in turns)))


async def _scripts(system: System, count: int) -> Numbers:
    """Each is cancelled after 5 to 60 deltas."""
    pick = random.Random(1)
    lasts, ends, kept = array("q"), array("q"), 0
    async with connected(system.port, system.tokens, 4) as pool:
        await warm(pool)
        for i in range(count):
            asked, turn = await _cancel(pool, i, program(1000, 10), pick.randint(5, 60))
            lasts.append(max(0, turn.last - asked))
            ends.append(turn.ended - asked)
            kept += turn.status == "cancelled"
    return {"cancelled_percent": 100 * kept / count} | _spread("last_delta", lasts) | _spread("end", ends)


async def _requests(system: System, count: int, way: str, goes_on: bool) -> Numbers:
    """From the cancel to the moment when the model's server sees its connection closed, and to `turn_end`."""
    closes, ends = array("q"), array("q")
    async with (
        model_server(system.model_port) as server,
        connected(system.port, system.tokens, 4, "model") as pool,
    ):
        server.goes_on = goes_on
        for i in range(-4, count):  # the first of each session is not counted
            asked, turn = await _cancel(pool, i, "go on", PIECES)
            if turn.status != "cancelled" or server.latest is None:
                raise RuntimeError(f"a turn of the model ended as {turn.status}")
            async with asyncio.timeout(10):
                left = await server.latest.left
            if i >= 0:
                closes.append(left - asked)
                ends.append(turn.ended - asked)
    return _spread(f"{way}_closed", closes) | _spread(f"{way}_end", ends)


async def _cancel(pool: Pool, i: int, content: str, after: int) -> tuple[int, Turn]:
    """Run a turn and cancel it after so many deltas: when that was, and the turn."""
    session = pool.sessions[i % len(pool.sessions)]
    running = asyncio.create_task(session.run(content, limit=60))
    await asyncio.sleep(0)
    assert session.turn is not None
    await session.turn.reach(after)
    asked = time.monotonic_ns()
    session.cancel()
    return asked, await running


def _spread(name: str, values: "array[int]") -> Numbers:
    return {f"{name}_p50_ms": percentile(values, 50), f"{name}_max_ms": percentile(values, 100)}
