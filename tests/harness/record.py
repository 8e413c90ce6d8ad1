"""Record the history that test_checker.py plants its faults in: `python -m tests.harness.record FILE`.

Two sessions of two tenants, and in them everything that the checker has a rule for: a runner killed in mid-stream, a
tool runner killed with a note taken, notes approved and rejected, a cancel, a message refused, a client that drops.
"""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.harness.caller import Caller
from tests.harness.client import new_session
from tests.harness.rounds import TENANTS, Round
from tests.harness.system import system
from tests.harness.wait import until
from tests.harness.workload import Target, approve, publish

CONFIG = '[[tools.rules]]\ntool = "demo.note"\ndecision = "ask"\n'


class Recording(Round):
    """One round without chance."""

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Two clients of a session of the first tenant, one of a session of the second."""
        running: list[asyncio.Task[None]] = []
        for tenant, clients in zip(TENANTS, (2, 1), strict=True):
            token = self.system.token(tenant, f"user-{tenant}")
            session_id = await new_session(self.system.edge, token)
            for _ in range(clients):
                caller = Caller(self.history, self.chaos.edges, (tenant, session_id, token))
                caller.approve = approve
                self.callers.append(caller)
                running.append(asyncio.create_task(caller.run()))
        yield
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def work(self) -> list[str]:
        """One thing after another."""
        first, second, other = self.callers
        runner, tools = (slot for slot in self.chaos.slots if slot.name in ("agent_runner", "tool_runner"))
        said = await first.say([{"stream": {"deltas": 30, "interval_ms": 20}}])
        await until(lambda: len(first.of("stream_delta")) > 8)
        await second.drop()
        runner.service.process.kill()
        await until(lambda: said.message_ids[0] in first.ended and said.message_ids[0] in second.ended, within=20)
        notes = ("rejected no", "taken yes")
        await first.say([{"tool": "demo.note", "arguments": {"text": f"{self.mark} {text}"}} for text in notes])
        await until(lambda: len(first.of("turn_end")) == 2, within=20)
        await tools.arm("call:after:1:kill")
        await tools.ready()
        canary = self.history.canaries["globex"]
        await other.say([{"say": canary}, {"tool": "demo.note", "arguments": {"text": f"{self.mark} unknown yes"}}])
        await until(lambda: other.of("turn_end"), within=20)
        long = await first.say([{"stream": {"deltas": 500, "interval_ms": 20}}])
        await until(lambda: len(second.of("stream_delta")) > len(first.of("turn_end")))
        await second.say("not now", "reject")
        await first.cancel(long.message_ids[0])
        await until(lambda: len(second.of("turn_end")) == 3)
        target = Target("acme", {"sessionid": first.session_id})
        await publish(self.clients["acme"], self.history, target, self.history.canaries["acme"])
        return await self.quiet()


async def main(file: Path) -> None:
    """Record, check, store."""
    with tempfile.TemporaryDirectory() as directory:
        async with system(Path(directory), config=CONFIG) as running:
            await (await running.add("edge")).ready()
            recording = Recording(running, 0, [])
            violations = await recording.run()
            assert not violations, violations
            recording.history.save(file)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
