"""Faults: a random plan for one round, and the hand that carries it out and restarts what died."""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from msgspec import Struct

from tests.harness.history import Fault, History
from tests.harness.points import POINTS
from tests.harness.system import Service, System
from tests.harness.wait import until

SERVICES = ("agent_runner", "agent_runner", "tool_runner", "tool_runner", "edge", "event_ingest")
PAUSES = (2.0, 3.5)
"""Seconds: longer than `ack_wait`, so that somebody else takes over."""

SETTLED_WITHIN = 30.0
WATCH_EVERY = 0.05
GONE = ("", "Z", "T")
"""States of a process that somebody must start or resume."""

Kind = Literal["point", "kill", "pause", "stop", "broker"]


class Step(Struct, frozen=True):
    """One fault. `at` seconds after the work began, for what is done from outside.

    `point` also names what happens to a cluster of brokers.
    """

    kind: Kind
    service: str = ""
    point: str = ""
    at: float = 0


def plan(chance: random.Random) -> list[Step]:
    """One to three faults, at most one of them at a point of each service."""
    steps: list[Step] = []
    for _ in range(chance.randrange(1, 4)):
        service, at = chance.choice(SERVICES), chance.random() * 2.5
        kind: Kind = chance.choice(("point", "point", "point", "kill", "pause", "stop", "broker"))
        if kind == "broker":
            steps.append(Step("broker", at=at))
        elif kind != "point":
            steps.append(Step(kind, service, at=at))
        elif not any(step.kind == "point" and step.service == service for step in steps):
            point, side = chance.choice(tuple(POINTS[service])), chance.choice(("before", "after"))
            nth = chance.randrange(1, 30) if "delta" in point else chance.randrange(1, 4)
            act = chance.choice(("kill", "kill", "pause"))
            steps.append(Step("point", service, f"{point}:{side}:{nth}:{act}"))
    return steps


class Slot:
    """One place where a process of a service runs: the plain one, or one that is armed with a fault."""

    def __init__(self, system: System, plain: Service) -> None:
        self.name = plain.name
        self.busy = False
        self._system = system
        self._plain = plain
        self._armed: Service | None = None

    @property
    def service(self) -> Service:
        """What runs here now."""
        return self._armed or self._plain

    async def arm(self, fault: str) -> None:
        """Run with a fault instead."""
        self.busy = True
        await self._plain.kill()
        self._armed = await self._system.add(self.name, MILLRACE_FAULT=fault)
        self.busy = False

    async def restart(self) -> None:
        """Run the plain one again, whatever runs now."""
        armed, self._armed = self._armed, None
        if armed:
            await armed.kill()
            self._system.services.remove(armed)
        await self._plain.restart()

    @property
    def state(self) -> str:
        """The state of its process: `T` is stopped, `Z` or nothing dead."""
        if self.service.process.returncode is not None:
            return ""
        try:
            return Path(f"/proc/{self.service.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return ""

    async def ready(self) -> None:
        """Wait until what runs here is ready."""
        while True:
            service = self.service
            try:
                return await service.ready()
            except AssertionError:
                if service is self.service:
                    raise

    @property
    def is_armed(self) -> bool:
        """Whether it runs with a fault."""
        return self._armed is not None


class Chaos:
    """Carries a plan out. What dies is started again at once; what hangs goes on after a while."""

    def __init__(self, system: System, history: History, chance: random.Random) -> None:
        self.system = system
        self.history = history
        self.slots = [Slot(system, service) for service in system.services]
        self.chance = chance
        self._tasks: set[asyncio.Task[None]] = set()

    def edges(self) -> list[str]:
        """Where clients may connect."""
        return [slot.service.url for slot in self.slots if slot.name == "edge"]

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Restart and resume until the block ends."""
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch())
            yield
            watch.cancel()

    async def arm(self, steps: list[Step]) -> None:
        """Start the processes that are to fail at a point."""
        for step in steps:
            if step.kind == "point":
                slot = self._slot(step.service)
                fault = self.history.fault(slot.name, "armed")
                await slot.arm(step.point)
                fault.end()
        for slot in self.slots:
            await slot.ready()

    async def act(self, steps: list[Step]) -> None:
        """Do what is done from outside, each at its time."""
        began = time.monotonic()
        for step in sorted(steps, key=lambda step: step.at):
            if step.kind == "point":
                continue
            await asyncio.sleep(max(0.0, began + step.at - time.monotonic()))
            if step.kind == "broker":
                await self.break_broker(step)
            else:
                self._hit(self._slot(step.service), step)

    async def break_broker(self, _step: Step) -> None:
        """Kill the broker, and start it again."""
        fault = self.history.fault("nats-server", "kill")
        await self.system.nats.kill()
        await asyncio.sleep(self.chance.choice((0.0, 0.5, 2.0)))
        await self.system.nats.start()
        fault.end()

    async def settle(self) -> None:
        """Wait until nothing hangs and nothing is down; what was armed in vain is replaced."""
        await until(lambda: not any(slot.busy or slot.state in GONE for slot in self.slots), within=SETTLED_WITHIN)
        for slot in self.slots:
            if slot.is_armed:
                slot.busy = True
                fault = self.history.fault(slot.name, "disarmed")
                await slot.restart()
                fault.end()
                slot.busy = False
        for slot in self.slots:
            await slot.ready()

    def _slot(self, service: str) -> Slot:
        return self.chance.choice([slot for slot in self.slots if slot.name == service])

    def _hit(self, slot: Slot, step: Step) -> None:
        if slot.busy or not slot.state:
            return
        numbers = {"kill": signal.SIGKILL, "stop": signal.SIGTERM, "pause": signal.SIGSTOP}
        slot.service.process.send_signal(numbers[step.kind])
        if step.kind == "stop":
            slot.busy = True
            self._do(self._replace(slot, self.history.fault(slot.name, "stop")))

    async def _watch(self) -> None:
        while True:
            for slot in self.slots:
                if not slot.busy and (state := slot.state) in GONE:
                    slot.busy = True
                    now = time.time()
                    fault = Fault(slot.name, f"found {state}", now - 1, noticed=now)
                    self.history.faults.append(fault)
                    self._do(self._resume(slot, fault) if state == "T" else self._replace(slot, fault))
            await asyncio.sleep(WATCH_EVERY)

    def _do(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _replace(self, slot: Slot, fault: Fault) -> None:
        await slot.service.process.wait()
        await slot.restart()
        fault.end()
        slot.busy = False

    async def _resume(self, slot: Slot, fault: Fault) -> None:
        await asyncio.sleep(self.chance.uniform(*PAUSES))
        slot.service.resume()
        fault.end()
        slot.busy = False
