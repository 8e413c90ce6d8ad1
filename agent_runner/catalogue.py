"""Catalogue: which tools a model may be offered, as the tool runners have told it."""

import asyncio
import logging
import time
from collections.abc import Iterable
from fnmatch import fnmatchcase

import msgspec

from agent_runner.prompt import Tool
from broker.client import status
from broker.connect import Broker, Unavailable
from contracts import catalogue, subjects
from contracts.catalogue import Catalogue
from contracts.streams import TOOLS

logger = logging.getLogger(__name__)

FRESH = 5.0
"""Seconds that a catalogue is used before it is read again."""

ANSWER_WITHIN = 1.0
"""Seconds that the broker has to tell a server's tools; then those that were told before are offered."""

PATIENCE = 5.0
"""Seconds that a server which was never listed is waited for: the tool runner may have just started."""


class Tools:
    """The tools of the configured servers. What was read is used while the broker is away."""

    def __init__(self, broker: Broker, servers: Iterable[str], *, patience: float = PATIENCE) -> None:
        self._broker = broker
        self._servers = tuple(servers)
        self._known: dict[str, Catalogue] = {}
        self._read = float("-inf")
        self._until: float | None = None
        self._patience = patience
        self._turn = asyncio.Lock()

    async def offered(self, globs: tuple[str, ...]) -> tuple[Tool, ...]:
        """The tools that one of the globs names, in the order of their names."""
        async with self._turn:
            if time.monotonic() - self._read > FRESH:
                await self._refresh()
        tools = (tool for known in self._known.values() for tool in known.tools)
        wanted = (tool for tool in tools if any(fnmatchcase(tool.name, glob) for glob in globs))
        return tuple(
            Tool(tool.name, tool.description, tool.input_schema) for tool in sorted(wanted, key=lambda tool: tool.name)
        )

    async def _refresh(self) -> None:
        self._until = self._until or time.monotonic() + self._patience
        while True:
            await asyncio.gather(*map(self._get, self._servers))
            self._read = time.monotonic()
            if len(self._known) == len(self._servers) or self._read >= self._until:
                return
            await asyncio.sleep(0.1)

    async def _get(self, server: str) -> None:
        request = msgspec.json.encode({"last_by_subj": subjects.tools(server)})
        try:
            reply = await self._broker.request(f"$JS.API.DIRECT.GET.{TOOLS}", request, timeout=ANSWER_WITHIN)
            if not status(reply.headers):
                self._known[server] = catalogue.decode(reply.data)
        except (Unavailable, TimeoutError, msgspec.DecodeError) as error:
            logger.info("no catalogue", extra={"server": server, "reason": str(error)})
