"""The connections of services, straight to the broker of the test or through a proxy."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from broker import connect as connecting
from broker.connect import Broker, connect
from broker.feed import Feed, Feeds
from broker.folded import Folded, holding
from broker.hold import Hold
from tests.broker.holders import ROOMY, Seen, delivery, say
from tests.broker.readers import TOPIC
from tests.harness.nats_server import NatsServer
from tests.harness.proxy import Proxy, proxied

Connect = Callable[..., AbstractAsyncContextManager[Broker]]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections notice and repair what is broken in a tenth of the time."""
    monkeypatch.setattr(connecting, "PING_INTERVAL", 0.1)
    monkeypatch.setattr(connecting, "RECONNECT_WAIT", (0.01, 0.02))
    monkeypatch.setattr(connecting, "WATCH_EVERY", 0.05)


@pytest.fixture
async def proxy(nats: NatsServer) -> AsyncIterator[Proxy]:
    """A proxy to the broker of the test."""
    async with proxied(nats.url) as proxy:
        yield proxy


@pytest.fixture
def service(nats: NatsServer) -> Connect:
    """`service("edge")` or `service("edge", proxy)`: a service's connection, to be entered."""

    def connected(name: str, proxy: Proxy | None = None) -> AbstractAsyncContextManager[Broker]:
        return connect(proxy.url if proxy else nats.url, name, seed_file=nats.seed(name))

    return connected


@pytest.fixture
async def edge(service: Connect) -> AsyncIterator[Broker]:
    """The edge's connection: it writes messages, cancels and approvals, and hears everything live."""
    async with service("edge") as broker:
        yield broker


@pytest.fixture
async def agent(service: Connect) -> AsyncIterator[Broker]:
    """An agent runner's connection: it writes the lanes `agent` and `call`, and deltas."""
    async with service("agent_runner") as broker:
        yield broker


@pytest.fixture
async def reading(service: Connect, proxy: Proxy) -> AsyncIterator[Broker]:
    """The edge's connection through the proxy, whose live messages a test may lose."""
    async with service("edge", proxy) as broker:
        yield broker


@pytest.fixture
async def feeds(reading: Broker) -> Feeds:
    return Feeds(reading)


@pytest.fixture
async def feed(feeds: Feeds) -> AsyncIterator[Feed]:
    feed = await feeds.acquire(TOPIC)
    yield feed
    await feeds.release(feed)


@pytest.fixture
async def runner(service: Connect, proxy: Proxy) -> AsyncIterator[Broker]:
    """An agent runner's connection through the proxy, whose live messages a test may lose."""
    async with service("agent_runner", proxy) as broker:
        yield broker


@pytest.fixture
def folded() -> Folded[Seen]:
    return Folded(Seen, ROOMY)


@pytest.fixture
async def hold(runner: Broker, edge: Broker, folded: Folded[Seen]) -> AsyncIterator[Hold[Seen]]:
    """Somebody holds the first message."""
    await say(edge)
    async with holding(runner, delivery(runner), folded) as hold:
        assert hold.state.seqs == [1]
        yield hold
