"""The agent runner's process: `python -m agent_runner`."""

import sys

from agent_runner import script
from agent_runner.runner import Agent, hold_message
from broker.consume import Delivery, consume
from broker.hold import Folded
from broker.process import Process, main
from contracts import streams
from contracts.session import Session


async def run(process: Process) -> None:
    """Hold messages until told to stop, then give back what is held."""

    def find_agent(session: Session) -> tuple[str, Agent]:
        name = (session.about and session.about.agent) or process.config.default_agent
        return name, script.run

    folded = Folded(Session)

    async def hold(delivery: Delivery) -> None:
        await hold_message(process.broker, delivery, folded, find_agent)

    await consume(process.broker, streams.agent_runner(0), hold, process.stop)


if __name__ == "__main__":
    sys.exit(main("agent_runner", run))
