"""The embedded nats-server: its secrets, its accounts, its start and its end."""

import stat
from pathlib import Path

import msgspec
import pytest

from broker.credentials import public_key
from broker.embedded import Server, ServerFailed
from broker.provision import Topology, provision
from tests.harness.nats_server import NatsServer, nats_server

pytestmark = pytest.mark.anyio


def _server(data: Path, *tenants: str, **more: object) -> Server:
    given = {"port": 4222, "log_bytes": 1 << 26, **more}
    return Server(data=data, tenants=tenants, **given)  # type: ignore[arg-type]


def test_seeds_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    """Security: a seed is a password."""
    server = _server(tmp_path, "acme")
    server.prepare()
    seeds = list((tmp_path / "credentials").rglob("*.nk"))
    assert len(seeds) == 7
    assert {stat.S_IMODE(seed.stat().st_mode) for seed in seeds} == {0o600}
    assert stat.S_IMODE((tmp_path / "credentials").stat().st_mode) == 0o700


def test_seeds_stay_the_same_at_the_next_start(tmp_path: Path) -> None:
    """Our choice: who was given a seed keeps access."""
    server = _server(tmp_path, "acme")
    server.prepare()
    before = {path: path.read_bytes() for path in (tmp_path / "credentials").rglob("*.nk")}
    _server(tmp_path, "acme", "globex").prepare()
    assert all(path.read_bytes() == seed for path, seed in before.items())
    assert server.credentials.tenant("globex").exists()


def test_a_tenant_named_like_a_service_does_not_get_its_seed(tmp_path: Path) -> None:
    """Promise P10: names of tenants are free, and lead nowhere."""
    server = _server(tmp_path, "edge", "services")
    server.prepare()
    keys = {public_key(path) for path in (tmp_path / "credentials").rglob("*.nk")}
    assert len(keys) == 8


@pytest.mark.parametrize(("sync", "interval"), [("always", "always"), ("os", "2m")])
def test_every_append_is_synced_unless_the_setting_relaxes_it(tmp_path: Path, sync: str, interval: str) -> None:
    """Promise P1: an acknowledged message survives a power cut by default."""
    server = _server(tmp_path, "acme", sync=sync)
    server.prepare()
    assert server.configuration()["jetstream"]["sync_interval"] == interval


async def test_a_server_that_cannot_listen_fails_with_its_reason(nats: NatsServer, tmp_path: Path) -> None:
    """Our choice: nobody waits for a server that has ended."""
    other = NatsServer(_server(tmp_path / "other", "acme", port=nats.server.port))
    with pytest.raises(ServerFailed):
        await other.start()


async def test_acknowledged_messages_survive_a_killed_server(nats: NatsServer) -> None:
    """Promise P1."""
    client = await nats.tenant_client("acme")
    stored = await client.request("ingest.acme.test.made", b"{}", timeout=10)
    await nats.kill()
    await nats.start()
    again = await client.request("ingest.acme.test.made", b"{}", timeout=5)
    assert [_sequence(stored.data), _sequence(again.data)] == [1, 2]
    await client.close()


async def test_a_tenant_added_to_the_configuration_can_publish_after_the_next_start(
    tmp_path: Path,
) -> None:
    """Our choice: tenants come from millrace.toml, and from nowhere else."""
    async with nats_server(tmp_path, tenants=("acme",)) as nats:
        await nats.stop()
        more = msgspec.structs.replace(nats.server, tenants=("acme", "initech"))
        nats.server = more
        await nats.start()
        topology = Topology(tenants=more.tenants, log_bytes=more.log_bytes)
        await provision(nats.url, nats.seed("provisioner"), topology)
        client = await nats.tenant_client("initech")
        stored = await client.request("ingest.initech.test.made", b"{}", timeout=10)
        assert _sequence(stored.data) == 1
        await client.close()


async def test_acks_go_to_subjects_that_nats_py_and_the_permissions_understand(
    nats: NatsServer,
) -> None:
    """FACTS 1.9: version 2 of ack subjects would break both; the flag pins version 1."""
    publisher = await nats.tenant_client("acme")
    await publisher.request("ingest.acme.test.made", b"{}", timeout=10)
    client = await nats.client("event_ingest")
    inbox = client.new_inbox()
    replies = await client.subscribe(inbox)
    pull = "$JS.API.CONSUMER.MSG.NEXT.INGEST_acme.event_ingest"
    await client.publish(pull, b'{"batch": 1}', reply=inbox)
    delivery = await replies.next_msg(timeout=5)
    assert delivery.reply.startswith("$JS.ACK.INGEST_acme.event_ingest.1.1.1.")
    await client.close()
    await publisher.close()


def _sequence(ack: bytes) -> int:
    return int(msgspec.json.decode(ack)["seq"])
