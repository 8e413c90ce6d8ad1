"""One system for the tests of a file; a test that kills or configures has a system of its own."""

from collections.abc import AsyncIterator

import pytest

from tests.harness.system import System, system


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """A system lives as long as its file, so its loop does too."""
    return "asyncio"


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """The whole system, with a second edge."""
    async with system(tmp_path_factory.mktemp("system")) as running:
        second = await running.add("edge")
        await second.ready()
        yield running
