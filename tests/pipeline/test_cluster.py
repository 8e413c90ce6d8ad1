"""P1 to P7 on three brokers that hold the log three times, while one of them or two die or hang, and runners with them.

`--cluster-rounds N` runs more of them, `--cluster-points N` (or `all`, or a pattern) more of those at chosen points,
`--crash-seed S` begins with another seed.
"""

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from contracts.streams import SERVICES
from tests.harness.cluster import Cluster, cluster
from tests.harness.cluster_rounds import ClusterDirected, ClusterRound, differences
from tests.harness.directed import run_points
from tests.harness.history import Record
from tests.harness.points import hands
from tests.harness.rounds import CONFIG
from tests.harness.system import system
from tests.harness.takeovers import said, takeovers

pytestmark = pytest.mark.anyio

ROUNDS_OF_A_SYSTEM = 20


@pytest.fixture(scope="module")
def seeds(request: pytest.FixtureRequest) -> range:
    """The rounds that were asked for."""
    first: int = request.config.getoption("--crash-seed")
    return range(first, first + request.config.getoption("--cluster-rounds"))


async def test_no_promise_is_broken_whichever_broker_dies_or_hangs(
    seeds: range, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """FACTS 3: the log has one history, the same on each server, and services go on with whoever is left.

    Side by side, for most of a round is waiting: random rounds, and points as in test_points.py with one process of
    each service and with three.
    """
    wanted, seed = request.config.getoption("--cluster-points"), request.config.getoption("--crash-seed")
    async with asyncio.TaskGroup() as lanes:
        lanes.create_task(run_all(seeds, tmp_path / "random"))
        for processes, offset in ((1, 0.25), (3, 0.75)):
            dealt = hands(random.Random(seed), wanted, offset)
            place = tmp_path / f"{processes}"
            lanes.create_task(run_points(ClusterDirected, dealt, place, seed, processes, broker=cluster))


async def run_all(seeds: range, directory: Path) -> None:
    """Every random round, on fresh systems now and then."""
    times: list[float] = []
    for first in range(0, len(seeds), ROUNDS_OF_A_SYSTEM):
        place = directory / f"{first}"
        place.mkdir(parents=True)
        times += await run_rounds(seeds[first : first + ROUNDS_OF_A_SYSTEM], place)
    print(f"{len(seeds)} rounds, {said(times)}")


async def run_rounds(seeds: range, directory: Path) -> list[float]:
    """These rounds, one after another, on one cluster; the times of its takeovers."""
    times: list[float] = []
    async with system(
        directory, services=(*SERVICES, "edge", "agent_runner"), config=CONFIG, broker=cluster, measured=False
    ) as running:
        log: list[Record] = []
        for seed in seeds:
            this = ClusterRound(running, seed, log)
            violations = await this.run()
            times += (found := takeovers(this.history.log, this.history.faults))
            faults = dict(Counter(f"{fault.service} {fault.what}" for fault in this.history.faults))
            print(f"round {seed}: {len(log)} records, {faults}, {said(found)}, {len(violations)} violations")
            assert not violations, this.report(violations, directory)
        assert isinstance(running.nats, Cluster)
        assert await differences(running.nats) == []
    return times
