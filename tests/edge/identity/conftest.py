"""What the tests of identity share: an issuer's web server, edges, and the operator at the command line."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from broker.connect import Broker, connect
from contracts.config import Auth
from edge.identity.identity import Identity
from edge.identity.tokens import Tokens
from tests.edge.identity.issuer import SECRET, Jwks, serving
from tests.harness.nats_server import NatsServer
from tests.harness.proxy import Proxy, proxied


@pytest.fixture
def issuer() -> Iterator[Jwks]:
    """The web server of an issuer."""
    with serving() as jwks:
        yield jwks


@pytest.fixture
def jwks_file(tmp_path: Path) -> Path:
    """Where a document may be."""
    return tmp_path / "jwks.json"


@pytest.fixture
async def edge(nats: NatsServer) -> AsyncIterator[Broker]:
    """An edge's connection."""
    async with connect(nats.url, "edge", seed_file=nats.seed("edge")) as broker:
        yield broker


@pytest.fixture
async def other_edge(nats: NatsServer) -> AsyncIterator[Broker]:
    """Another edge's."""
    async with connect(nats.url, "edge", seed_file=nats.seed("edge")) as broker:
        yield broker


@pytest.fixture
async def operator(nats: NatsServer) -> AsyncIterator[Broker]:
    """The operator's."""
    async with connect(nats.url, "operator", seed_file=nats.seed("operator")) as broker:
        yield broker


@pytest.fixture
async def proxy(nats: NatsServer) -> AsyncIterator[Proxy]:
    """A proxy to the broker of the test."""
    async with proxied(nats.url) as proxy:
        yield proxy


def identity_of(broker: Broker, auth: Auth = Auth()) -> Identity:  # noqa: B008 - frozen
    """The identity of an edge with the secret of the test."""
    return Identity(broker, auth, Tokens(auth, SECRET))


@pytest.fixture
def identity(edge: Broker) -> Identity:
    """An edge's, of which nothing runs in the background."""
    return identity_of(edge)


@pytest.fixture
def other_identity(other_edge: Broker) -> Identity:
    """Another edge's."""
    return identity_of(other_edge)
