"""The edge's process: `python -m edge`."""

import asyncio
import sys

from broker.process import Process, main
from broker.serve import listen, serving
from broker.settings import SettingsError
from edge import app
from edge.desk import Desk
from edge.identity import Identity, Redaction
from edge.protocol import protocols


async def run(process: Process) -> None:
    """Serve until told to stop; then say goodbye to the clients, who reconnect elsewhere with their cursors."""
    settings = process.settings
    Redaction.install()
    try:
        identity = Identity.open(process.broker, process.config.auth, settings.jwt_secret_file)
    except (OSError, ValueError) as error:
        raise SettingsError(f"MILLRACE_JWT_SECRET_FILE or [auth]: {error}") from None
    desk = Desk(process, identity)
    try:
        listener = listen(settings.host, settings.port or 8000)
    except OSError as error:
        raise SettingsError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from None
    process.checks["stopping"] = lambda: not process.stop.is_set()
    options = protocols(settings, process.config.limits)
    running = asyncio.create_task(desk.run(), name="desk")
    stopping = asyncio.create_task(process.stop.wait(), name="stop")
    try:
        async with serving(app.create(desk, process.readiness), listener, **options):
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            await desk.drain()
    finally:
        stopping.cancel()
        if not running.cancel():
            running.result()  # it never ends by itself: why it did is why the process does


if __name__ == "__main__":
    sys.exit(main("edge", run, own_http=True))
