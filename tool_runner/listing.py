"""Listing: tells which tools there are, so that agents can offer them to models. Written when it changes."""

import asyncio
import logging
from collections.abc import Mapping

import msgspec

from broker.append import Append, LogFull, OutcomeUnknown, append
from broker.connect import Broker, Rejected
from contracts import catalogue, events, subjects
from contracts.catalogue import Catalogue, Listed
from contracts.depth import is_too_deep
from tool_runner.servers import Tool

logger = logging.getLogger(__name__)

DESCRIPTION = 4096
"""Characters of a description that models are shown."""

SCHEMA = 64 * 1024
"""Bytes of a schema; a tool with a larger one is not offered."""

WHOLE = 1 << 20
"""Bytes of a server's catalogue; the tools that come after are not offered."""


class Lister:
    """Writes what servers list. `told` may be called at any time; `run` writes until it is cancelled."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._wanted: dict[str, bytes] = {}
        self._written: dict[str, bytes] = {}
        self._news = asyncio.Event()

    def told(self, server: str, tools: Mapping[str, Tool]) -> None:
        """A server lists these tools."""
        self._wanted[server] = catalogue.encode(listed(server, tools))
        self._news.set()

    async def run(self) -> None:
        """Write what is new; the broker may be away for as long as it likes."""
        while True:
            await self._news.wait()
            self._news.clear()
            for server, payload in tuple(self._wanted.items()):
                if self._written.get(server) == payload:
                    continue
                try:
                    await append(self._broker, Append(subjects.tools(server), payload, events.new_id()))
                except (Rejected, LogFull, OutcomeUnknown) as error:
                    logger.warning("a catalogue was refused", extra={"server": server, "reason": str(error)})
                self._written[server] = payload


def listed(server: str, tools: Mapping[str, Tool]) -> Catalogue:
    """What models may be offered of them. Pure."""
    kept: list[Listed] = []
    room = WHOLE
    for name, tool in sorted(tools.items()):
        entry = Listed(
            name, tool.description[:DESCRIPTION], tool.input_schema, tool.read_only, tool.destructive, tool.idempotent
        )
        size = _size(entry)
        if size is None or size > room:
            reason = "its schema is too large, too deep or no JSON" if size is None else "its server has too many"
            logger.warning("a tool is not offered", extra={"tool": name, "reason": reason})
            continue
        room -= size
        kept.append(entry)
    return Catalogue(server, tuple(kept))


def _size(entry: Listed) -> int | None:
    """Its bytes in the catalogue; None for what models cannot be offered."""
    if is_too_deep(entry.input_schema):
        return None
    try:
        return len(msgspec.json.encode(entry)) if len(msgspec.json.encode(entry.input_schema)) <= SCHEMA else None
    except (OverflowError, TypeError, ValueError):  # half of a surrogate pair
        return None
