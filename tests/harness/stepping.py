"""An agent in Python for the crash tests: recorded steps around a tool call and an answer."""

from agent_runner.turn import Turn


async def stepping(turn: Turn) -> None:
    """Two steps, a call and an answer that says what they came to."""
    first = await turn.step("first", lambda: 2)
    result = await turn.call("demo.add", {"a": first, "b": 3})
    second = await turn.step("second", lambda: [first, result.status])
    await turn.say(f"{second}")
