"""An agent in Python that tells how much of the conversation it was shown."""

import time

from agent_runner.turn import Turn


async def reading(turn: Turn) -> None:
    """Record as many facts as the message begins with, then build the prompt and say one delta."""
    count = int(turn.message.content.split()[0])
    for number in range(count):
        await turn.progress(f"step {number}", number / count)
    entries = len(turn.conversation())
    await turn.say(f"0 {time.monotonic_ns()} {entries} entries\n")
