"""What every test may ask for."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness.nats_server import NatsServer, nats_server


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio."""
    return "asyncio"


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A provisioned nats-server of the test's own, with the tenants `acme` and `globex`."""
    async with nats_server(tmp_path / "nats") as server:
        yield server


def pytest_addoption(parser: pytest.Parser) -> None:
    """What the broker runs in, and how long the crash tests of tests/pipeline go on."""
    parser.addoption("--broker", choices=("process", "container"), default="process", help="what the broker runs in")
    parser.addoption("--crash-rounds", type=int, default=80, help="how many rounds")
    parser.addoption("--crash-points", default="all", help="how many directed rounds, `all`, or a pattern")
    parser.addoption("--cluster-rounds", type=int, default=4, help="how many rounds on three brokers")
    parser.addoption("--cluster-points", default="4", help="as --crash-points, on three brokers")
    parser.addoption("--crash-seed", type=int, default=1, help="the first round's seed")


def pytest_configure(config: pytest.Config) -> None:
    """Choose what runs the broker."""
    if config.getoption("--broker") == "container":
        from tests.harness import nats_container, nats_server

        nats_server.server_class = nats_container.NatsContainer
