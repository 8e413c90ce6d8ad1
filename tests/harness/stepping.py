"""Agents in Python for the crash tests, and what each says."""

import json
from collections.abc import Callable

from agent_runner.turn import Turn


async def stepping(turn: Turn) -> None:
    """Two steps, a call and an answer that says what they came to."""
    first = await turn.step("first", lambda: 2)
    result = await turn.call("demo.add", {"a": first, "b": 3})
    second = await turn.step("second", lambda: [first, result.status])
    await turn.say(f"{second}")


async def pairing(turn: Turn) -> None:
    """Calls side by side, one of which somebody may have to allow, and an answer that says how each went."""
    content = turn.message.content
    notes = [("demo.note", step) for step in json.loads(content)] if content.startswith("[") else []
    results = await turn.call_all([("demo.slow", {"seconds": 0.3}), *notes, ("demo.add", {"a": 1, "b": 2})])
    await turn.say(" ".join(result.status for result in results))


SAYS: dict[str, Callable[[list[str]], str]] = {
    "stepping": lambda statuses: f"[2, {' '.join(statuses)!r}]",
    "pairing": " ".join,
}
"""What a turn of each says when it is completed, from how its calls went, in order."""
