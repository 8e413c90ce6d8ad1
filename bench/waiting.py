"""The scenario `waiting`: thousands of turns that wait for a person. What they cost, and how fast one goes on."""

import asyncio
import http.client
import json
import time
from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from bench import processes
from bench.client import create_sessions
from bench.scenarios import Numbers, Scale, percentile
from bench.system import System

ASKING = json.dumps([{"tool": "demo.note", "arguments": {"text": "x"}}])
CLIENTS = 4
WATCHED = 20.0
"""Seconds over which the cost is measured."""


async def waiting(system: System, scale: Scale) -> Numbers:
    """Every session has one turn, which asks for an approval that nobody gives; then some are given."""
    before = processes.rss_by_role(system.processes())
    share = scale.waiting // CLIENTS
    with ThreadPoolExecutor(CLIENTS) as pool:
        made = list(pool.map(lambda n: _ask(system.port, system.tokens[n], share), range(CLIENTS)))
    sessions = [(system.tokens[n], session_id) for n, ids in enumerate(made) for session_id in ids]
    await _until_asked(system, sessions)
    (broker,) = (process.pid for process in system.processes() if process.role == "nats-server")
    cpu, began, told = processes.cpu_by_role(system.processes()), time.monotonic(), processes.traffic(broker)
    await asyncio.sleep(WATCHED)
    spent = {role: used - cpu.get(role, 0) for role, used in processes.cpu_by_role(system.processes()).items()}
    seconds, heard = time.monotonic() - began, processes.traffic(broker)
    rss = processes.rss_by_role(system.processes())
    woken = array("q")
    for token, session_id in sessions[:: max(1, len(sessions) // scale.woken)]:
        woken.append(await asyncio.to_thread(_approve, system.port, token, session_id))
    numbers: Numbers = {"turns": len(sessions), "woken_p50_ms": percentile(woken, 50)}
    numbers["woken_max_ms"] = percentile(woken, 100)
    for way, after, first in zip(("in", "out"), heard, told, strict=True):
        numbers[f"kib_s_{way}.nats-server"] = (after - first) / 1024 / seconds
    for role in ("agent_runner", "tool_runner", "nats-server"):
        numbers[f"kib.{role}"] = (rss[role] - before[role]) / len(sessions)
        numbers[f"cores.{role}"] = spent[role] / seconds
    return numbers


def _ask(port: int, token: str, count: int) -> list[str]:
    ids = create_sessions(port, token, count)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for session_id in ids:
        _request(connection, "POST", f"/api/v1/sessions/{session_id}/messages", token, {"content": ASKING})
    connection.close()
    return ids


async def _until_asked(system: System, sessions: Sequence[tuple[str, str]]) -> None:
    """The last ones are asked last, or nearly; look at every one of the last hundred."""
    connection = http.client.HTTPConnection("127.0.0.1", system.port, timeout=30)
    for token, session_id in sessions[-100:]:
        for _ in range(600):
            found = await asyncio.to_thread(
                _request, connection, "GET", f"/api/v1/sessions/{session_id}/approvals", token, None
            )
            if found["items"]:
                break
            await asyncio.sleep(0.1)
    await asyncio.sleep(5)  # whoever is asked settles down
    connection.close()


def _approve(port: int, token: str, session_id: str) -> int:
    """Nanoseconds from a decision to the end of its turn."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    path = f"/api/v1/sessions/{session_id}"
    (asked,) = _request(connection, "GET", f"{path}/approvals", token, None)["items"]
    began = time.monotonic_ns()
    _request(connection, "POST", f"{path}/approvals/{asked['tool_call_id']}", token, {"approved": False})
    after = f"{path}/events?after=0&limit=1000"
    while True:
        page = _request(connection, "GET", after, token, None)
        if any(event["type"] == "turn_end" for event in page["events"]):
            return time.monotonic_ns() - began
        time.sleep(0.002)


def _request(connection: http.client.HTTPConnection, method: str, path: str, token: str, body: object) -> dict:  # type: ignore[type-arg]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Accept": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    response = connection.getresponse()
    data = response.read()
    if response.status >= 300:
        raise RuntimeError(f"{method} {path}: {response.status} {data[:200]!r}")
    return json.loads(data)  # type: ignore[no-any-return]
