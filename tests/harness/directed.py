"""One directed round: processes are armed with chosen points, and scenarios run until each point was reached."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from tests.harness.caller import Caller
from tests.harness.chaos import GONE, SETTLED_WITHIN, Slot
from tests.harness.client import new_session
from tests.harness.history import Fault, Record
from tests.harness.http_demo import http_demo
from tests.harness.points import SCENARIOS, Combination
from tests.harness.rounds import QUIET_WITHIN, TENANTS, Round
from tests.harness.system import ServiceProcess, System, system
from tests.harness.takeovers import said, takeovers
from tests.harness.wait import until
from tests.harness.workload import approve

SERVICES = ("edge", "agent_runner", "tool_runner")
CONFIG = """
[[tools.rules]]
tool = "demo.note"
decision = "ask"
expires = 30

[agents.stepping]
run = "tests.harness.stepping:stepping"
tools = ["demo.*"]

[agents.pairing]
run = "tests.harness.stepping:pairing"
tools = ["demo.*"]

[agents.overdue]
model = "script"
turn_seconds = 1
"""

ROUNDS_OF_A_SYSTEM = 20

TRIES = 6
"""How often a scenario is repeated where another process than the armed one got its work."""

REACHED_WITHIN = 30.0


class Directed(Round):
    """A round of chosen combinations, at most one for each service."""

    def __init__(self, system: System, seed: int, log: list[Record], cards: Sequence[Combination]) -> None:
        super().__init__(system, seed, log)
        self.steps = cards
        self._running: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Clients come as they are needed."""
        try:
            yield
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def work(self) -> list[str]:
        """Run every scenario, all at the same time; what was not reached, and what was not over in time."""
        trials = [Trial(self, card) for card in self.steps if isinstance(card, Combination)]
        for trial in trials:
            await trial.prepare()
        await asyncio.gather(*(trial.run() for trial in trials))
        return [trial.problem for trial in trials if trial.problem] + await self.quiet()

    async def quiet(self) -> list[str]:
        """First as it is: what was paused goes on with its work, and is replaced only then."""
        try:
            await until(self._is_over, within=QUIET_WITHIN)
        except AssertionError:
            return ["not quiet: something accepted has no end, or was not delivered"]
        return await super().quiet()

    @staticmethod
    async def after_all(running: System) -> None:
        """What must hold when all rounds of a system are over. Raises AssertionError."""

    async def _is_over(self) -> bool:
        slots = self.chaos.slots
        return not any(slot.busy or slot.state in GONE for slot in slots) and await self.is_quiet()

    async def caller(self, trial: "Trial") -> Caller:
        """A client in a new session."""
        number = len(self.callers)
        tenant = TENANTS[number % 2]
        token = self.system.token(tenant, f"user-{self.seed}-{number}")
        while True:
            try:
                session_id = await new_session(self.chance.choice(self.chaos.edges()), token, agent=trial.agent)
                break
            except (OSError, AssertionError):  # that edge has just died
                await asyncio.sleep(0.1)
        caller = Caller(self.history, trial.edges, (tenant, session_id, token))
        caller.approve = approve
        self.callers.append(caller)
        self._running.append(asyncio.create_task(caller.run()))
        return caller


Hand = tuple[Combination, ...]


async def run_points(
    kind: type[Directed], dealt: Sequence[Hand], directory: Path, seed: int, processes: int, **options: Any
) -> None:
    """Every round, on fresh systems now and then: a log that grows makes each verdict slower.

    With one process of each service tools are called over stdio, with several over HTTP.
    """
    for first in range(0, len(dealt), ROUNDS_OF_A_SYSTEM):
        place = directory / f"{first}"
        place.mkdir(parents=True)
        tools = nullcontext("") if processes == 1 else http_demo(place / "notes.txt")
        async with (
            tools as server,
            system(place, services=SERVICES * processes, config=CONFIG + server, measured=False, **options) as running,
        ):
            await run_hands(running, kind, seed * 1000 + first, dealt[first : first + ROUNDS_OF_A_SYSTEM])
            await kind.after_all(running)


async def run_hands(running: System, kind: type[Directed], seed: int, dealt: Sequence[Hand]) -> None:
    """These rounds, one after another, on one system; the first that breaks a promise is an AssertionError."""
    log: list[Record] = []
    times: list[float] = []
    processes = len(running.services) // len(SERVICES)
    for number, hand in enumerate(dealt):
        this = kind(running, seed + number, log, hand)
        violations = await this.run()
        times += takeovers(this.history.log, this.history.faults)
        names = ", ".join(map(str, hand))
        print(f"{processes} of each: {names}: {len(this.history.faults)} faults, {len(violations)} violations")
        assert not violations, this.report(violations, running.directory)
    print(f"{processes} of each: {len(dealt)} rounds, {sum(map(len, dealt))} combinations, {said(times)}")


class Trial:
    """One combination: the process that is armed, and the sessions that bring it to its point."""

    def __init__(self, round_: Directed, card: Combination) -> None:
        self.problem = ""
        self._round = round_
        self._card = card
        self._scenario = SCENARIOS[card.scenario]
        self._slots = [slot for slot in round_.chaos.slots if slot.name == card.service]
        self._slot = round_.chance.choice(self._slots)
        nth = round_.chance.randrange(1, 5) if "delta" in card.point else card.nth
        self._fault = f"{card.point}:{nth}:{card.act}"
        self._process: ServiceProcess | None = None

    @property
    def reached(self) -> bool:
        """Whether the armed process died or stopped where it was to."""
        if self._card.act == "pause":
            faults = self._round.history.faults
            return any(fault.service == self._card.service and fault.what == "found T" for fault in faults)
        return self._process is not None and self._process.returncode == -signal.SIGKILL

    @property
    def _is_asking(self) -> bool:
        return self._card.scenario == "stop asking"

    @property
    def _is_over(self) -> bool:
        return self._process is not None and self._process.returncode is not None

    @property
    def agent(self) -> str:
        """Who answers."""
        return self._scenario.agent

    def edges(self) -> list[str]:
        """Where its clients connect: to the armed edge, if it is one."""
        if self._card.service == "edge" and not self.reached:
            return [self._slot.service.url]
        return self._round.chaos.edges()

    async def prepare(self) -> None:
        """Have a process that is armed, or a plain one where the armed one is to take over."""
        await until(lambda: not self._slot.busy and self._slot.state not in GONE, within=SETTLED_WITHIN)
        if self._scenario.act != "take over":
            if not self._slot.is_armed:
                await self._arm(self._slot)
        elif self._slot.is_armed:
            self._slot.busy, self._process = True, None
            await self._slot.restart()
            self._slot.busy = False
        for slot in self._round.chaos.slots:
            await slot.ready()

    def _killed(self, slot: Slot, why: str) -> Fault:
        fault = self._round.history.fault(slot.name, why)
        fault.noticed = time.time()
        return fault

    def _is_answered(self, caller: Caller) -> bool:
        own = [sent for sent in self._round.history.sent if sent.session_id == caller.session_id]
        return all(sent.message_ids and sent.message_ids[-1] in caller.ended for sent in own)

    async def _arm(self, slot: Slot) -> None:
        fault = self._killed(slot, "killed to be armed")
        await slot.arm(self._fault)
        self._process = slot.service.process
        fault.end()

    async def run(self) -> None:
        """Repeat the scenario until the point is reached; then see that every session is usable."""
        for _ in range(TRIES):
            try:
                await self.prepare()
                callers = [await self._round.caller(self) for _ in self._slots]
                await asyncio.gather(*(self._say(caller) for caller in callers), self._act(callers))
            except AssertionError as failure:
                self.problem = f"stuck: {self._card}: {failure}"
                return
            if self.reached:
                await asyncio.gather(*(caller.say("and then?") for caller in callers))
                return
        self.problem = f"not reached: {self._card}"

    async def _say(self, caller: Caller) -> None:
        canary, number = self._round.history.canaries[caller.tenant], self._round.callers.index(caller)
        content = json.dumps(self._scenario.program).replace("NOTE", f"{canary} {self._round.mark}{number}")
        sent = await caller.say(content)
        assert sent.outcome == "accepted", f"refused: {sent.code}"
        act, message_id = self._scenario.act, sent.message_ids[-1]
        if act in ("cancel", "steer", "interrupt"):
            await self._in_mid_stream(caller)
            if act == "cancel":
                await caller.cancel(message_id)
            else:
                await caller.say("mind this", act)
        await until(
            lambda: self.reached or message_id in caller.ended or (self._is_asking and self._is_over),
            within=REACHED_WITHIN,
        )
        if self._is_asking:
            await caller.cancel(message_id)  # nobody decides

    async def _act(self, callers: list[Caller]) -> None:
        if self._scenario.act not in ("stop", "take over"):
            return
        for caller in callers:
            await self._in_mid_stream(caller)
        if self._scenario.act == "stop":
            with suppress(ProcessLookupError):  # the point was reached before
                self._slot.service.process.send_signal(signal.SIGTERM)
            return
        others = [slot for slot in self._slots if slot is not self._slot]
        for slot in others:  # they come back when the armed one has had the turn: it would only race with them
            slot.busy = True
            slot.service.process.kill()
        gone = [self._killed(slot, "killed to be taken over from") for slot in others]
        await self._arm(self._slot)
        await until(lambda: self.reached or all(map(self._is_answered, callers)), within=REACHED_WITHIN)
        for slot, fault in zip(others, gone, strict=True):
            await slot.restart()
            fault.end()
            slot.busy = False

    async def _in_mid_stream(self, caller: Caller) -> None:
        seen = "tool_approval_request" if self._is_asking else "stream_delta"
        await until(lambda: self.reached or caller.of(seen), within=REACHED_WITHIN)
