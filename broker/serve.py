"""Serving HTTP inside a process that has its own signal handling and its own order of shutdown."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn

CLOSING = 1
"""Seconds that open requests have when the server is told to end; the longest a shutdown waits."""

SEND_BUFFER = 128 * 1024
"""Bytes that the kernel keeps for one client; left to itself it takes 4 MB for one that reads nothing."""

UNACKNOWLEDGED = 30_000
"""Milliseconds after which the kernel gives a connection up that takes nothing (tcp(7), TCP_USER_TIMEOUT)."""


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any. Raises OSError where the port is in use.

    What it accepts has bounds for a client that stops reading and never closes.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED)
    return listener


@asynccontextmanager
async def serving(app: Any, listener: socket.socket, **options: Any) -> AsyncIterator[None]:
    """Serve `app` on `listener` until the block ends. `options` are uvicorn's.

    The access log is off: paths carry tokens.
    """
    defaults = {
        "log_config": None,
        "access_log": False,
        "log_level": "warning",
        "lifespan": "off",
        "server_header": False,
        "timeout_graceful_shutdown": CLOSING,
    }
    server = _Server(uvicorn.Config(app, **{**defaults, **options}))
    running = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    try:
        yield
    finally:
        server.should_exit = True
        await running
