"""The scenario `woken`: what it costs to go on with a session, by how much has happened in it."""

import os
import signal
from array import array

from bench.client import Session, connected
from bench.scenarios import Numbers, Scale, percentile
from bench.system import System

FACTS_OF_A_TURN = 50
"""What a turn of the past left in the log: some from its message to its end, the rest steps of a workflow."""

FIXED = 5
WORDS = "some words " * 20


async def woken(system: System, scale: Scale) -> Numbers:
    """Message sent → first delta of an agent that was shown the conversation.

    `warm`: by a runner that has the session in memory. `cold`: by one that was just started, from what is kept.
    """
    numbers: Numbers = {}
    async with connected(system.port, system.tokens, len(scale.facts) + 1, "reading") as pool:
        other, *sessions = pool.sessions
        for session, facts in zip(sessions, scale.facts, strict=True):
            for _ in range(facts // FACTS_OF_A_TURN):
                await _turn(session, FACTS_OF_A_TURN - FIXED)
            numbers[f"warm_{facts}_p50_ms"] = percentile(array("q", [await _turn(session) for _ in range(50)]), 50)
        waits = {facts: array("q") for facts in scale.facts}
        for _ in range(scale.wakes):
            for runner in (p.pid for p in system.processes() if p.role == "agent_runner"):
                os.kill(runner, signal.SIGKILL)
            for _ in range(3):
                await _turn(other)  # until there is a runner again, and what every first turn costs was paid
            for session, facts in zip(sessions, scale.facts, strict=True):
                waits[facts].append(await _turn(session))
        for facts, cold in waits.items():
            numbers |= {f"cold_{facts}_p50_ms": percentile(cold, 50), f"cold_{facts}_max_ms": percentile(cold, 100)}
    return numbers


async def _turn(session: Session, facts: int = 0) -> int:
    """Nanoseconds to the first delta."""
    turn = await session.run(f"{facts} {WORDS}")
    if turn.status != "completed" or not turn.first:
        raise RuntimeError(f"a turn ended as {turn.status}")
    return turn.first - turn.sent
