"""The MCP server `demo`: four small tools to try Millrace with, over stdio.

    python -m tool_runner.demo

`note` appends to the file that MILLRACE_DEMO_NOTES names.
"""

import os
from typing import Annotated

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field

REPORTS_PER_SECOND = 5

_READ_ONLY = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
_DESTRUCTIVE = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False
)

server = MCPServer("demo", log_level="WARNING")


@server.tool(annotations=_READ_ONLY)
def add(a: int | float, b: int | float) -> int | float:
    """Add two numbers."""
    return a + b


@server.tool(annotations=_DESTRUCTIVE)
def note(text: str) -> str:
    """Append a line to the notes. Every call appends, also a repeated one."""
    path = os.environ.get("MILLRACE_DEMO_NOTES")
    if not path:
        raise ToolError("MILLRACE_DEMO_NOTES names no file")
    with open(path, "a", encoding="utf-8") as notes:
        notes.write(" ".join(text.splitlines()) + "\n")
    return "noted"


@server.tool(annotations=_READ_ONLY)
async def slow(seconds: Annotated[float, Field(ge=0, le=86_400)], ctx: Context) -> str:
    """Take that many seconds, with progress several times a second."""
    steps = max(1, round(seconds * REPORTS_PER_SECOND))
    for step in range(steps):
        await ctx.report_progress(step, steps, f"{step} of {steps}")
        await anyio.sleep(seconds / steps)
    await ctx.report_progress(steps, steps, f"{steps} of {steps}")
    return f"slept {seconds:g} s"


@server.tool(annotations=_READ_ONLY)
def fail(text: str) -> CallToolResult:
    """Fail with that text."""
    # Returned, not raised: MCPServer hides what an exception says and prefixes a ToolError's text.
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


if __name__ == "__main__":
    server.run("stdio")
