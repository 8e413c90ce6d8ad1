"""The life of a service's process: its settings, its stop, its exit codes."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM, Signals

import pytest

from broker.ports import free_port
from tests.harness.nats_server import NatsServer
from tests.harness.program import Program, program
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

Start = Callable[..., AbstractAsyncContextManager[Program]]


@pytest.fixture
def start(nats: NatsServer, tmp_path: Path) -> Start:
    """Start a service in some mode, with settings."""

    @asynccontextmanager
    async def starting(mode: str, **settings: object) -> AsyncIterator[Program]:
        given = {"NATS_URL": nats.url, "NKEY": nats.seed("edge"), **settings}
        env = {f"MILLRACE_{name}": str(value) for name, value in given.items()}
        async with program("tests.harness.service", "edge", mode, env=env, cwd=tmp_path) as started:
            yield started

    return starting


async def _get(port: int, path: str) -> int:
    def get() -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    return await asyncio.to_thread(get)


async def _answers(port: int, path: str, status: int) -> None:
    async def answered() -> bool:
        return await _get(port, path) == status

    await until(answered, within=20)


@pytest.mark.parametrize("number", [SIGTERM, SIGINT])
async def test_a_stopped_process_finishes_and_exits_with_0(start: Start, number: Signals) -> None:
    """STYLE R10: stop intake, finish, release, close."""
    async with start("wait") as service:
        await service.says("running")
        service.signal(number)
        assert await service.exit() == 0
        assert service.output == ["running", "stopped"]


async def test_work_that_takes_longer_than_the_grace_is_cancelled(start: Start) -> None:
    """STYLE R10: a deadline bounds it; what was held goes back to the broker."""
    async with start("deaf", DRAIN_GRACE=0.1) as service:
        await service.says("running")
        service.signal(SIGTERM)
        assert await service.exit() == 0
        assert service.output == ["running", "cancelled"]


async def test_a_second_signal_ends_the_grace(start: Start) -> None:
    """Our choice: a person who asks twice does not wait."""
    async with start("deaf", DRAIN_GRACE=3600) as service:
        await service.says("running")
        service.signal(SIGINT)
        service.signal(SIGTERM)
        assert await service.exit() == 0


@pytest.mark.parametrize("mode", ["fail", "leave"])
async def test_a_service_that_ends_unasked_exits_with_1(start: Start, mode: str) -> None:
    """Our choice: 1 is to be restarted."""
    async with start(mode) as service:
        assert await service.exit() == 1


async def test_a_connection_that_is_closed_for_good_ends_the_process_with_1(start: Start) -> None:
    """DESIGN 3, FACTS P2 and P3: nothing is repaired in process, and `run` may say goodbye."""
    async with start("oversize") as service:
        assert await service.exit() == 1
        assert service.output == ["stopped"]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"NATS_URI": "x"}, "MILLRACE_NATS_URI is not a setting"),
        ({"PORT": "many"}, "MILLRACE_PORT=many"),
        ({"NKEY": "/nowhere/edge.nk"}, "MILLRACE_NKEY=/nowhere/edge.nk: no such file"),
        ({"CONFIG": "/nowhere/millrace.toml"}, "/nowhere/millrace.toml"),
    ],
)
async def test_a_wrong_setting_is_one_line_and_exit_code_2(start: Start, settings: dict[str, str], reason: str) -> None:
    """Our choice: 2 is not to be restarted before somebody has corrected it."""
    async with start("wait", **settings) as service:
        assert await service.exit() == 2
        (line,) = service.errors
        assert line.startswith("edge: ")
        assert reason in line


async def test_a_setting_that_the_service_itself_refuses_is_exit_code_2(start: Start) -> None:
    """Our choice: the same for what only the service understands."""
    async with start("refuse") as service:
        assert await service.exit() == 2
        assert service.errors[-1] == "edge: MILLRACE_CONFIG: this service does not like it"


async def test_a_port_in_use_is_one_line_and_exit_code_2(start: Start, nats: NatsServer) -> None:
    """Our choice: the line names the port."""
    async with start("wait", PORT=nats.server.port) as service:
        assert await service.exit() == 2
        assert str(nats.server.port) in service.errors[-1]


async def test_a_process_waits_for_its_broker_alive_and_not_ready(start: Start, nats: NatsServer) -> None:
    """DESIGN 4: services wait and reconnect."""
    port = free_port("127.0.0.1")
    await nats.stop()
    async with start("wait", PORT=port) as service:
        await _answers(port, "/healthz", 200)
        assert await _get(port, "/readyz") == 503
        await nats.start()
        await _answers(port, "/readyz", 200)
        service.signal(SIGTERM)
        assert await service.exit() == 0


async def test_a_process_that_waits_for_its_broker_can_be_stopped(start: Start, nats: NatsServer) -> None:
    """Our choice: nothing was begun, so nothing is finished."""
    port = free_port("127.0.0.1")
    await nats.stop()
    async with start("wait", PORT=port) as service:
        await _answers(port, "/healthz", 200)
        service.signal(SIGTERM)
        assert await service.exit() == 0
        assert service.output == []


async def test_readiness_follows_the_broker(start: Start, nats: NatsServer) -> None:
    """DESIGN 4: a single broker may die and come back."""
    port = free_port("127.0.0.1")
    async with start("wait", PORT=port) as service:
        await _answers(port, "/readyz", 200)
        await nats.kill()
        await _answers(port, "/readyz", 503)
        await nats.start()
        await _answers(port, "/readyz", 200)
        service.signal(SIGKILL)


async def test_metrics_are_served(start: Start) -> None:
    """WIRE 3: `/metrics` on every service."""
    port = free_port("127.0.0.1")
    async with start("wait", PORT=port):
        await _answers(port, "/metrics", 200)
        assert await _get(port, "/elsewhere") == 404
