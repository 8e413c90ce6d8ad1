"""A log for each file, and names that no other test uses."""

from collections.abc import AsyncIterator
from itertools import count

import pytest

from contracts.subjects import Topic
from edge.principal import Principal
from tests.edge.sessions.writers import Writers, caller, writing

names = count()


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The broker lives as long as the file, so its loop does too."""
    return "asyncio"


@pytest.fixture(scope="module")
async def log(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Writers]:
    """A log, and those who write it."""
    async with writing(tmp_path_factory.mktemp("log")) as writers:
        yield writers


@pytest.fixture
def topic() -> Topic:
    """A session of the test's own."""
    return Topic.session("acme", f"s{next(names)}")


@pytest.fixture
def ann() -> Principal:
    """A user of the test's own."""
    return caller(f"ann{next(names)}")


@pytest.fixture
def bob() -> Principal:
    """Another one."""
    return caller(f"bob{next(names)}")
