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
FILLING = json.dumps([{"stream": {"deltas": 40, "size": 800}}])
FILLINGS = 4
"""Answers of 8,000 tokens, as many as an agent is shown by default, which is what is kept of a session."""

CLIENTS = 4
WATCHED = 20.0
"""Seconds over which the cost is measured."""


async def waiting(system: System, scale: Scale) -> Numbers:
    """Every session has one turn, which asks for an approval that nobody gives; then some are given."""
    return await _waiting(system, scale, scale.waiting, (ASKING,))


async def waiting_full(system: System, scale: Scale) -> Numbers:
    """Likewise, at the end of a conversation that is as long as one can be that the agent is shown whole."""
    return await _waiting(system, scale, scale.waiting_full, (*[FILLING] * FILLINGS, ASKING))


async def _waiting(system: System, scale: Scale, count: int, contents: tuple[str, ...]) -> Numbers:
    before = processes.rss_by_role(system.processes())
    with ThreadPoolExecutor(CLIENTS) as pool:
        made = list(pool.map(lambda n: _ask(system.port, system.tokens[n], count // CLIENTS, contents), range(CLIENTS)))
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


def _ask(port: int, token: str, count: int, contents: Sequence[str]) -> list[str]:
    ids = create_sessions(port, token, count)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for said, content in enumerate(contents):
        for session_id in ids:
            path = f"/api/v1/sessions/{session_id}/messages"
            while said and len(_request(connection, "GET", path, token, None)["messages"]) < 2 * said:
                time.sleep(0.01)  # what was asked before is not answered yet
            _request(connection, "POST", path, token, {"content": content})
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
    told = _request(connection, "GET", f"{path}/events?after=0&limit=1000", token, None)["events"]
    after = f"{path}/events?after={told[-1]['cursor']}&limit=1000"
    began = time.monotonic_ns()
    _request(connection, "POST", f"{path}/approvals/{asked['tool_call_id']}", token, {"approved": False})
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
