"""Asking a service whether it is ready."""

import asyncio
import contextlib

TIMEOUT = 2.0


async def is_ready(host: str, port: int) -> bool:
    """Whether `GET /readyz` is answered with 200."""
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")
                status = await reader.readline()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
    return b" 200 " in status
