"""Permissions: each user can do what its service needs, and nothing else.

What is allowed is written out here, not taken from `contracts.streams`.
"""

import json
import re
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from nats.aio.client import Client

from broker.connect import Unavailable
from broker.oneshot import oneshot
from contracts.streams import SERVICES, USERS
from contracts.subjects import KINDS, LANES
from tests.harness.nats_server import NatsServer, nats_server

pytestmark = pytest.mark.anyio

IDS = {"session": "s1", "user": "ann", "project": "p1", "tenant": "all"}


def _fact(kind: str, lane: str) -> str:
    return f"log.acme.{kind}.{IDS[kind]}.fact.{lane}"


READS = {"STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET"}
STREAMS = {"LOG", "DEAD", "STATE", "TOOLS", "AUTH", "TICKETS", "INGEST_acme", "INGEST_globex"}
CONSUMERS = {
    "agent_runner": "LOG.agent_runner",
    "agent_runner of cpu": "LOG.agent_runner_cpu",
    "agent_runner of nobody": "LOG.agent_runner_gpu",
    "tool_runner": "LOG.tool_runner",
    "event_ingest": "INGEST_acme.event_ingest",
}


def _api(*calls: str) -> set[str]:
    return {f"$JS.API.{call}" for call in calls}


def _reads(stream: str) -> set[str]:
    return _api(*(f"{read}.{stream}" for read in READS))


def _holds(consumer: str) -> set[str]:
    calls = _api(f"CONSUMER.MSG.NEXT.{consumer}", f"CONSUMER.INFO.{consumer}")
    return calls | {f"$JS.ACK.{consumer}.1.1.1.1.0"}


API = {
    *_api("INFO", "STREAM.LIST", "STREAM.NAMES", "STREAM.CREATE.NEW", "CONSUMER.LIST.LOG"),
    *_api("STREAM.UPDATE.LOG", "STREAM.DELETE.LOG", "STREAM.PURGE.LOG", "STREAM.MSG.DELETE.LOG"),
    *_api("STREAM.SNAPSHOT.LOG", "STREAM.RESTORE.LOG", "CONSUMER.CREATE.LOG"),
    *_api("CONSUMER.CREATE.LOG.mine.log.>", "CONSUMER.DURABLE.CREATE.LOG.mine"),
    *_api("CONSUMER.DELETE.LOG.agent_runner", "CONSUMER.RESET.LOG.agent_runner"),
    *(call for stream in STREAMS for call in _reads(stream)),
    *(s for c in CONSUMERS.values() for s in _holds(c) if s.startswith("$JS.API")),
}
EVERYTHING = {
    *(_fact(kind, lane) for kind in KINDS for lane in LANES),
    *(f"log.acme.{kind}.{IDS[kind]}.delta" for kind in KINDS),
    *("log.acme.session.s1", "log.acme.session.s1.fact", "log.acme.session.s1.fact.other"),
    *("log.acme.session.s1.fact.message.cpu", "log.acme.session.s1.fact.message.cpu.x"),
    *("log.acme.session.s1.fact.client.cpu", "log.acme.user.ann.fact.message.cpu"),
    *("live.acme.session.s1.fact.message", "live.acme.session.s1.delta"),
    *("live.acme.session.s1.typing", "live.acme.user.ann.typing"),
    *("ingest.acme.test.made", "ingest.globex.test.made", "dead.acme"),
    *(
        "state.acme.session.s1",
        "state.acme.session.s1.turns",
        "state.acme.user.ann",
        "tools.demo",
        "auth.acme.key.k1",
        "ticket.abc",
        "edges.presence",
    ),
    *(f"_IN.{user}.x" for user in USERS),
    *("_INBOX.x", "anything", "$SYS.REQ.SERVER.PING", "$KV.b.k", "$JS.EVENT.ADVISORY.x"),
    *(s for c in CONSUMERS.values() for s in _holds(c)),
    *API,
}
MAY_PUBLISH: dict[str, set[str]] = {
    "edge": {
        *(_fact("session", "message"), _fact("session", "client"), _fact("user", "client")),
        "log.acme.session.s1.fact.message.cpu",
        *("state.acme.session.s1", "ticket.abc", "edges.presence", "live.acme.session.s1.typing"),
        *(_reads("LOG") | _reads("STATE") | _reads("AUTH") | _reads("TICKETS")),
    },
    "agent_runner": {
        *(_fact("session", "agent"), _fact("session", "call"), "dead.acme", "state.acme.session.s1.turns"),
        *(f"log.acme.{kind}.{IDS[kind]}.delta" for kind in KINDS),
        *(_reads("LOG") | _reads("STATE") | _reads("TOOLS")),
        *(_holds(CONSUMERS["agent_runner"]) | _holds(CONSUMERS["agent_runner of cpu"])),
    },
    "tool_runner": {
        *(_fact("session", "tool"), "dead.acme", "tools.demo"),
        *(_reads("LOG") | _reads("STATE") | _holds(CONSUMERS["tool_runner"])),
    },
    "event_ingest": {
        *(_fact(kind, "event") for kind in KINDS),
        *(_reads("LOG") | _holds(CONSUMERS["event_ingest"]) | {"dead.acme"}),
    },
    "operator": {*_reads("DEAD"), *_reads("AUTH"), "$JS.API.STREAM.INFO.LOG", "auth.acme.key.k1"},
    "provisioner": API,
}

LISTENING = {
    *(">", "*", "*.>", "log.>", "live.>", "live.*.>", "dead.>", "ingest.>", "$JS.>", "$SYS.>"),
    *("live.*.session.>", "live.acme.session.s1.>", "live.acme.session.s1.fact.>"),
    *("live.acme.user.ann.>", "live.acme.project.p1.>", "live.acme.tenant.all.>"),
    *("edges.>", "edges.presence", "state.>", "tools.*", "auth.>", "ticket.*"),
    *("_IN.>", "_IN.*.>", "_INBOX.>", "_INBOX.x", "$JS.API.>", "$JS.ACK.>", "_R_.>", "_GR_.>"),
    *(f"_IN.{user}.>" for user in USERS),
}
_SESSIONS = {"live.*.session.>", "live.acme.session.s1.>", "live.acme.session.s1.fact.>"}
MAY_LISTEN: dict[str, set[str]] = {
    "edge": {subject for subject in LISTENING if subject.startswith(("live.", "edges."))},
    "agent_runner": _SESSIONS - {"live.*.session.>"},
    "tool_runner": _SESSIONS - {"live.*.session.>"},
    "event_ingest": set(),
    "operator": set(),
    "provisioner": set(),
}


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A server with the groups of agents `default` and `cpu`."""
    async with nats_server(tmp_path / "nats", groups=("default", "cpu")) as server:
        yield server


class Denials:
    """What a connection was not permitted to do."""

    def __init__(self) -> None:
        self.subjects: set[str] = set()

    async def hear(self, error: Exception) -> None:
        """Note the subject of a violation."""
        if found := re.search(r'permissions violation for \w+ to "(.+?)"', str(error), re.I):
            self.subjects.add(found[1].lower())

    def allowed(self, tried: Iterable[str]) -> set[str]:
        """What of `tried` was permitted. nats-py tells subjects in lower case."""
        return {subject for subject in tried if subject.lower() not in self.subjects}


async def _barrier(client: Client, subject: str) -> None:
    """Return once the server has answered everything that was sent before."""
    await client.request(subject, b"", timeout=5)


async def _publishable(client: Client, denials: Denials, barrier: str) -> set[str]:
    for subject in sorted(EVERYTHING):
        await client.publish(subject, b"not JSON")
    await _barrier(client, barrier)
    return denials.allowed(EVERYTHING)


@pytest.mark.parametrize("user", USERS)
async def test_a_user_can_publish_what_its_service_needs_and_nothing_else(nats: NatsServer, user: str) -> None:
    """DESIGN 2: a lane belongs to one writer; only the provisioner changes streams."""
    denials = Denials()
    client = await nats.client(user, denials.hear)
    allowed = await _publishable(client, denials, "$JS.API.STREAM.INFO.LOG")
    await client.close()
    assert allowed == MAY_PUBLISH[user]


@pytest.mark.parametrize("user", USERS)
async def test_a_user_can_listen_to_its_live_subjects_and_its_own_inbox_alone(nats: NatsServer, user: str) -> None:
    """Promise P10: replies to others hold what others read."""
    denials = Denials()
    client = await nats.client(user, denials.hear)
    for subject in LISTENING:
        await client.subscribe(subject)
    await _barrier(client, "$JS.API.STREAM.INFO.LOG")
    await client.close()
    assert denials.allowed(LISTENING) == MAY_LISTEN[user] | {f"_IN.{user}.>"}


async def test_a_tenant_can_publish_its_own_events_and_nothing_else(nats: NatsServer) -> None:
    """Promise P10: another tenant's subjects, and every service's, are closed to it."""
    denials = Denials()
    client = await nats.tenant_client("acme", denials.hear)
    allowed = await _publishable(client, denials, "ingest.acme.test.barrier")
    await client.close()
    assert allowed == {"ingest.acme.test.made"}


async def test_a_tenant_can_listen_to_its_own_replies_alone(nats: NatsServer) -> None:
    """Promise P10."""
    denials = Denials()
    client = await nats.tenant_client("acme", denials.hear)
    for subject in LISTENING:
        await client.subscribe(subject)
    await _barrier(client, "ingest.acme.test.barrier")
    await client.close()
    assert denials.allowed(LISTENING) == {"_INBOX.>", "_INBOX.x"}


async def test_tenants_do_not_share_inboxes(nats: NatsServer) -> None:
    """Promise P10: a reply subject of one tenant means nothing in another's account."""
    acme, globex = await nats.tenant_client("acme"), await nats.tenant_client("globex")
    overheard = await acme.subscribe("_INBOX.>")
    await _barrier(acme, "ingest.acme.test.barrier")
    before = overheard.pending_msgs
    await _barrier(globex, "ingest.globex.test.barrier")
    await _barrier(acme, "ingest.acme.test.barrier")
    assert overheard.pending_msgs == before + 1
    await acme.close()
    await globex.close()


async def test_equal_message_ids_of_two_tenants_do_not_suppress_each_other(
    nats: NatsServer,
) -> None:
    """DESIGN 2: ids are per stream, so each tenant has its own stream."""
    for tenant in ("acme", "globex"):
        client = await nats.tenant_client(tenant)
        subject, headers = f"ingest.{tenant}.test.made", {"Nats-Msg-Id": "same"}
        answer = json.loads((await client.request(subject, b"{}", headers=headers)).data)
        await client.close()
        assert answer["seq"] == 1
        assert "duplicate" not in answer


async def test_nobody_without_a_seed_is_let_in(nats: NatsServer) -> None:
    """Security: there is no anonymous user."""
    async with oneshot(nats.url, nats.seed("operator")):
        pass
    with pytest.raises(Unavailable):
        async with oneshot(nats.url, ""):
            pass


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_reads_the_log_through_its_own_inbox(nats: NatsServer, service: str) -> None:
    """DESIGN 2: replay is a direct get, and the leader names the last sequence."""
    edge, reader = await nats.client("edge"), await nats.client(service)
    subject = _fact("session", "message")
    await edge.request(subject, b"stored")
    request = json.dumps({"last_by_subj": subject}).encode()
    direct = await reader.request("$JS.API.DIRECT.GET.LOG", request)
    leader = await reader.request("$JS.API.STREAM.MSG.GET.LOG", request)
    assert direct.data == b"stored"
    assert json.loads(leader.data)["message"]["seq"] == 1
    await edge.close()
    await reader.close()
