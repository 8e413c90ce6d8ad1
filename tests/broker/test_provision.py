"""Provisioning: the broker matches the topology, or says why it cannot."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.connect import Rejected, Unavailable
from broker.provision import ProvisionFailed, Topology, provision
from contracts import streams
from tests.harness.nats_server import LOG_BYTES, TENANTS, NatsServer, nats_server

pytestmark = pytest.mark.anyio

TOPOLOGY = Topology(tenants=TENANTS, log_bytes=LOG_BYTES)


async def _call(nats: NatsServer, call: str, payload: object = None) -> dict[str, Any]:
    client = await nats.client("provisioner")
    data = msgspec.json.encode(payload) if payload else b""
    try:
        reply = await client.request(f"$JS.API.{call}", data, timeout=5)
        return msgspec.json.decode(reply.data, type=dict[str, Any])
    finally:
        await client.close()


async def _config(nats: NatsServer, stream: str = "LOG") -> dict[str, Any]:
    found: dict[str, Any] = (await _call(nats, f"STREAM.INFO.{stream}"))["config"]
    return found


async def _provision(nats: NatsServer, **changes: object) -> None:
    topology = msgspec.structs.replace(TOPOLOGY, **changes)
    await provision(nats.url, nats.seed("provisioner"), topology)


async def test_every_stream_and_consumer_of_the_topology_is_there(nats: NatsServer) -> None:
    """DESIGN 2: services bind to what the provisioner made."""
    names = {stream["config"]["name"] for stream in (await _call(nats, "STREAM.LIST"))["streams"]}
    assert names == {"LOG", "DEAD", "STATE", "AUTH", "TICKETS", "TOOLS", "INGEST_acme", "INGEST_globex"}
    for consumer in streams.consumers(TENANTS):
        info = await _call(nats, f"CONSUMER.INFO.{consumer.stream}.{consumer.durable}")
        assert info["config"]["filter_subject"] == consumer.filter_subject
        assert info["config"]["max_deliver"] == -1
        assert info["config"]["max_ack_pending"] == (1 if consumer.durable == "event_ingest" else -1)


async def test_each_group_of_agents_has_a_consumer_of_its_messages(nats: NatsServer) -> None:
    """Our choice: a group that is added later begins with what was said since it has had agents."""
    client = await nats.client("edge")
    await client.request("log.acme.session.s1.fact.message", b"for the default group")
    await client.request("log.acme.session.s1.fact.message.cpu", b"for cpu")
    await client.close()
    await _provision(nats, groups=("default", "cpu"))
    for durable in ("agent_runner", "agent_runner_cpu"):
        info = await _call(nats, f"CONSUMER.INFO.LOG.{durable}")
        assert info["config"]["max_ack_pending"] == -1
        assert info["num_pending"] == 1


async def test_a_group_may_keep_its_turns_for_longer(nats: NatsServer) -> None:
    """Our choice: what holds for a group that computes need not hold for every other."""
    await _provision(nats, groups=("default", "cpu"), ack_wait=2.0, ack_waits={"cpu": 60.0})
    for durable, seconds in (("agent_runner", 2), ("agent_runner_cpu", 60), ("tool_runner", 2)):
        info = await _call(nats, f"CONSUMER.INFO.LOG.{durable}")
        assert info["config"]["ack_wait"] == seconds * 1_000_000_000


async def test_the_consumer_of_a_group_without_agents_stays_and_is_told(
    nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Our choice: what waits in it is not lost, and an operator hears of it."""
    await _provision(nats, groups=("default", "cpu"))
    client = await nats.client("edge")
    await client.request("log.acme.session.s1.fact.message.cpu", b"x")
    await client.close()
    assert not caplog.records
    await _provision(nats)
    assert "agent_runner_cpu" in caplog.text
    assert "1 messages" in caplog.text
    assert (await _call(nats, "CONSUMER.INFO.LOG.agent_runner_cpu"))["num_pending"] == 1


async def test_the_log_keeps_history_and_refuses_when_full(nats: NatsServer) -> None:
    """DESIGN 2: nothing may erase or reorder the log; nothing in it gives way."""
    config = await _config(nats)
    assert config["discard"] == "new"
    assert config["deny_delete"]
    assert not config["allow_rollup_hdrs"]
    assert config["max_age"] == 0
    assert config["max_bytes"] == LOG_BYTES


async def test_provisioning_again_changes_nothing(nats: NatsServer) -> None:
    """Our choice: it may run at every start, also beside running services."""
    before = await _config(nats), await _call(nats, "CONSUMER.INFO.LOG.agent_runner")
    await nats.provision()
    after = await _config(nats), await _call(nats, "CONSUMER.INFO.LOG.agent_runner")
    assert before[0] == after[0]
    assert before[1]["created"] == after[1]["created"]


@pytest.mark.parametrize("log_bytes", [LOG_BYTES // 2, LOG_BYTES * 2])
async def test_what_may_change_is_changed_in_place(nats: NatsServer, log_bytes: int) -> None:
    """Our choice: limits and waits follow the settings."""
    await nats.stop()
    nats.server = msgspec.structs.replace(nats.server, log_bytes=log_bytes)
    await nats.start()
    await _provision(nats, log_bytes=log_bytes, ack_wait=7.0)
    assert (await _config(nats))["max_bytes"] == log_bytes
    info = await _call(nats, "CONSUMER.INFO.LOG.tool_runner")
    assert info["config"]["ack_wait"] == 7_000_000_000


async def test_a_dangerous_option_that_somebody_turned_on_is_turned_off(nats: NatsServer) -> None:
    """DESIGN 2: one rollup header could erase the log."""
    await _call(nats, "STREAM.UPDATE.LOG", await _config(nats) | {"allow_rollup_hdrs": True})
    await nats.provision()
    assert not (await _config(nats))["allow_rollup_hdrs"]


async def test_the_epoch_is_kept_over_restarts_and_renewed_when_asked(nats: NatsServer) -> None:
    """DESIGN 2, cursor and epoch: a cursor is honoured only in the incarnation that gave it."""
    epoch = (await _config(nats))["metadata"]["epoch"]
    assert epoch.isalnum()
    await nats.restart()
    await nats.provision()
    assert (await _config(nats))["metadata"]["epoch"] == epoch
    await _provision(nats, renew_epoch=True)
    assert (await _config(nats))["metadata"]["epoch"] != epoch


async def test_metadata_of_others_outlives_a_new_epoch(nats: NatsServer) -> None:
    """Our choice: what nobody asked for is left as it is."""
    config = await _config(nats)
    metadata = config["metadata"] | {"owner": "ops"}
    await _call(nats, "STREAM.UPDATE.LOG", config | {"metadata": metadata})
    await _provision(nats, renew_epoch=True)
    assert (await _config(nats))["metadata"]["owner"] == "ops"


@pytest.mark.parametrize("drift", [{"storage": "memory", "max_bytes": 1 << 20}, {"subjects": ["log.>", "other.>"]}])
async def test_a_stream_that_would_have_to_be_made_anew_is_refused(tmp_path: Path, drift: dict[str, object]) -> None:
    """Our choice: history is never thrown away by a start."""
    async with nats_server(tmp_path, provisioned=False) as nats:
        made = {"name": "LOG", "subjects": ["log.>"], "storage": "file", "retention": "limits"}
        assert "error" not in await _call(nats, "STREAM.CREATE.LOG", made | drift)
        with pytest.raises(ProvisionFailed, match="LOG"):
            await nats.provision()


async def test_what_the_server_itself_refuses_is_said_in_its_words(nats: NatsServer) -> None:
    """Our choice: more than the server may store is an operator's mistake to read about."""
    with pytest.raises(ProvisionFailed, match="insufficient storage"):
        await _provision(nats, log_bytes=1 << 50)


async def test_a_service_cannot_provision(nats: NatsServer) -> None:
    """DESIGN 2: only the provisioner creates streams and consumers."""
    with pytest.raises(Rejected):
        await provision(nats.url, nats.seed("edge"), TOPOLOGY)


async def test_who_may_not_provision_is_told_at_once(nats: NatsServer) -> None:
    """Our choice: waiting is for a broker that may come; these credentials stay what they are."""
    with pytest.raises(Rejected):
        async with asyncio.timeout(20):
            await provision(nats.url, nats.seed("edge"), TOPOLOGY, within=600)


async def test_it_waits_for_a_broker_that_is_not_there_yet(nats: NatsServer) -> None:
    """Our choice: containers start in any order."""
    await nats.stop()
    topology = msgspec.structs.replace(TOPOLOGY, ack_wait=9.0)
    waiting = asyncio.create_task(provision(nats.url, nats.seed("provisioner"), topology, within=30))
    await nats.start()
    await waiting
    info = await _call(nats, "CONSUMER.INFO.LOG.agent_runner")
    assert info["config"]["ack_wait"] == 9_000_000_000


async def test_without_a_broker_it_says_so(nats: NatsServer) -> None:
    """Our choice: a command fails where a service would wait."""
    await nats.stop()
    with pytest.raises(Unavailable):
        await nats.provision()


async def test_a_full_log_refuses_and_forgets_nothing(tmp_path: Path) -> None:
    """DESIGN 2: byte limits with `discard new`."""
    async with nats_server(tmp_path, log_bytes=64 * 1024) as nats:
        client = await nats.client("edge")
        subject, answers = "log.acme.session.s1.fact.message", []
        for _ in range(80):
            answers.append(msgspec.json.decode((await client.request(subject, b"x" * 1024)).data))
        await client.close()
        stored = [answer["seq"] for answer in answers if "error" not in answer]
        assert stored == list(range(1, len(stored) + 1))
        assert answers[-1]["error"]["err_code"] == 10077
        state = (await _call(nats, "STREAM.INFO.LOG"))["state"]
        assert (state["first_seq"], state["messages"]) == (1, len(stored))
