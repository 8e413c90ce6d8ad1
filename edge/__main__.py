"""The edge's process: `python -m edge`."""

import asyncio
import sys

from broker.process import Process, main
from broker.serve import listen, serving
from broker.settings import SettingsError
from edge import app
from edge.auth import Verifier
from edge.desk import Desk
from edge.protocol import EdgeWebSocket


async def run(process: Process) -> None:
    """Serve until told to stop; then close the sockets, who reconnect elsewhere with their cursors."""
    settings = process.settings
    try:
        verifier = Verifier.from_file(settings.jwt_secret_file)
    except (OSError, ValueError) as error:
        raise SettingsError(f"MILLRACE_JWT_SECRET_FILE: {error}") from None
    desk = Desk(process, verifier)
    try:
        listener = listen(settings.host, settings.port or 8000)
    except OSError as error:
        raise SettingsError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from None
    options = {
        "ws": EdgeWebSocket,
        "ws_max_size": process.config.limits.frame_bytes,
        "ws_per_message_deflate": False,
        "ws_ping_interval": settings.heartbeat_interval,
        "ws_ping_timeout": None,
    }
    verify = asyncio.create_task(desk.feeds.verify(), name="verify-feeds")
    try:
        async with serving(app.create(desk, process.readiness), listener, **options):
            await process.stop.wait()
    finally:
        verify.cancel()


if __name__ == "__main__":
    sys.exit(main("edge", run, own_http=True))
