"""P1 to P7 on three brokers that hold the log three times, while one of them or two die or hang, and runners with them.

`--cluster-rounds N` runs more of them, `--crash-seed S` begins with another seed.
"""

from collections import Counter
from pathlib import Path

import pytest

from tests.harness.cluster import Cluster, cluster
from tests.harness.cluster_rounds import ClusterRound, differences
from tests.harness.history import Record
from tests.harness.system import SERVICES, system
from tests.harness.takeovers import said, takeovers

pytestmark = pytest.mark.anyio

CONFIG = '[[tools.rules]]\ntool = "demo.note"\ndecision = "ask"\nexpires = 2\n'
ROUNDS_OF_A_SYSTEM = 20


@pytest.fixture(scope="module")
def seeds(request: pytest.FixtureRequest) -> range:
    """The rounds that were asked for."""
    first: int = request.config.getoption("--crash-seed")
    return range(first, first + request.config.getoption("--cluster-rounds"))


async def test_no_promise_is_broken_whichever_broker_dies_or_hangs(seeds: range, tmp_path: Path) -> None:
    """FACTS 3: the log has one history, the same on each server, and services go on with whoever is left."""
    times: list[float] = []
    for first in range(0, len(seeds), ROUNDS_OF_A_SYSTEM):
        directory = tmp_path / f"{first}"
        directory.mkdir()
        times += await run_rounds(seeds[first : first + ROUNDS_OF_A_SYSTEM], directory)
    print(f"{len(seeds)} rounds, {said(times)}")


async def run_rounds(seeds: range, directory: Path) -> list[float]:
    """These rounds, one after another, on one cluster; the times of its takeovers."""
    times: list[float] = []
    async with system(
        directory, services=(*SERVICES, "edge", "agent_runner"), config=CONFIG, broker=cluster
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
