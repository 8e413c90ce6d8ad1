"""The tool runner's process: `python -m tool_runner`."""

import asyncio
import sys

from broker.consume import ack_wait, consume
from broker.delivery import Delivery
from broker.folded import Folded
from broker.process import Process, main
from contracts import streams
from contracts.kept import session_of
from contracts.session import Session
from tool_runner.listing import Lister
from tool_runner.runner import Tools, hold_call
from tool_runner.servers import Servers


async def run(process: Process) -> None:
    """Hold tool calls until told to stop, then let go of what is held."""
    consumer = streams.tool_runner(0)
    begun = process.begins("consuming")
    wait = await ack_wait(process.broker, consumer.stream, consumer.durable)
    lister = Lister(process.broker)
    async with Servers(process.config.servers, told=lister.told) as servers, asyncio.TaskGroup() as tasks:
        listing = tasks.create_task(lister.run(), name="listing")
        folded = Folded(Session, process.settings.states_bytes, again=session_of)
        tools = Tools(process.config, servers, folded, wait)

        async def hold(delivery: Delivery) -> None:
            await hold_call(process.broker, delivery, tools)

        await consume(process.broker, consumer, hold, process.stop, begun=begun)
        listing.cancel()


if __name__ == "__main__":
    sys.exit(main("tool_runner", run))
