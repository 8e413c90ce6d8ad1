"""Commands beside a running broker."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from millrace.datadir import DataDir
from tests.harness.nats_server import NatsServer, known_at, nats_server
from tests.harness.program import Program, program

Millrace = Callable[..., AbstractAsyncContextManager[Program]]


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    """The data directory of the broker."""
    return DataDir.at(str(tmp_path / "data"))


@pytest.fixture
async def nats(data: DataDir) -> AsyncIterator[NatsServer]:
    """A broker whose data directory is known to the commands."""
    async with nats_server(data.path) as server:
        known_at(data, server)
        yield server


@pytest.fixture
def millrace(data: DataDir, tmp_path: Path) -> Millrace:
    """Run a command on that data directory."""

    @asynccontextmanager
    async def running(*arguments: str, **env: str) -> AsyncIterator[Program]:
        given = (*arguments, "--data", str(data.path))
        async with program("millrace", *given, env=env, cwd=tmp_path) as started:
            yield started

    return running


async def said(millrace: Millrace, *arguments: str) -> str:
    """What a command that succeeds prints."""
    async with millrace(*arguments) as running:
        assert await running.exit() == 0, running.errors
        assert running.errors == []
        return running.text


async def refused(running: Program, code: int, *words: str) -> None:
    """A command ends with that exit code and one line that has those words."""
    assert await running.exit() == code
    (line,) = running.errors
    assert all(word in line for word in words), line
