"""One round: a workload, faults, quiet again, and the checker's verdict."""

import asyncio
import json
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct
from nats.aio.client import Client
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError
from websockets.frames import CloseCode

from tests.harness.caller import Caller
from tests.harness.chaos import Chaos, Step, plan
from tests.harness.checker import FROM_THE_START, INTERNAL, check
from tests.harness.client import new_session, socket_url
from tests.harness.history import History, Record, read_log
from tests.harness.system import System
from tests.harness.wait import until
from tests.harness.workload import Target, Words, approve, converse, publish

CONFIG = """
[[tools.rules]]
tool = "demo.note"
decision = "ask"
expires = 2

[agents.pairing]
run = "tests.harness.stepping:pairing"
tools = ["demo.*"]
"""
"""What the systems of random rounds are configured with."""

AGENTS = ("script", "script", "pairing")
TENANTS = ("acme", "globex")
QUIET_WITHIN = 60.0


class Round:
    """One seeded round on a running system."""

    def __init__(self, system: System, seed: int, log: list[Record]) -> None:
        self.system = system
        self.seed = seed
        self.chance = random.Random(seed)
        self.history = History(canaries={tenant: uuid.uuid4().hex for tenant in TENANTS})
        self.steps: Sequence[Struct] = ()
        self.chaos = self.make_chaos()
        self.read = log
        self._before = len(log)
        self.callers: list[Caller] = []
        self.clients: dict[str, Client] = {}

    def make_chaos(self) -> Chaos:
        """What breaks things."""
        return Chaos(self.system, self.history, self.chance)

    def plan(self) -> list[Step]:
        """What is to break."""
        return plan(self.chance)

    async def run(self) -> list[str]:
        """Every violation; the history is complete then."""
        for name in ("provisioner", *TENANTS):
            nats = self.system.nats
            self.clients[name] = await (nats.tenant_client(name) if name in TENANTS else nats.client(name))
        try:
            async with self.chaos.watching():
                async with self.connected():
                    problems = await self.work()
                await self._audit()
        finally:
            for client in self.clients.values():
                await client.close()
        mark = self.mark
        self.history.notes = [line for line in self.system.notes if mark in line]
        self.history.log = [r for n, r in enumerate(self.read) if n >= self._before or ".tenant." in r.subject]
        return problems + check(self.history)

    @property
    def mark(self) -> str:
        """What every note of this round begins with."""
        return f"round-{self.seed}-"

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Two to four sessions, each with a client or two."""
        running: list[asyncio.Task[None]] = []
        try:
            for number in range(self.chance.randrange(2, 5)):
                tenant = TENANTS[number % 2]
                token = self.system.token(tenant, f"user-{self.seed}-{number}")
                agent = self.chance.choice(AGENTS)
                session_id = await new_session(self.chaos.edges()[0], token, agent=agent)
                for _ in range(self.chance.randrange(1, 3)):
                    caller = Caller(self.history, self.chaos.edges, (tenant, session_id, token))
                    caller.agent, caller.approve = agent, approve
                    self.callers.append(caller)
                    running.append(asyncio.create_task(caller.run()))
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def work(self) -> list[str]:
        """Have everybody talk while things fail; what was not over in time."""
        self.steps = steps = self.plan()
        await self.chaos.arm(steps)
        faults = asyncio.create_task(self.chaos.act(steps))
        try:
            async with asyncio.timeout(QUIET_WITHIN), asyncio.TaskGroup() as work:
                for number, caller in enumerate(self.callers):
                    canary = self.history.canaries[caller.tenant]
                    chance, mark = random.Random(f"{self.seed} {number}"), f"{canary} {self.mark}{number}"
                    words = Words(chance, mark, caller.agent)
                    work.create_task(converse(caller, words, self.chance.randrange(2, 4)))
                    work.create_task(self._publish(caller, words))
        except TimeoutError:
            return ["not quiet: a message was not confirmed"]
        finally:
            await faults
        return await self.quiet()

    async def quiet(self) -> list[str]:
        """Wait until everything runs again and everything accepted has its end; what has not."""
        try:
            await self.chaos.settle()
            await until(self.is_quiet, within=QUIET_WITHIN)
        except AssertionError:
            return ["not quiet: something accepted has no end, or was not delivered"]
        finally:
            for caller in self.callers:
                caller.finish()
        return []

    async def _publish(self, caller: Caller, words: Words) -> None:
        for _ in range(2):
            await asyncio.sleep(words.chance.random())
            user = f"user-{self.seed}-{words.chance.randrange(2)}"
            attributes: dict[str, str] = words.chance.choice(({"sessionid": caller.session_id}, {"userid": user}, {}))
            await publish(self.clients[caller.tenant], self.history, Target(caller.tenant, attributes), words.mark)

    async def is_quiet(self) -> bool:
        """Whether all that was accepted has its end, in the log and at every client."""
        after = self.read[-1].seq if self.read else 0
        self.read += await read_log(self.clients["provisioner"], after)
        log = self.read[self._before :]
        ended = {r.event["reply_to"] for r in log if r.type == "turn_end"}
        results = {r.event["tool_call_id"] for r in log if r.type == "tool_result"}
        stored = {r.event["event_id"] for r in log if r.type == "external_event"}
        if any(r.event["message_id"] not in ended for r in log if r.type == "message"):
            return False
        if any(r.event["tool_call_id"] not in results for r in log if r.type == "tool_call"):
            return False
        if any(p.event_id not in stored for p in self.history.published):
            return False
        newest = {r.topic: r.event["id"] for r in log if r.type not in INTERNAL}
        return all(c.has(newest[f"{c.tenant}.session.{c.session_id}"]) for c in self.callers)

    async def _audit(self) -> None:
        """Replay every session from its beginning, as often as the edge says to come again: brokers may be settling."""
        async with asyncio.timeout(QUIET_WITHIN):
            for caller in {caller.session_id: caller for caller in self.callers}.values():
                while not await self._replayed(caller):
                    pass

    async def _replayed(self, caller: Caller) -> bool:
        url = socket_url(self.chaos.edges()[-1], caller.session_id, caller.token, "0")
        connection = self.history.connected(caller.tenant, caller.session_id, (FROM_THE_START, 0))
        try:
            async with connect(url, compression=None, max_size=None) as socket:
                while not connection.frames or connection.frames[-1]["type"] != "replay_complete":
                    connection.frames.append(json.loads(await socket.recv()))
        except ConnectionClosedError as closed:
            if closed.rcvd and closed.rcvd.code == CloseCode.SERVICE_RESTART:
                return False
            raise
        connection.is_last = True
        return True

    def report(self, violations: list[str], directory: Path) -> str:
        """What a person needs to look into it."""
        file = directory / f"history-{self.seed}.json"
        self.history.save(file)
        steps = "\n".join(f"  {step}" for step in self.steps)
        found = "\n".join(f"  {text}" for text in violations[:40])
        return f"seed {self.seed}, {len(violations)} violations:\n{found}\nplan:\n{steps}\nhistory: {file}\n"
