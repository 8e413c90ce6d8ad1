"""An MCP server whose tool never ends by itself: `python -m tests.harness.hanging_server FILE`.

What becomes of a call it notes in the file, a line each.
"""

import sys
from pathlib import Path

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.types import ToolAnnotations

server = MCPServer("hanging", log_level="CRITICAL")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
async def hang(ctx: Context) -> None:
    """Wait until the call is cancelled."""
    note("begun")
    await ctx.report_progress(0, 1, "hanging")
    try:
        await anyio.sleep_forever()
    finally:
        note("cancelled")


def note(line: str) -> None:
    """One line more."""
    with Path(sys.argv[1]).open("a") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    server.run("stdio")
