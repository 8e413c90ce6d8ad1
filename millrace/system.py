"""The embedded system: a broker and its services, started, kept running and drained in order."""

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct

from broker.connect import Unavailable
from broker.embedded import ServerFailed, ready
from broker.incarnation import boot_id
from broker.ports import free_port, is_free
from broker.provision import ProvisionFailed, Topology, provision
from broker.settings import PREFIX, Settings
from contracts.streams import PROVISIONER
from millrace.child import Child, Program
from millrace.datadir import DataDir, State
from millrace.errors import CommandError, CommandFailed, PortTaken
from millrace.probe import is_ready
from millrace.services import Service, child_environment

BROKER = "nats-server"
BROKER_GRACE = 20.0
EXTRA_GRACE = 5.0
"""How much longer than its own grace a service may take before it is killed."""
READY_WITHIN = 20.0
POLL = 0.05
CONFIGURATION_WRONG = 2

Tell = Callable[[str], None]


class Plan(Struct, frozen=True, kw_only=True):
    """What is to run, and with what. `port` is the edge's."""

    data: DataDir
    state: State
    settings: Settings
    services: tuple[Service, ...]
    ack_waits: dict[str, float]
    port: int
    lock: int
    env: Mapping[str, str]


class System:
    """The children of one `millrace up`."""

    def __init__(self, plan: Plan, tell: Tell) -> None:
        self._plan, self._tell = plan, tell
        self._children: dict[str, Child] = {}
        self._addresses: dict[str, tuple[str, int]] = {}
        self._starting: set[str] = set()
        self._refused: list[str] = []
        self._keeping: list[asyncio.Task[None]] = []
        self._server = plan.data.server(plan.state, plan.settings.sync)

    async def start(self) -> None:
        """Start everything; returns when it is ready, or had its time. Raises CommandError."""
        await self._start_broker()
        self._starting = {service.process for service in self._plan.services}
        taken = {self._plan.state.nats_port}
        for number, service in enumerate(self._plan.services):
            port = self._plan.port + number
            if service.name != "edge":
                port = free_port(self._host(service), port, taken=frozenset(taken))
            taken.add(port)
            await self._start_service(service, port)
        await self._become_ready()

    async def failed(self) -> None:
        """Wait until a child cannot be started again. Raises CommandFailed."""
        done, _ = await asyncio.wait(self._keeping, return_when=asyncio.FIRST_COMPLETED)
        for keeping in done:
            raise CommandFailed(f"{keeping.get_name()}: {keeping.exception()}")

    async def drain(self) -> None:
        """Stop what takes work in, then what does it, then the broker. Nothing is left running."""
        grace = self._plan.settings.drain_grace + EXTRA_GRACE
        for stage in sorted({service.stage for service in self._plan.services}):
            names = [s.process for s in self._plan.services if s.stage == stage]
            children = [self._children[name] for name in names if name in self._children]
            await asyncio.gather(*(child.stop(grace) for child in children))
        if (broker := self._children.get(BROKER)) and await broker.stop(BROKER_GRACE):
            self._plan.data.running.clear()
        for keeping in self._keeping:
            keeping.cancel()

    def kill(self) -> None:
        """End everything at once; what is in flight is taken up at the next start."""
        for child in self._children.values():
            child.kill()

    async def _start_broker(self) -> None:
        plan, server, mark = self._plan, self._server, self._plan.data.running
        server.prepare()
        renew = mark.set(plan.settings.sync, boot_id())
        log = plan.data.log(BROKER)
        child = await self._start(
            Program(name=BROKER, command=server.command, env=plan.env, log=log, inherits=(plan.lock,))
        )
        assert child.process
        try:
            await ready(server, child.process)
        except ServerFailed as error:
            taken = not is_free(server.host, server.port)
            reason = f"{error}: {last_line(log)}"
            raise PortTaken(reason) if taken else CommandError(reason) from None
        self._keep(child)
        topology = Topology(
            tenants=server.tenants,
            log_bytes=server.log_bytes,
            ack_wait=plan.settings.ack_wait,
            groups=server.groups,
            ack_waits=plan.ack_waits,
            renew_epoch=renew,
        )
        try:
            await provision(server.url, str(server.credentials.user(PROVISIONER)), topology, within=READY_WITHIN)
        except (ProvisionFailed, Unavailable) as error:
            raise CommandError(str(error)) from None
        mark.renewed()

    async def _start_service(self, service: Service, port: int) -> None:
        plan, host = self._plan, self._host(service)
        env = child_environment(plan.data, plan.state, service, plan.env)
        env |= {f"{PREFIX}HOST": host, f"{PREFIX}PORT": str(port)}
        log = plan.data.log(service.process)
        self._keep(await self._start(Program(name=service.process, command=service.command, env=env, log=log)))
        self._addresses[service.process] = (host, port)

    async def _start(self, program: Program) -> Child:
        child = self._children[program.name] = Child(program, self._died)
        await asyncio.shield(child.start())
        return child

    def _keep(self, child: Child) -> None:
        task = asyncio.create_task(child.keep(), name=f"keep-{child.program.name}")
        self._keeping.append(task)

    def _host(self, service: Service) -> str:
        """The edge listens where it was told to; what the others serve is for this machine."""
        return self._plan.settings.host if service.name == "edge" else self._plan.state.host

    def _died(self, name: str, code: int) -> None:
        if code == CONFIGURATION_WRONG and name in self._starting:
            self._refused.append(name)
        end = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._tell(f"{name} died ({end}) and was started again; see {self._plan.data.log(name)}")

    async def _become_ready(self) -> None:
        ends = time.monotonic() + READY_WITHIN
        while self._starting and time.monotonic() < ends:
            for name in tuple(self._starting):
                if await is_ready(*self._addresses[name]):
                    self._starting.discard(name)
            if self._refused:
                raise CommandError(last_line(self._plan.data.log(self._refused[0])))
            await asyncio.sleep(POLL)
        for name in sorted(self._starting):
            self._tell(f"{name} is not ready yet; see {self._plan.data.log(name)}")
        self._starting.clear()


def last_line(log: Path) -> str:
    """The last thing that a child said."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
