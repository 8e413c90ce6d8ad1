"""A service with nothing to do, for tests of what surrounds it: its arguments are NAME MODE."""

import asyncio
import sys

from broker import telemetry
from broker.process import Process, main
from broker.settings import SettingsError


async def wait(process: Process) -> None:
    """Stop when told to."""
    print("running", flush=True)
    await process.stop.wait()
    print("stopped", flush=True)


async def deaf(process: Process) -> None:
    """Never stop."""
    print("running", flush=True)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        print("cancelled", flush=True)
        raise


async def fail(process: Process) -> None:
    """Fail."""
    raise RuntimeError("it failed")


async def leave(process: Process) -> None:
    """Return although nobody asked."""


async def refuse(process: Process) -> None:
    """Do not like a setting."""
    raise SettingsError("MILLRACE_CONFIG: this service does not like it")


async def oversize(process: Process) -> None:
    """Send more than the server takes: it closes the connection, and nats-py never reconnects."""
    client = process.broker.client
    client._max_payload = 1 << 30
    await client.publish("live.too-much", b"x" * (16 << 20))
    await process.stop.wait()
    print("stopped", flush=True)


async def trace(process: Process) -> None:
    """Make one span."""
    with telemetry.tracer.start_as_current_span("work"):
        print("running", flush=True)
    await process.stop.wait()


MODES = {run.__name__: run for run in (wait, deaf, fail, leave, refuse, oversize, trace)}

if __name__ == "__main__":
    name, mode = sys.argv[1:]
    sys.exit(main(name, MODES[mode]))
