"""`python -m event_ingest`: take in every tenant's external events until told to stop."""

import asyncio
import sys

from broker.consume import consume
from broker.process import Process, main
from contracts import streams
from event_ingest.ingest import Ingest

PREFETCH = 16
"""How many deliveries of a tenant wait here for their turn, at most."""


async def run(process: Process) -> None:
    """Consume the stream of each tenant of the configuration."""
    ingest = Ingest(process.broker)
    async with asyncio.TaskGroup() as tasks:
        for tenant in process.config.tenants:
            consumer = streams.event_ingest(tenant)
            begun = process.begins(f"consuming {consumer.stream}")
            tasks.create_task(
                consume(process.broker, consumer, ingest.hold, process.stop, most=PREFETCH, begun=begun),
                name=f"ingest-{tenant}",
            )


if __name__ == "__main__":
    sys.exit(main("event_ingest", run))
