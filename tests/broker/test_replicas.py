"""Holding on a replicated log, where a condition excludes other conditions and not what is appended without one."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from broker.append import Append, append
from broker.connect import Broker, connect
from broker.hold import Hold
from broker.prefix import Prefix
from broker.read import read
from contracts import events
from tests.broker.holders import CANCEL, MESSAGE, TOPIC, Seen, delivery, status
from tests.harness.cluster import Cluster, cluster

pytestmark = pytest.mark.anyio

RACES = 100


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The cluster lives as long as this file, so its loop does too."""
    return "asyncio"


@pytest.fixture(scope="module")
async def three(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Three brokers."""
    async with cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


async def places(broker: Broker) -> list[int]:
    """Where the topic's facts are."""
    return [record.seq async for records in read(broker, TOPIC.facts, 0) for record in records]


async def say_something(edge: Broker) -> None:
    """Store a message without a condition."""
    await append(edge, Append(MESSAGE, CANCEL, events.new_id()))


async def test_a_holder_folds_what_came_between_its_append_and_the_fact_that_it_names(three: Cluster) -> None:
    """Else a message may be missing in its state: its holder would take it for one that has ended, and ack it."""
    async with (
        connect(three.url, "edge", seed_file=three.seed("edge")) as edge,
        connect(three.url, "agent_runner", seed_file=three.seed("agent_runner")) as runner,
    ):
        seen = Seen()
        hold = Hold(runner, delivery(runner), TOPIC, Prefix(seen))
        await hold.look()
        refused = 0
        for number in range(RACES):
            put, _ = await asyncio.gather(hold.append(status(f"e{number}")), say_something(edge))
            refused += put is None
        assert refused < RACES
        await hold.look()
        assert seen.seqs == await places(runner)
