"""The whole system for one test: a broker of its own and the services as real processes, to be killed and paused."""

import asyncio
import base64
import os
import signal
import sys
import time
import urllib.request
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError

import jwt

from broker.ports import free_port
from contracts.config import load
from contracts.streams import GROUPS, SERVICES
from tests.harness.forked import Forked
from tests.harness.history import Record, read_log
from tests.harness.nats_server import LOG_BYTES, NatsServer, nats_server
from tests.harness.wait import until

PATIENCE = 5.0
"""Seconds that a service has to stop before it is killed."""

ServiceProcess = Process | Forked

TENANTS = "[tenants.acme]\n[tenants.globex]\n"
"""What the configuration of every system begins with."""

SECRET = b"a secret of the tests, 32 bytes!"


class Service:
    """One process of one service."""

    def __init__(self, name: str, env: dict[str, str], log: Path, port: int, *, measured: bool) -> None:
        self.name = name
        self.port = port
        self.log = log
        self._env = env
        self._measured = measured
        self._process: ServiceProcess | None = None

    @property
    def process(self) -> ServiceProcess:
        """The running process."""
        assert self._process, f"{self.name} is not running"
        return self._process

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def url(self) -> str:
        """Where it serves HTTP."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it."""
        if not self._measured:
            self._process = Forked(self.name, self._env, self.log)
            return
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", self.name, env=self._env, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )

    async def ready(self) -> None:
        """Wait until it says that it is ready."""
        await until(lambda: asyncio.to_thread(_is_ready, self.url), within=20.0)

    async def kill(self) -> None:
        """End it with SIGKILL."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """End it with SIGTERM; its exit code."""
        return await self._end(signal.SIGTERM)

    async def end(self) -> None:
        """Stop it; kill it if it hangs. What is stopped can tell what code it ran."""
        if self._process:
            with suppress(TimeoutError, ProcessLookupError):
                async with asyncio.timeout(PATIENCE):
                    process = self._process
                    os.kill(process.pid, signal.SIGCONT)
                    os.kill(process.pid, signal.SIGTERM)
                    await process.wait()
        await self.kill()

    async def restart(self) -> None:
        """Kill it and start it again."""
        await self.kill()
        await self.start()

    def pause(self) -> None:
        """Let it hang (SIGSTOP)."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on (SIGCONT)."""
        self.process.send_signal(signal.SIGCONT)

    async def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)
                os.kill(process.pid, signal.SIGCONT)
        return await process.wait()


class System:
    """A broker and services. More processes of a service may be added."""

    def __init__(
        self, nats: NatsServer, directory: Path, config: Path, more: dict[str, str], *, measured: bool
    ) -> None:
        self.nats = nats
        self.directory = directory
        self.services: list[Service] = []
        self.config = config
        self._more = more
        self._measured = measured
        self._secret = directory / "jwt.secret"
        self._secret.write_text(base64.b64encode(SECRET).decode())

    def __getitem__(self, name: str) -> Service:
        """The first process of a service."""
        return next(service for service in self.services if service.name == name)

    @property
    def edge(self) -> str:
        """The edge's address."""
        return self["edge"].url

    @property
    def notes(self) -> list[str]:
        """What the demo's `note` has written: the effects outside the system."""
        file = self.directory / "notes.txt"
        return file.read_text().splitlines() if file.exists() else []

    async def add(self, name: str, **more: str) -> Service:
        """Start one more process of a service."""
        port = free_port("127.0.0.1")
        env = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("MILLRACE_", "OTEL_"))},
            "MILLRACE_NATS_URL": self.nats.url,
            "MILLRACE_NKEY": self.nats.seed(name),
            "MILLRACE_CONFIG": str(self.config),
            "MILLRACE_PORT": str(port),
            "MILLRACE_JWT_SECRET_FILE": str(self._secret),
            "MILLRACE_DEMO_NOTES": str(self.directory / "notes.txt"),
            **self._more,
            **more,
        }
        log = self.directory / f"{name}-{port}.log"
        service = Service(name, env, log, port, measured=self._measured)
        self.services.append(service)
        await service.start()
        return service

    async def armed(self, name: str, fault: str) -> Service:
        """One more process of a service, which dies or hangs at a point; the first one is killed for its work to come.

        Who was armed before and has died is forgotten.
        """
        first = self[name]
        self.services = [service for service in self.services if service is first or service.is_running]
        armed = await self.add(name, MILLRACE_FAULT=fault)
        await armed.ready()
        await first.kill()
        return armed

    async def log(self) -> list[Record]:
        """Everything that is stored."""
        client = await self.nats.client("provisioner")
        try:
            return await read_log(client, 0)
        finally:
            await client.close()

    def token(self, tenant: str = "acme", user: str = "ann", *, ttl: float = 3600, **more: object) -> str:
        """A token as the edge expects it."""
        now = time.time()
        claims = {"iss": "millrace", "aud": "millrace", "tenant": tenant, "sub": user, "iat": now, "exp": now + ttl}
        return jwt.encode({**claims, **more}, SECRET, algorithm="HS256")

    def logs(self) -> str:
        """What the services logged, for a test that failed."""
        return "\n".join(f"== {file.name}\n{file.read_text()[-8000:]}" for file in sorted(self.directory.glob("*.log")))


@asynccontextmanager
async def system(
    directory: Path,
    *,
    services: tuple[str, ...] = SERVICES,
    config: str = "",
    log_bytes: int = LOG_BYTES,
    broker: Callable[..., AbstractAsyncContextManager[NatsServer]] = nats_server,
    measured: bool = True,
    **more: str,
) -> AsyncIterator[System]:
    """The system, ready, until the block ends; then everything is killed. `broker`: one server, or a cluster.

    `measured`: note which code the services run. Those that are killed cannot tell, and begin sooner as forks.
    """
    file = directory / "millrace.toml"
    file.write_text(TENANTS + config)
    loaded = load(file)
    groups = tuple(loaded.groups)
    more_groups: dict[str, Any] = {"groups": groups} if groups != GROUPS else {}
    async with broker(directory / "nats", log_bytes=log_bytes, **more_groups) as nats:
        running = System(nats, directory, file, more, measured=measured)
        try:
            if loaded.ack_waits:
                await nats.provision(ack_waits=loaded.ack_waits)
            for name in services:
                await running.add(name)
            for service in running.services:
                await service.ready()
            yield running
        except BaseException:
            print(running.logs())
            raise
        finally:
            await asyncio.gather(*(service.end() for service in running.services))


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2) as response:  # noqa: S310 - our own address
            return bool(response.status == 200)
    except (URLError, OSError):
        return False
