"""A client of the socket for many sessions."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.client import connect

from tests.harness.client import WITHIN, Client


@asynccontextmanager
async def multiplexed(edge: str, token: str, after: str | None = None) -> AsyncIterator[Client]:
    """A connection that follows no session yet."""
    url = f"{edge.replace('http', 'ws', 1)}/api/v1/ws" + (f"?after={after}" if after else "")
    headers = {"authorization": f"Bearer {token}"}
    async with connect(
        url, additional_headers=headers, compression=None, max_size=None, open_timeout=WITHIN, close_timeout=2
    ) as connection:
        yield Client(connection)
