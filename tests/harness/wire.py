"""The NATS protocol as it passes by: one command at a time, of a client or of a server."""

import asyncio

from msgspec import Struct

LIMIT = 64 * 1024
_WITH_BODY = {b"PUB": 1, b"HPUB": 2, b"MSG": 1, b"HMSG": 2}


class Command(Struct, frozen=True):
    """A control line, and for a message the bytes that belong to it."""

    line: bytes
    body: bytes = b""

    @property
    def verb(self) -> bytes:
        """`PUB`, `HMSG`, `PING`, …"""
        return self.line.split(None, 1)[0].upper() if self.line.strip() else b""

    @property
    def raw(self) -> bytes:
        """As it stood on the wire."""
        return self.line + self.body

    @property
    def message(self) -> "Message | None":
        """The message that it publishes or delivers, if it does."""
        if self.verb not in _WITH_BODY:
            return None
        words = self.line.split()
        split = int(words[-2]) if self.verb.startswith(b"H") else 0
        named = words[1 : -_WITH_BODY[self.verb]]
        if self.verb.endswith(b"MSG"):
            del named[1]  # the subscription's number
        reply = named[1].decode() if len(named) > 1 else ""
        return Message(named[0].decode(), reply, self.body[:split], self.body[split:-2])


class Message(Struct, frozen=True):
    """What a PUB, HPUB, MSG or HMSG carries."""

    subject: str
    reply: str
    headers: bytes
    data: bytes

    @property
    def is_ack(self) -> bool:
        """Whether it acknowledges an append."""
        return self.subject.startswith("_IN.") and self.data.startswith(b'{"stream":"LOG"')


async def read_command(reader: asyncio.StreamReader) -> Command | None:
    """The next command, or None at the end."""
    try:
        line = await reader.readuntil(b"\n")
        verb = line.split(None, 1)[0].upper() if line.strip() else b""
        if verb not in _WITH_BODY:
            return Command(line)
        return Command(line, await reader.readexactly(int(line.split()[-1]) + 2))
    except (asyncio.IncompleteReadError, OSError):
        return None


def matches(pattern: str, subject: str) -> bool:
    """Whether a subscription to `pattern` receives `subject`."""
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(given) <= len(wanted):
            return False
        given = given[: len(wanted)]
    return len(wanted) == len(given) and all(w in ("*", g) for w, g in zip(wanted, given, strict=True))
