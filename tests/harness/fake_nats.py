"""A fake broker for faults that a real one does not commit on command: it speaks NATS, and answers as a test says."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tests.harness.wire import LIMIT, Command, Message, matches, read_command

LOG_INFO = {
    "ts": "2026-01-01T00:00:00Z",
    "config": {"max_bytes": 1 << 30, "num_replicas": 1, "metadata": {"epoch": "e"}},
    "state": {"bytes": 0, "first_seq": 1, "last_seq": 0},
}


class FakeConnection:
    """One client's connection."""

    def __init__(self, writer: asyncio.StreamWriter, number: int) -> None:
        self.number = number
        self.subscriptions: dict[str, str] = {}
        self._writer = writer

    def say(self, line: str) -> None:
        """Send a protocol line."""
        self._writer.write(line.encode() + b"\r\n")

    def send(self, subject: str, data: bytes, *, reply: str = "", headers: str = "") -> None:
        """Deliver a message to whoever subscribes to its subject. `headers`: lines after `NATS/1.0`."""
        block = f"NATS/1.0{headers}\r\n\r\n".encode() if headers else b""
        for sid, pattern in self.subscriptions.items():
            if matches(pattern, subject):
                to = " ".join(filter(None, (subject, sid, reply)))
                sizes = f"{len(block)} {len(block) + len(data)}" if block else f"{len(data)}"
                self.say(f"{'HMSG' if block else 'MSG'} {to} {sizes}")
                self._writer.write(block + data + b"\r\n")

    def reset(self) -> None:
        """Break the connection."""
        self._writer.transport.abort()


Publish = Callable[[FakeConnection, Message], object]


class FakeNats:
    """Answers pings and STREAM.INFO; `published` is called with every message a client publishes otherwise."""

    def __init__(self, published: Publish) -> None:
        self.on_publish = published
        self.on_command: Callable[[FakeConnection, Command], bool] = lambda _connection, _command: False
        self.on_accept: Callable[[FakeConnection], None] = lambda _connection: None
        self.info: dict[str, object] = {"version": "2.15.1", "max_payload": 1 << 20, "headers": True}
        self.log_info: dict[str, object] = dict(LOG_INFO)
        self.connections: list[FakeConnection] = []
        self.open: set[FakeConnection] = set()
        self.messages: list[Message] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where clients connect."""
        assert self._server
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        connection = FakeConnection(writer, len(self.connections))
        self.connections.append(connection)
        self.open.add(connection)
        connection.say("INFO " + json.dumps(self.info))
        self.on_accept(connection)
        try:
            while command := await read_command(reader):
                if not self.on_command(connection, command):
                    self._obey(connection, command)
        finally:
            self._tasks.discard(task)
            self.open.discard(connection)
            writer.transport.abort()

    def _obey(self, connection: FakeConnection, command: Command) -> None:
        words = command.line.decode(errors="replace").split()
        match words:
            case ["PING"]:
                connection.say("PONG")
            case ["SUB", pattern, sid]:
                connection.subscriptions[sid] = pattern
            case ["UNSUB", sid, *_]:
                connection.subscriptions.pop(sid, None)
        if message := command.message:
            self.messages.append(message)
            if message.subject == "$JS.API.STREAM.INFO.LOG":
                connection.send(message.reply, json.dumps(self.log_info).encode())
            else:
                self.on_publish(connection, message)

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=LIMIT)

    async def close(self) -> None:
        """Break everything."""
        assert self._server
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def fake_nats(published: Publish = lambda _connection, _message: None) -> AsyncIterator[FakeNats]:
    """A fake broker until the block ends."""
    server = FakeNats(published)
    await server.start()
    try:
        yield server
    finally:
        await server.close()
