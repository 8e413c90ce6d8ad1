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
