"""The MCP server `demo` over streamable HTTP, for all tool runners of a system: it outlives each of them."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from broker.ports import free_port
from tests.harness.forked import Forked
from tests.harness.wait import until
from tool_runner.demo import server

HOST = "127.0.0.1"


@asynccontextmanager
async def http_demo(notes: Path) -> AsyncIterator[str]:
    """The server, until the block ends; the configuration that names it."""
    port = free_port(HOST)
    env = {"MILLRACE_DEMO_NOTES": str(notes), "PORT": str(port)}
    process = Forked(__name__, env, notes.with_name("demo.log"))
    try:
        await until(lambda: _listens(port), within=20.0)
        yield f'\n[tools.servers.demo]\nurl = "http://{HOST}:{port}/mcp"\ntrusted = true\n'
    finally:
        process.kill()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True


if __name__ == "__main__":
    server.run("streamable-http", host=HOST, port=int(os.environ["PORT"]))
