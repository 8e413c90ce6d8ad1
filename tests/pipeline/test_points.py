"""P1 to P7 at every single point of a turn: a process dies or hangs exactly there, and the checker judges what is left.

Every point, by kill and by pause, with one process of each service and with three. `--crash-points N` has so many
rounds of each kind, and a pattern only those of that name, as `agent_runner:append:turn_end:*:kill`. `--crash-seed S`
deals them in another order.
"""

import asyncio
import random
from pathlib import Path

import pytest

from contracts import events
from tests.harness.directed import Directed, run_points
from tests.harness.points import POINTS, hands

pytestmark = pytest.mark.anyio

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
                lanes.create_task(run_points(Directed, dealt[lane::LANES], place, seed, processes))


OF_NO_TURN = {"session_updated", "session_listed", "agent_update", "memory_update"}


def test_there_is_a_point_at_every_append_of_a_turn_and_a_round_for_every_scenario() -> None:
    """`agent_update` and `memory_update` are spoken by nobody yet."""
    appended = {name.partition(":")[2] for names in POINTS.values() for name in names if name.startswith("append:")}
    assert appended == (events.TAGS - OF_NO_TURN) | {"letter"}
    dealt = {
        (card.service, card.point.rpartition(":")[0], card.scenario, card.nth)
        for offset in (0.0, 0.5)
        for hand in hands(random.Random(1), "all", offset)
        for card in hand
    }
    for service, points in POINTS.items():
        for point, scenarios in points.items():
            for scenario in scenarios:
                name, _, nth = scenario.partition(":")
                assert (service, point, name, int(nth or "1")) in dealt
