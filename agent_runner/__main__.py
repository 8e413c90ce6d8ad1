"""The agent runner's process: `python -m agent_runner`."""

import sys

from agent_runner.agents import Agents
from agent_runner.catalogue import Tools
from agent_runner.conversation import ROOM
from agent_runner.runner import hold_message
from agent_runner.state import State
from broker.consume import Delivery, consume
from broker.folded import Folded
from broker.process import Process, main
from contracts import streams
from contracts.config import Config


def _folded(config: Config) -> Folded[State]:
    """Begun from what is kept beside the log. A state has room for the largest prompt of any agent."""
    room = max([ROOM, *(4 * agent.context_tokens for agent in config.agents.values())])
    return Folded(
        lambda: State.empty(room), again=lambda stored, epoch: State.again(stored, epoch, room), kept=State.kept
    )


async def run(process: Process) -> None:
    """Hold messages until told to stop, then give back what is held."""
    agents, folded = (
        Agents(process.config, Tools(process.broker, process.config.servers).offered),
        _folded(process.config),
    )
    agents.load(agent.group for agent in process.config.agents.values())

    async def hold(delivery: Delivery) -> None:
        await hold_message(process.broker, delivery, folded, agents)

    try:
        await consume(process.broker, streams.agent_runner(), hold, process.stop)
    finally:
        await agents.aclose()


if __name__ == "__main__":
    sys.exit(main("agent_runner", run))
