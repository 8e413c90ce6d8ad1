"""P1 to P7 at every single point of a turn: a process dies or hangs exactly there, and the checker judges what is left.

Every point, by kill and by pause, with one process of each service and with three. `--crash-points N` has so many
rounds of each kind, and a pattern only those of that name, as `agent_runner:append:turn_end:*:kill`. `--crash-seed S`
deals them in another order.
"""

import asyncio
import random
from pathlib import Path

import pytest

from tests.harness.directed import CONFIG, SERVICES, Directed, Hand, run_hands
from tests.harness.points import hands
from tests.harness.system import system

pytestmark = pytest.mark.anyio

ROUNDS_OF_A_SYSTEM = 20
LANES = 2
"""Systems of each kind side by side: a round mostly waits for somebody to take over."""


async def test_no_promise_is_broken_wherever_a_process_dies_or_hangs(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """With one process of each service, which comes back, and with three, of which another takes over."""
    wanted, seed = request.config.getoption("--crash-points"), request.config.getoption("--crash-seed")
    async with asyncio.TaskGroup() as lanes:
        for processes, offset in ((1, 0.0), (3, 0.5)):
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
        async with system(place, services=SERVICES * processes, config=CONFIG, measured=False) as running:
            await run_hands(running, Directed, seed * 1000 + first, dealt[first : first + ROUNDS_OF_A_SYSTEM])
