"""P1 to P7 at every single point of a turn: a process dies or hangs exactly there, and the checker judges what is left.

`--crash-points N` runs N rounds on each system, `all` every combination of point and fault, and a pattern only those of
that name, as `agent_runner:append:turn_end:*:kill`. `--crash-seed S` deals them in another order.
"""

import asyncio
import random
from pathlib import Path

import pytest

from tests.harness.directed import Directed
from tests.harness.history import Record
from tests.harness.points import Combination, hands
from tests.harness.system import system
from tests.harness.takeovers import said, takeovers

pytestmark = pytest.mark.anyio

CONFIG = """
[[tools.rules]]
tool = "demo.note"
decision = "ask"
expires = 30

[agents.stepping]
run = "tests.harness.stepping:stepping"
tools = ["demo.*"]
"""
ROUNDS_OF_A_SYSTEM = 20
LANES = 2
"""Systems of each kind side by side: a round mostly waits for somebody to take over."""

Hand = tuple[Combination, ...]


async def test_no_promise_is_broken_wherever_a_process_dies_or_hangs(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """With one process of each service, which comes back, and with three, of which another takes over."""
    wanted, seed = request.config.getoption("--crash-points"), request.config.getoption("--crash-seed")
    async with asyncio.TaskGroup() as lanes:
        for processes, offset in ((1, 0.0), (3, 0.25)):
            dealt = hands(random.Random(seed), wanted, offset)
            for lane in range(LANES):
                place = tmp_path / f"{processes}-{lane}"
                place.mkdir()
                lanes.create_task(run_all(dealt[lane::LANES], place, seed, processes))


async def run_all(dealt: list[Hand], directory: Path, seed: int, processes: int) -> None:
    """Every round, on fresh systems now and then: a log that grows makes each verdict slower."""
    for first in range(0, len(dealt), ROUNDS_OF_A_SYSTEM):
        place = directory / f"{first}"
        place.mkdir()
        await run_rounds(dealt[first : first + ROUNDS_OF_A_SYSTEM], place, seed * 1000 + first, processes)


async def run_rounds(dealt: list[Hand], directory: Path, seed: int, processes: int) -> None:
    """These rounds, one after another, on one system."""
    services = ("edge", "agent_runner", "tool_runner") * processes
    times: list[float] = []
    async with system(directory, services=services, config=CONFIG, measured=False) as running:
        log: list[Record] = []
        for number, hand in enumerate(dealt):
            this = Directed(running, seed + number, log, hand)
            violations = await this.run()
            times += takeovers(this.history.log, this.history.faults)
            names = ", ".join(card.name for card in hand)
            print(f"{processes} of each: {names}: {len(this.history.faults)} faults, {len(violations)} violations")
            assert not violations, this.report(violations, directory)
    print(f"{processes} of each: {len(dealt)} rounds, {sum(map(len, dealt))} combinations, {said(times)}")
