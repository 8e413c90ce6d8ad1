"""The agent runner's process: `python -m agent_runner`."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

from agent_runner.agents import Agents
from agent_runner.catalogue import Tools
from agent_runner.conversation import ROOM
from agent_runner.runner import hold_message
from agent_runner.state import State
from broker.consume import consume
from broker.delivery import Delivery
from broker.folded import Folded
from broker.process import Process, main
from broker.settings import Settings, SettingsError
from contracts import streams
from contracts.config import Config

THREADS = 256
"""Steps that are plain functions and run at once. By default they are few: some that hang would hold up all others."""


def _folded(config: Config, most: int) -> Folded[State]:
    """Begun from what is kept beside the log. A state has room for the largest prompt of any agent."""
    room = max([ROOM, *(4 * agent.context_tokens for agent in config.agents.values())])
    return Folded(
        lambda: State.empty(room), most, again=lambda stored, epoch: State.again(stored, epoch, room), kept=State.kept
    )


def served(settings: Settings, config: Config) -> tuple[str, ...]:
    """The groups of agents that this process runs. Raises SettingsError."""
    for name in settings.group_names:
        if name not in config.groups:
            known = ", ".join(config.groups)
            raise SettingsError(
                f"MILLRACE_GROUPS={settings.groups}: no agent is in the group {name} (there are: {known})"
            )
    return settings.group_names or tuple(config.groups)


async def run(process: Process) -> None:
    """Hold messages until told to stop, then give back what is held."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "step"))
    agents = Agents(process.config, Tools(process.broker, process.config.servers).offered)
    folded = _folded(process.config, process.settings.states_bytes)
    groups = served(process.settings, process.config)
    agents.load(groups)

    async def hold(delivery: Delivery) -> None:
        await hold_message(process.broker, delivery, folded, agents)

    try:
        async with asyncio.TaskGroup() as tasks:
            for group in groups:
                consumer, most = streams.agent_runner(group=group), process.config.groups[group].turns
                begun = process.begins(f"consuming {consumer.durable}")
                consuming = consume(process.broker, consumer, hold, process.stop, most=most, begun=begun)
                tasks.create_task(consuming, name=consumer.durable)
    finally:
        await agents.aclose()


if __name__ == "__main__":
    sys.exit(main("agent_runner", run))
