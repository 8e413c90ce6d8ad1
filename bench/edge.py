"""The edge's scenarios.

joins       1,000 sockets to 1,000 sessions at once: time to ready, to the first byte, and who got in
fan_out     one session's deltas to 100 and to 1,000 sockets: delta stamped → received
idle        2,000 sockets that do nothing: memory of the edge for each
drops       1,000 connections dropped in mid-stream, each resumed with its cursor: what is lost, and how long it takes
stalled     500 clients that stop reading beside 500 that do: latency of the latter, memory of the edge
"""

import asyncio
import random
from array import array

from bench import processes
from bench.client import create_sessions
from bench.scenarios import Numbers, Scale, percentile, program
from bench.system import System
from bench.watcher import Watcher, close, watch

STALL_DELTAS, STALL_SIZE = 40, 7_500
"""Two a second to each session, of so many bytes."""


async def joins(system: System, scale: Scale) -> Numbers:
    """All at once; none waits for another."""
    sessions = await _sessions(system, scale.joins)
    found = await asyncio.gather(
        *(watch(system.port, token, session_id, array("q")) for token, session_id in sessions), return_exceptions=True
    )
    joined = [watcher for watcher in found if isinstance(watcher, Watcher)]
    ready = array("q", (watcher.joined - watcher.began for watcher in joined))
    first = array("q", (watcher.first_byte - watcher.began for watcher in joined))
    close(joined)
    return {
        "joined_percent": 100 * len(joined) / scale.joins,
        "ready_p50_ms": percentile(ready, 50),
        "ready_p99_ms": percentile(ready, 99),
        "first_byte_max_ms": percentile(first, 100),
    }


async def fan_out(system: System, scale: Scale) -> Numbers:
    """20 deltas a second to so many sockets of one session."""
    numbers: Numbers = {}
    for count in scale.audiences:
        latencies = array("q")
        [(token, session_id)] = await _sessions(system, 1)
        watchers = [await watch(system.port, token, session_id, latencies) for _ in range(count)]
        watchers[0].say(program(scale.fan_deltas, 50))
        await asyncio.gather(*(watcher.ended.wait() for watcher in watchers))
        numbers |= {
            f"fan_{count}_p50_ms": percentile(latencies, 50),
            f"fan_{count}_p99_ms": percentile(latencies, 99),
            f"fan_{count}_missing": count * scale.fan_deltas - len(latencies),
        }
        close(watchers)
    return numbers


async def idle(system: System, scale: Scale) -> Numbers:
    """Sockets that have joined and are silent, one a session."""
    sessions = await _sessions(system, scale.idle_sockets)
    before = _edge_kib(system)
    watchers = [await watch(system.port, token, session_id, array("q")) for token, session_id in sessions]
    await asyncio.sleep(2.0)  # what joining needed is given back
    after = _edge_kib(system)
    close(watchers)
    return {"kib_per_idle_socket": (after - before) / scale.idle_sockets, "edge_kib": after}


async def drops(system: System, scale: Scale) -> Numbers:
    """Each session streams; its socket is dropped at a random delta and comes back with its cursor."""
    sessions = await _sessions(system, scale.drop_sessions)
    each = scale.drops // scale.drop_sessions
    pick, caught_up = random.Random(1), array("q")

    async def one(token: str, session_id: str) -> tuple[int, int, int]:
        watcher = await watch(system.port, token, session_id, array("q"))
        ids, begun = watcher.ids, watcher.cursor
        watcher.say(program(each * 40, 10))
        for _ in range(each):
            await watcher.after(watcher.deltas + pick.randint(5, 25))
            watcher.close()
            seen = watcher.cursor
            watcher = await watch(system.port, token, session_id, array("q"), seen)
            caught_up.append(watcher.joined - watcher.began)
            ids += watcher.ids
            watcher.ids = ids
        await watcher.ended.wait()
        watcher.close()
        whole = await watch(system.port, token, session_id, array("q"), begun)
        whole.close()
        return len(set(whole.ids) - set(ids)), len(ids) - len(set(ids)), int(ids != whole.ids)

    faults = await asyncio.gather(*(one(*session) for session in sessions))
    lost, repeated, reordered = (sum(column) for column in zip(*faults, strict=True))
    return {
        "dropped": len(caught_up),
        "drop_lost": lost,
        "drop_repeated": repeated,
        "drop_reordered": reordered,
        "caught_up_p50_ms": percentile(caught_up, 50),
        "caught_up_p99_ms": percentile(caught_up, 99),
    }


async def stalled(system: System, scale: Scale) -> Numbers:
    """Every session has one socket that reads and one that stopped; first without the latter, then with them."""
    sessions = await _sessions(system, scale.stall_pairs)
    numbers: Numbers = {}
    healthy_latencies = array("q")
    healthy = [await watch(system.port, token, session_id, healthy_latencies) for token, session_id in sessions]
    still: list[Watcher] = []
    for name in ("alone", "beside"):
        if name == "beside":
            still = [await watch(system.port, token, session_id, array("q")) for token, session_id in sessions]
            for watcher in still:
                watcher.stall()
        before = _edge_kib(system)
        del healthy_latencies[:]
        for _ in range(scale.stall_turns):
            for watcher in healthy:
                watcher.ended.clear()
                watcher.say(program(STALL_DELTAS, 500, STALL_SIZE))
            await asyncio.gather(*(watcher.ended.wait() for watcher in healthy))
        numbers |= {
            f"healthy_{name}_p50_ms": percentile(healthy_latencies, 50),
            f"healthy_{name}_p99_ms": percentile(healthy_latencies, 99),
            f"edge_{name}_grew_kib": _edge_kib(system) - before,
        }
    close([*healthy, *still])
    return numbers


async def _sessions(system: System, count: int) -> list[tuple[str, str]]:
    share = -(-count // len(system.tokens))
    found: list[tuple[str, str]] = []
    for token in system.tokens:
        wanted = min(share, count - len(found))
        ids = await asyncio.to_thread(create_sessions, system.port, token, wanted)
        found += [(token, session_id) for session_id in ids]
    return found


def _edge_kib(system: System) -> float:
    return float(processes.rss_by_role(system.processes()).get("edge", 0))
