"""P1 to P7 and P10 while processes die and hang: seeded rounds, each judged by the checker.

`--crash-rounds N` runs more of them, `--crash-seed S` begins with another seed; a round that fails prints its
own, and `--crash-rounds 1 --crash-seed S` plans it again.
"""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from tests.harness.history import Record
from tests.harness.rounds import CONFIG, Round
from tests.harness.system import system
from tests.harness.takeovers import said, takeovers

pytestmark = pytest.mark.anyio

ROUNDS_OF_A_SYSTEM = 25
LANES = 4
"""Systems side by side: a round mostly waits for somebody to take over."""


@pytest.fixture(scope="module")
def seeds(request: pytest.FixtureRequest) -> range:
    """The rounds that were asked for."""
    first: int = request.config.getoption("--crash-seed")
    return range(first, first + request.config.getoption("--crash-rounds"))


async def test_no_promise_is_broken_whatever_dies_or_hangs(seeds: range, tmp_path: Path) -> None:
    """FACTS 3: every round kills or pauses real processes; an odd seed has a second agent runner."""
    async with asyncio.TaskGroup() as lanes:
        for lane in range(LANES):
            directory = tmp_path / f"{lane}"
            directory.mkdir()
            own = [seed for seed in seeds if seed % LANES == lane]
            lanes.create_task(run_all(own, directory, runners=1 + lane % 2))


async def run_all(seeds: list[int], directory: Path, *, runners: int) -> None:
    """Every round, on fresh systems now and then: a log that grows makes each verdict slower."""
    for first in range(0, len(seeds), ROUNDS_OF_A_SYSTEM):
        place = directory / f"{first}"
        place.mkdir()
        await run_rounds(seeds[first : first + ROUNDS_OF_A_SYSTEM], place, runners=runners)


async def run_rounds(seeds: list[int], directory: Path, *, runners: int) -> None:
    """These rounds, one after another, on one system."""
    async with system(directory, config=CONFIG, measured=False) as running:
        for name in ("edge", *["agent_runner"] * (runners - 1)):
            await (await running.add(name)).ready()
        log: list[Record] = []
        for seed in seeds:
            this = Round(running, seed, log)
            violations = await this.run()
            over = dict(Counter(connection.transport for connection in this.history.connections))
            faults, found = len(this.history.faults), said(takeovers(this.history.log, this.history.faults))
            print(
                f"round {seed}: {len(log)} records, {faults} faults, connections {over}, {found}, "
                f"{len(violations)} violations"
            )
            assert not violations, this.report(violations, directory)
