"""The other commands, beside a running system."""

import base64
import json
from pathlib import Path

import jwt
import pytest

from broker.settings import Settings
from contracts.streams import SERVICES
from millrace.datadir import DataDir
from tests.harness.nats_server import NatsServer, nats_server
from tests.harness.program import Program, program
from tests.millrace.conftest import Millrace, refused

pytestmark = pytest.mark.anyio


async def _output(running: Program) -> str:
    assert await running.exit() == 0, running.errors
    return running.text


async def test_a_token_names_its_user_and_tenant_for_its_time(
    nats: NatsServer, millrace: Millrace, data: DataDir
) -> None:
    """WIRE 6: `millrace token` prints a JWT."""
    arguments = ("token", "--tenant", "acme", "--user", "ann", "--ttl", "60")
    async with millrace(*arguments) as running:
        token = await _output(running)
    secret = base64.b64decode(data.jwt_secret.read_text())
    claims = jwt.decode(token, secret, ["HS256"], audience="millrace", issuer="millrace")
    assert (claims["sub"], claims["tenant"]) == ("ann", "acme")
    assert claims["exp"] - claims["iat"] == 60


async def test_a_token_for_a_name_that_is_none_isrefused(nats: NatsServer, millrace: Millrace) -> None:
    """DESIGN 2: a token with a dot or a wildcard would be a hole in P10."""
    async with millrace("token", "--tenant", "acme", "--user", "a.b") as running:
        await refused(running, 2, "--user")


async def test_an_event_is_published_to_the_tenants_stream(nats: NatsServer, millrace: Millrace) -> None:
    """Standard: CloudEvents, NATS binding, binary mode."""
    given = ("--tenant", "acme", "--session", "s1", "--type", "build.done", "--source", "ci")
    async with millrace("publish", *given, "--id", 'a "b" é', '{"n": 1}') as running:
        assert await _output(running) == 'a "b" é'
    client = await nats.client("provisioner")
    request = json.dumps({"seq": 1}).encode()
    reply = await client.request("$JS.API.STREAM.MSG.GET.INGEST_acme", request)
    await client.close()
    message = json.loads(reply.data)["message"]
    headers = dict(
        line.split(": ", 1) for line in base64.b64decode(message["hdrs"]).decode().splitlines() if ": " in line
    )
    assert message["subject"] == "ingest.acme.ci.build.done"
    assert json.loads(base64.b64decode(message["data"])) == {"n": 1}
    assert headers.pop("ce-time")
    assert headers == {
        "ce-specversion": "1.0",
        "ce-id": "a%20%22b%22%20%C3%A9",
        "ce-source": "ci",
        "ce-type": "build.done",
        "ce-datacontenttype": "application/json",
        "ce-sessionid": "s1",
        "Nats-Msg-Id": "ci/a%20%22b%22%20%C3%A9",
    }


async def test_an_event_with_an_id_that_was_published_is_stored_once(nats: NatsServer, millrace: Millrace) -> None:
    """WIRE 5: (source, id) is delivered once."""
    for _ in range(2):
        given = ("--tenant", "acme", "--type", "test.made", "--id", "e1", "{}")
        async with millrace("publish", *given) as running:
            assert await _output(running) == "e1"
    client = await nats.client("provisioner")
    info = json.loads((await client.request("$JS.API.STREAM.INFO.INGEST_acme")).data)
    await client.close()
    assert info["state"]["messages"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--tenant", "acme", "--type", "a.b", "{"), ["not JSON"]),
        (("--tenant", "acme", "--type", "a.>", "{}"), ["token"]),
        (("--tenant", "acme", "--type", "a", "--user", "a b", "{}"), ["user"]),
        (("--tenant", "unknown", "--type", "a", "{}"), ["unknown"]),
        (("--tenant", "../jwt", "--type", "a", "{}"), ["token"]),
    ],
)
async def test_an_event_that_cannot_be_published_is_one_line_and_exit_code_2(
    nats: NatsServer, millrace: Millrace, arguments: tuple[str, ...], words: list[str]
) -> None:
    """Our choice: what is wrong is said before anything is sent."""
    async with millrace("publish", *arguments) as running:
        await refused(running, 2, *words)


@pytest.mark.parametrize(
    "arguments",
    [("publish", "--tenant", "acme", "--type", "a", "{}"), ("dead", "list"), ("dead", "redrive", "1")],
    ids=["publish", "dead", "redrive"],
)
async def test_without_a_broker_a_command_fails_with_one_line(
    nats: NatsServer, millrace: Millrace, arguments: tuple[str, ...]
) -> None:
    """Our choice: exit code 1, for it might succeed later."""
    await nats.kill()
    async with millrace(*arguments) as running:
        await refused(running, 1, nats.url)


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_can_live_on_what_env_prints(
    nats: NatsServer, millrace: Millrace, service: str, tmp_path: Path
) -> None:
    """WIRE 6: `env $(millrace env agent_runner) python -m agent_runner`."""
    async with millrace("env", service) as running:
        env = dict(line.split("=", 1) for line in (await _output(running)).splitlines())
    settings = Settings.from_env(env)
    assert bool(settings.jwt_secret_file) is (service == "edge")
    assert bool(settings.demo_notes) is (service == "tool_runner")
    async with program("tests.harness.service", service, "wait", env=env, cwd=tmp_path) as started:
        await started.says("running")


async def test_a_directory_in_which_nothing_was_started_is_said(millrace: Millrace, tmp_path: Path) -> None:
    """Our choice: the line says what to do."""
    async with millrace("env", "edge") as running:
        await refused(running, 2, "millrace up", "--data")


async def test_prepare_and_provision_set_up_a_broker_that_others_run(
    millrace: Millrace, data: DataDir, tmp_path: Path
) -> None:
    """compose.yaml: the server runs in a container, with the configuration of `millrace up`."""
    config = tmp_path / "tenants.toml"
    config.write_text("[tenants.acme]\n")
    env = {"MILLRACE_CONFIG": str(config), "MILLRACE_LOG_BYTES": str(1 << 27)}
    async with millrace("prepare", **env) as running:
        assert await _output(running) == str(data.path / "nats-server.conf")
    state = data.state()
    assert state.tenants == ("acme",)
    async with nats_server(data.path, tenants=("acme",), log_bytes=state.log_bytes, provisioned=False) as nats:
        async with millrace("provision", **env, MILLRACE_NATS_URL=nats.url) as running:
            assert await _output(running) == ""
        client = await nats.client("provisioner")
        info = json.loads((await client.request("$JS.API.STREAM.INFO.LOG")).data)
        await client.close()
    assert info["config"]["max_bytes"] == 1 << 27


async def test_provision_with_a_seed_in_the_environment_needs_no_data_directory(
    nats: NatsServer, tmp_path: Path
) -> None:
    """Issue 2: also against an external broker."""
    config = tmp_path / "tenants.toml"
    config.write_text("[tenants.acme]\n[tenants.globex]\n")
    env = {
        "MILLRACE_NATS_URL": nats.url,
        "MILLRACE_NKEY": nats.seed("provisioner"),
        "MILLRACE_CONFIG": str(config),
        "MILLRACE_LOG_BYTES": str(nats.server.log_bytes),
    }
    async with program("millrace", "provision", "--renew-epoch", env=env, cwd=tmp_path) as running:
        assert await _output(running) == ""
