"""`millrace up`: what a person sees who starts it, stops it, and starts it again."""

import os
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM, Signals

import jwt
import msgspec
import pytest

from broker.oneshot import oneshot
from broker.ports import free_port
from millrace.datadir import DataDir
from millrace.services import SERVICES
from tests.harness.program import Program, is_running, program
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

CHILDREN = ("nats-server", *(service.name for service in SERVICES))
RUNNER = "_IN.agent_runner"
Up = Callable[..., AbstractAsyncContextManager[Program]]


@pytest.fixture
def up(tmp_path: Path) -> Up:
    """Run `millrace up` with services that do nothing, in a directory of the test's own."""
    port = free_port("127.0.0.1")

    @asynccontextmanager
    async def running(*arguments: str, **env: str) -> AsyncIterator[Program]:
        given = ("--port", str(port), *arguments)
        async with program("tests.harness.fake_up", *given, env=env, cwd=tmp_path) as started:
            yield started

    return running


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    """The data directory that it uses by default."""
    return DataDir.at(str(tmp_path / "millrace-data"))


async def _epoch(data: DataDir) -> str:
    url, seed = data.state().nats_url, str(data.credentials.user("provisioner"))
    async with oneshot(url, seed, inbox="_IN.provisioner") as client:
        info = msgspec.json.decode((await client.request("$JS.API.STREAM.INFO.LOG")).data)
    return str(info["config"]["metadata"]["epoch"])


async def _stopped(running: Program, number: Signals = SIGINT) -> None:
    """Stop it and check that it ends well and leaves nothing behind."""
    children = running.children()
    running.signal(number)
    assert await running.exit() == 0, running.errors
    assert not [pid for pid in children if is_running(pid)]


async def test_it_says_where_everything_is_and_what_to_try(up: Up, data: DataDir) -> None:
    """WIRE 6: the address with a token, the broker, the publishing credentials, what is next."""
    async with up() as running:
        await running.says("Try in another terminal")
        await running.says("millrace publish")
        address = re.search(r"http://127\.0\.0\.1:\d+/#token=(\S+)", running.text)
        assert address
        claims = jwt.decode(address[1], options={"verify_signature": False})
        assert (claims["tenant"], claims["sub"]) == ("dev", "dev")
        assert data.state().nats_url in running.text
        assert "millrace-data/credentials/dev.nk" in running.text
        assert len(running.output) < 25
        assert running.errors == []
        await _stopped(running)


@pytest.mark.parametrize("number", [SIGINT, SIGTERM])
async def test_it_drains_and_leaves_nothing_running(up: Up, data: DataDir, number: Signals) -> None:
    """Issue 2, item 1: Ctrl-C drains and stops everything."""
    async with up() as running:
        await running.says("Millrace is running")
        assert len(running.children()) == len(CHILDREN)
        await _stopped(running, number)
        assert running.output[-1] == "Stopped."
    for service in SERVICES:
        assert "stopped" in data.log(service.name).read_text().splitlines()
    assert not data.running.path.exists()


async def test_it_can_be_stopped_while_it_starts(up: Up) -> None:
    """Issue 2, item 1: nothing is left running, whenever Ctrl-C comes."""
    async with up() as running:
        await until(running.children, within=20)
        await _stopped(running)


async def test_a_second_start_finds_what_the_first_left(up: Up, data: DataDir) -> None:
    """Issue 2, item 1: the port, the credentials and the log are the same."""
    found = []
    for _ in range(2):
        async with up() as running:
            await running.says("Millrace is running")
            secrets = [path.read_bytes() for path in sorted(data.credentials.directory.rglob("*.*"))]
            found.append((await _epoch(data), data.state().nats_port, secrets))
            await _stopped(running)
    assert found[0] == found[1]


async def test_a_child_that_is_killed_is_started_again(up: Up) -> None:
    """Issue 2, item 1: and a line says so."""
    async with up() as running:
        await running.says("Millrace is running")
        for name in CHILDREN:
            before = set(running.children())
            (victim,) = (pid for pid in before if _is(pid, name))
            os.kill(victim, SIGKILL)
            await running.says(f"{name} died (SIGKILL) and was started again")
            (new,) = set(running.children()) - before
            await until(partial(_is, new, name))
        await _stopped(running)


async def test_the_broker_comes_back_on_its_port_with_its_store(up: Up, data: DataDir) -> None:
    """Issue 2, item 8: nothing accepted is lost when nats-server is killed."""
    async with up() as running:
        await running.says("Millrace is running")
        epoch = await _epoch(data)
        os.kill(next(pid for pid in running.children() if _is(pid, "nats-server")), SIGKILL)
        await running.says("nats-server died")
        assert await until(lambda: _epoch_or_none(data), within=10) == epoch
        await _stopped(running)


async def _epoch_or_none(data: DataDir) -> str | None:
    from broker.connect import Unavailable

    try:
        return await _epoch(data)
    except Unavailable:
        return None


async def test_nothing_outlives_a_killed_up(up: Up, data: DataDir) -> None:
    """Issue 2, item 1: nothing is left running, and the next start finds the directory free."""
    async with up() as running:
        await running.says("Millrace is running")
        children = running.children()
        running.signal(SIGKILL)
        await running.exit()
        await until(lambda: not [pid for pid in children if is_running(pid)])
    async with up() as running:
        await running.says("Millrace is running")
        await _stopped(running)


async def test_a_second_ctrl_c_kills(up: Up) -> None:
    """Our choice: a person who asks twice does not wait for the grace."""
    async with up(FAKE_AGENT_RUNNER="deaf", MILLRACE_DRAIN_GRACE="3600") as running:
        await running.says("Millrace is running")
        children = running.children()
        running.signal(SIGINT)
        await running.says("a second Ctrl-C kills")
        running.signal(SIGINT)
        await running.exit()
        assert not [pid for pid in children if is_running(pid)]


async def test_a_service_that_does_not_stop_is_cancelled_in_time(up: Up, data: DataDir) -> None:
    """STYLE R10: a deadline bounds the drain."""
    async with up(FAKE_TOOL_RUNNER="deaf", MILLRACE_DRAIN_GRACE="0.2") as running:
        await running.says("Millrace is running")
        await _stopped(running)
    assert "cancelled" in data.log("tool_runner").read_text().splitlines()


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def _refused(running: Program, *words: str) -> None:
    """It ends at once with exit code 2 and one line on stderr that holds `words`."""
    assert await running.exit() == 2
    (line,) = running.errors
    assert all(word in line for word in words), line


async def test_a_port_in_use_is_one_line_and_exit_code_2(up: Up, taken: int) -> None:
    """Issue 2, item 1."""
    async with up("--port", str(taken)) as running:
        await _refused(running, str(taken), "in use", "--port")


async def test_a_data_directory_in_use_is_one_line_and_exit_code_2(up: Up, data: DataDir) -> None:
    """Issue 2, item 1: two brokers never share a store."""
    async with up() as first:
        await first.says("Millrace is running")
        async with up("--port", str(free_port("127.0.0.1"))) as second:
            await _refused(second, str(data.path), "in use", str(first.process.pid))
        await _stopped(first)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[tenants", ["millrace.toml"]),
        ("[tenants.'a.b']", ["millrace.toml", "tenants"]),
        ("[limit]\nframe_bytes = 1", ["millrace.toml", "limit"]),
    ],
)
async def test_a_broken_configuration_is_one_line_and_exit_code_2(
    up: Up, tmp_path: Path, content: str, words: list[str]
) -> None:
    """Issue 2, item 1: ./millrace.toml is read without being named."""
    (tmp_path / "millrace.toml").write_text(content)
    async with up() as running:
        await _refused(running, *words)


async def test_a_configuration_that_was_named_and_is_missing_is_exit_code_2(up: Up) -> None:
    """Issue 2, item 1."""
    async with up("--config", "other.toml") as running:
        await _refused(running, "other.toml")


async def test_a_misspelt_variable_is_one_line_and_exit_code_2(up: Up) -> None:
    """STYLE R12."""
    async with up(MILLRACE_SINC="os") as running:
        await _refused(running, "MILLRACE_SINC", "MILLRACE_SYNC")


async def test_what_a_service_refuses_at_the_start_ends_everything_with_its_line(up: Up) -> None:
    """Our choice: what no restart can mend is told at once."""
    async with up(FAKE_EDGE="refuse") as running:
        await until(running.children, within=20)
        children = running.children()
        assert await running.exit() == 2
        assert running.errors == ["millrace: edge: MILLRACE_CONFIG: this service does not like it"]
        assert not [pid for pid in children if is_running(pid)]


async def test_a_broker_port_in_use_is_replaced_by_a_free_one(up: Up, data: DataDir) -> None:
    """WIRE 6: the NATS URL is printed because it may be any."""
    async with up() as first:
        await first.says("Millrace is running")
        other = DataDir.at(str(data.path.with_name("other")))
        port = str(free_port("127.0.0.1"))
        async with up("--port", port, "--data", str(other.path)) as second:
            await second.says("Millrace is running")
            assert other.state().nats_port != data.state().nats_port
            assert await _epoch(other) != await _epoch(data)
            await _stopped(second)
        await _stopped(first)


async def test_a_new_tenant_gets_its_credentials_at_the_next_start(up: Up, data: DataDir, tmp_path: Path) -> None:
    """WIRE 6: `[tenants.<name>]`."""
    config = tmp_path / "millrace.toml"
    for tenants in (["acme"], ["acme", "globex"]):
        config.write_text("".join(f"[tenants.{tenant}]\n" for tenant in tenants))
        async with up() as running:
            await running.says("Millrace is running")
            for tenant in tenants:
                seed = str(data.credentials.tenant(tenant))
                async with oneshot(data.state().nats_url, seed) as client:
                    answer = await client.request(f"ingest.{tenant}.test.made", b"{}", timeout=10)
                    assert "error" not in msgspec.json.decode(answer.data)
            await _stopped(running)


async def test_each_group_of_agents_has_a_process_of_its_own(up: Up, data: DataDir, tmp_path: Path) -> None:
    """Our choice: an agent that uses all of a processor delays no other group's, by configuration alone."""
    (tmp_path / "millrace.toml").write_text('[agents.crunch]\nmodel = "script"\ngroup = "cpu"\n')
    async with up() as running:
        await running.says("Millrace is running")
        runners = [pid for pid in running.children() if _is(pid, "agent_runner")]
        assert sorted(_variable(pid, "MILLRACE_GROUPS") for pid in runners) == ["cpu", "default"]
        assert len(running.children()) == len(CHILDREN) + 1
        os.kill(next(pid for pid in runners if _variable(pid, "MILLRACE_GROUPS") == "cpu"), SIGKILL)
        await running.says("agent_runner_cpu died (SIGKILL) and was started again")
        log = data.log("agent_runner_cpu")
        await until(lambda: log.read_text().splitlines().count("running") == 2, within=20)
        async with oneshot(data.state().nats_url, str(data.credentials.user("agent_runner")), inbox=RUNNER) as client:
            info = msgspec.json.decode((await client.request("$JS.API.CONSUMER.INFO.LOG.agent_runner_cpu")).data)
            assert info["name"] == "agent_runner_cpu"
        await _stopped(running)
    assert "stopped" in log.read_text().splitlines()


async def test_the_sync_setting_reaches_the_broker(up: Up, data: DataDir) -> None:
    """DESIGN 2: relaxed by one setting."""
    async with up(MILLRACE_SYNC="os") as running:
        await running.says("Millrace is running")
        await _stopped(running)
    server = msgspec.json.decode((data.path / "nats-server.conf").read_bytes())
    assert server["jetstream"]["sync_interval"] == "2m"


async def test_cursors_are_given_up_where_the_machine_went_down_unsynced(up: Up, data: DataDir) -> None:
    """DESIGN 2, cursor and epoch: renewed after an unclean stop without `sync_interval: always`."""
    async with up(MILLRACE_SYNC="os") as running:
        await running.says("Millrace is running")
        epoch = await _epoch(data)
        running.signal(SIGKILL)
    data.running.path.write_bytes(msgspec.json.encode({"sync": "os", "boot": "an earlier one", "renew": False}))
    async with up(MILLRACE_SYNC="os") as running:
        await running.says("Millrace is running")
        assert await _epoch(data) != epoch
        await _stopped(running)


def _variable(pid: int, name: str) -> str:
    variables = dict(line.partition("=")[::2] for line in Path(f"/proc/{pid}/environ").read_text().split("\0"))
    return variables.get(name, "")


def _is(pid: int, name: str) -> bool:
    arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return name in (Path(arguments[0]).name, *arguments)
