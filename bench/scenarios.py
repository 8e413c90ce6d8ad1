"""The scenarios: each drives a running system and returns plain numbers.

    first_delta_idle  one turn of one delta at a time: message sent → first delta received
    paced             200 sessions at 20 deltas/s: delta stamped → received, and CPU
    many              2,000 sessions at one delta a second, side by side in one agent_runner, and 5,000 at a quarter
    flat_out          50 sessions without a pace: deltas/s and CPU
    killed            `kill -9` of the agent_runner in mid-stream, one turn after another

Every loop is bounded in count, every turn in time.
"""

import asyncio
import json
import os
import random
import signal
import time
from array import array
from collections.abc import Awaitable, Callable, Iterable

from msgspec import Struct

from bench import processes
from bench.client import Pool, Session, connected
from bench.system import System
from bench.turn import Turn

Numbers = dict[str, float]
SIZE = 20


class Scale(Struct, frozen=True, kw_only=True):
    """How much of everything."""

    idle_turns: int = 300
    rested_turns: int = 100
    paced_sessions: int = 200
    paced_deltas: int = 200
    many: tuple[tuple[int, int, int], ...] = ((2_000, 1000, 20), (5_000, 4000, 10))
    """Sessions, milliseconds from delta to delta, deltas: all of them run at once for ten seconds at least."""
    flat_sessions: int = 50
    flat_deltas: int = 2_000  # an answer stays near 44 kB: `stream_end` carries it whole
    flat_seconds: float = 3.5
    kills: int = 30
    cancels: int = 100
    joins: int = 1_000
    audiences: tuple[int, ...] = (100, 1_000)
    fan_deltas: int = 100
    idle_sockets: int = 2_000
    drops: int = 1_000
    drop_sessions: int = 50
    stall_pairs: int = 500
    waiting: int = 10_000
    waiting_full: int = 200
    woken: int = 20
    facts: tuple[int, ...] = (100, 25_000, 100_000)  # a conversation fills its budget at 20,000
    wakes: int = 20
    stall_turns: int = 3  # 300 kB each: more than what stands between an edge and a client that does not read


QUICK = Scale(
    idle_turns=60,
    rested_turns=20,
    paced_deltas=60,
    flat_seconds=1.0,
    kills=3,
    cancels=10,
    joins=100,
    audiences=(20,),
    fan_deltas=20,
    idle_sockets=100,
    drops=100,
    drop_sessions=10,
    stall_pairs=20,
    stall_turns=1,
    waiting=400,
    waiting_full=20,
    woken=5,
    many=((100, 1000, 20),),
    facts=(100, 2_000),
    wakes=3,
)


async def first_delta_idle(system: System, scale: Scale) -> Numbers:
    """Turns of one delta over four sessions: back to back, then with 20 ms of rest before each."""
    async with connected(system.port, system.tokens, 4) as pool:
        await warm(pool)
        usage = Usage(system)
        close = [await _nth(pool, i, 0.0) for i in range(scale.idle_turns)]
        rested = [await _nth(pool, i, 0.02) for i in range(scale.rested_turns)]
        waits = array("q", (turn.first - turn.sent for turn in close if turn.first))
        rested_waits = array("q", (turn.first - turn.sent for turn in rested if turn.first))
        return (
            {
                "p50_ms": percentile(waits, 50),
                "p99_ms": percentile(waits, 99),
                "rested_p50_ms": percentile(rested_waits, 50),
                "turn_p50_ms": percentile(array("q", (t.ended - t.sent for t in close)), 50),
            }
            | usage.foreign()
            | faults(close + rested, pool, 1)
        )


async def _nth(pool: Pool, i: int, rest: float) -> Turn:
    await asyncio.sleep(rest)
    return await pool.sessions[i % len(pool.sessions)].run(program(1, 0))


async def paced(system: System, scale: Scale) -> Numbers:
    """Turns at 20 deltas/s that begin at random moments of one second."""
    return await _paced(system, scale.paced_sessions, scale.paced_deltas, 50, 1)


async def many(system: System, scale: Scale) -> Numbers:
    """Thousands of turns at the same time, each slow; 200 of them begin in a second."""
    numbers: Numbers = {}
    for sessions, interval_ms, deltas in scale.many:
        measured = await _paced(system, sessions, deltas, interval_ms, sessions / 200)
        numbers |= {f"{sessions}.{key}": value for key, value in measured.items()}
    return numbers


async def _paced(system: System, sessions: int, deltas: int, interval_ms: int, spread: float) -> Numbers:
    async with connected(system.port, system.tokens, sessions) as pool:
        await warm(pool)
        delay = random.Random(1)
        usage, begin = Usage(system), time.monotonic()

        async def one(session: Session) -> Turn:
            await asyncio.sleep(delay.random() * spread)
            return await session.run(program(deltas, interval_ms), limit=180)

        turns = await asyncio.gather(*map(one, pool.sessions))
        latencies = {f"p{p}_ms": percentile(pool.latencies, p) for p in (50, 99)}
        received = sum(turn.received for turn in turns)
        rate = {"deltas_per_s": received / (time.monotonic() - begin)}
        return latencies | rate | usage.per_million(received) | faults(turns, pool, deltas)


async def flat_out(system: System, scale: Scale) -> Numbers:
    """Turns without a pace, back to back in every session until the time is over."""
    async with connected(system.port, system.tokens, scale.flat_sessions) as pool:
        await warm(pool)
        usage = Usage(system)
        begin = time.monotonic()

        async def one(session: Session) -> list[Turn]:
            turns: list[Turn] = []
            while time.monotonic() - begin < scale.flat_seconds and len(turns) < 1000:
                turns.append(await session.run(program(scale.flat_deltas, 0), limit=60))
            return turns

        turns = [turn for done in await asyncio.gather(*map(one, pool.sessions)) for turn in done]
        seconds = time.monotonic() - begin
        deltas = sum(turn.received for turn in turns)
        frames = sum(turn.frames for turn in turns)
        rate = {"deltas_per_s": deltas / seconds, "deltas_per_frame": deltas / max(1, frames)}
        return rate | usage.per_million(deltas) | faults(turns, pool, scale.flat_deltas)


async def killed(system: System, scale: Scale) -> Numbers:
    """Turns of a second each; after 5 to 60 of 100 deltas every agent_runner gets SIGKILL."""
    pick = random.Random(1)
    turns: list[Turn] = []
    takeovers = array("q")
    async with connected(system.port, system.tokens, 1) as pool:
        session = pool.sessions[0]
        await warm(pool)
        for _ in range(scale.kills):
            running = asyncio.create_task(session.run(program(100, 10), limit=60))
            await asyncio.sleep(0)
            turn, enough = session.turn, pick.randint(5, 60)
            assert turn is not None
            await turn.reach(enough)
            runners = [p.pid for p in system.processes() if p.role == "agent_runner"]
            kill_at = time.monotonic_ns()
            for pid in runners:
                os.kill(pid, signal.SIGKILL)
            turns.append(await running)
            takeovers.extend([at - kill_at for at in turn.starts if at > kill_at][:1])
        return {
            "turns": len(turns),
            "completed_percent": 100 * sum(t.status == "completed" for t in turns) / len(turns),
            "clean_percent": 100 * sum(t.is_clean(100) for t in turns) / len(turns),
            "resets": sum(turn.resets for turn in turns),
            "takeover_p50_ms": percentile(takeovers, 50),
            "takeover_max_ms": percentile(takeovers, 100),
        } | faults(turns, pool, 100)


SCENARIOS: dict[str, Callable[[System, Scale], Awaitable[Numbers]]] = {
    "first_delta_idle": first_delta_idle,
    "paced": paced,
    "many": many,
    "flat_out": flat_out,
    "killed": killed,
}


class Usage:
    """CPU of the system's processes, of this client and of the rest of the machine, from now on."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._before = self._read()
        self._begin = time.monotonic()

    def per_million(self, deltas: int) -> Numbers:
        """CPU seconds per million deltas: in all, by role and the client's; memory in KiB."""
        spent, scale = self._spent(), 1e6 / max(1, deltas)
        client, _ = spent.pop("client"), spent.pop("machine")
        memory = processes.rss_by_role(self._system.processes())
        return {
            "cpu_s_per_million": sum(spent.values()) * scale,
            **{f"cpu_s_per_million.{role}": used * scale for role, used in sorted(spent.items())},
            "cpu_s_per_million_of_client": client * scale,
            **{f"rss_kib.{role}": float(kib) for role, kib in sorted(memory.items())},
        } | self.foreign()

    def foreign(self) -> Numbers:
        """How many cores were busy with neither the system nor the client: the noise."""
        spent, seconds = self._spent(), time.monotonic() - self._begin
        rest = 2 * spent["machine"] - sum(spent.values())
        return {"foreign_cores_busy": max(0.0, rest / seconds)}

    def _spent(self) -> Numbers:
        return {role: used - self._before.get(role, 0.0) for role, used in self._read().items()}

    def _read(self) -> Numbers:
        mine = {"client": time.process_time(), "machine": processes.busy()}
        return processes.cpu_by_role(self._system.processes()) | mine


def program(deltas: int, interval_ms: int, size: int = SIZE) -> str:
    """The content of a message that asks the scripted agent for `deltas` deltas."""
    return json.dumps([{"stream": {"deltas": deltas, "interval_ms": interval_ms, "size": size}}])


async def warm(pool: Pool) -> None:
    """One short turn in every session, which is not counted. A few hundred at a time: all of them are to end."""
    for start in range(0, len(pool.sessions), 200):
        await asyncio.gather(*(session.run(program(2, 0)) for session in pool.sessions[start : start + 200]))
    del pool.latencies[:]


def faults(turns: Iterable[Turn], pool: Pool, deltas: int) -> Numbers:
    """What must be zero: turns that are not clean, deltas lost or repeated, stray frames."""
    turns = list(turns)
    return {
        "unclean": sum(not turn.is_clean(deltas) for turn in turns),
        "lost": sum(turn.lost for turn in turns),
        "repeated": sum(turn.repeated for turn in turns),
        "strays": pool.strays,
    }


def percentile(values: "array[int]", p: float) -> float:
    """The nearest-rank percentile of nanoseconds, in ms; NaN of nothing."""
    if not values:
        return float("nan")
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * p / 100))] / 1e6
