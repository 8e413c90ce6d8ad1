"""Rounds on three brokers: one of them dies or hangs while services die and hang too."""

import asyncio
from typing import Any, Literal

from tests.harness.chaos import SERVICES, Chaos, Step
from tests.harness.cluster import SERVERS, Cluster, name_of
from tests.harness.directed import Directed
from tests.harness.history import Fault, read_log
from tests.harness.nats_server import NatsServer
from tests.harness.points import POINTS
from tests.harness.rounds import Round
from tests.harness.system import System

FAULTS = ("leader killed", "follower killed", "leader paused", "two killed")
"""What happens to the servers of the cluster, as seen from the log's leader; of two, nobody is left to agree with."""

PAUSE = 10.0
"""Seconds: longer than the others take to elect another leader."""

AWAY = (0.0, 1.0, 3.0)

What = Literal["kill", "pause"]


class ClusterChaos(Chaos):
    """Breaks one or two of three brokers."""

    @property
    def cluster(self) -> Cluster:
        """The brokers."""
        assert isinstance(self.system.nats, Cluster)
        return self.system.nats

    async def break_broker(self, step: Step) -> None:
        """Do to the cluster what the step says, and undo it."""
        client = await self.cluster.client("provisioner")
        leader = self.cluster.node(await self.cluster.leader(client))
        await client.close()
        followers = [node for node in self.cluster.nodes if node is not leader]
        match step.point:
            case "leader killed":
                await self._kill(leader)
            case "follower killed":
                await self._kill(self.chance.choice(followers))
            case "leader paused":
                fault = self._note(leader, "paused")
                leader.pause()
                await asyncio.sleep(PAUSE)
                leader.resume()
                fault.end()
            case _:
                await self._kill(leader, self.chance.choice(followers))

    async def settle(self) -> None:
        """Wait for the cluster as well."""
        await super().settle()
        client = await self.cluster.client("provisioner")
        await self.cluster.healthy(client)
        await client.close()

    async def _kill(self, *nodes: NatsServer) -> None:
        faults = [self._note(node, "killed") for node in nodes]
        for node in nodes:
            await node.kill()
        await asyncio.sleep(self.chance.choice(AWAY))
        for node, fault in zip(nodes, faults, strict=True):
            await node.start()
            fault.end()

    def _note(self, node: NatsServer, what: str) -> Fault:
        return self.history.fault("nats-server", f"{name_of(node)} {what}")


class OnCluster(Round):
    """What is different on a cluster. The seed says which of its faults comes."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.history.replicas = SERVERS

    def fault(self) -> Step:
        """What happens to the brokers, and when."""
        return Step("broker", point=FAULTS[self.seed % len(FAULTS)], at=self.chance.random())

    def make_chaos(self) -> ClusterChaos:
        """What breaks brokers."""
        return ClusterChaos(self.system, self.history, self.chance)

    async def is_quiet(self) -> bool:
        """Also, whether what was read is all that the leader has: any replica may have answered."""
        if not await super().is_quiet():
            return False
        assert isinstance(self.system.nats, Cluster)
        info = await self.system.nats.log_info(self.clients["provisioner"])
        return bool(info) and info["state"]["last_seq"] == self.read[-1].seq


class ClusterRound(OnCluster):
    """One random round."""

    def plan(self) -> list[Step]:
        """A fault of the cluster, a runner's death, and perhaps one of another service at a point."""
        steps = [
            self.fault(),
            Step(self.chance.choice(("kill", "kill", "pause")), "agent_runner", at=self.chance.random() * 3),
        ]
        if self.chance.random() < 0.7:
            service = self.chance.choice(SERVICES)
            point, side = self.chance.choice(tuple(POINTS[service])), self.chance.choice(("before", "after"))
            steps.append(Step("point", service, f"{point}:{side}:1:kill"))
        return steps


class ClusterDirected(OnCluster, Directed):
    """One round of chosen points, while a fault comes to the brokers."""

    async def work(self) -> list[str]:
        """Run every scenario beside it."""
        self._breaking = asyncio.create_task(self.chaos.act([self.fault()]))
        try:
            return await super().work()
        finally:
            await self._breaking

    async def quiet(self) -> list[str]:
        """When the fault is over: until then, nobody may be there to read the log from."""
        await self._breaking
        return await super().quiet()

    @staticmethod
    async def after_all(running: System) -> None:
        """Every server holds the same log."""
        assert isinstance(running.nats, Cluster)
        assert await differences(running.nats) == []


async def differences(cluster: Cluster) -> list[str]:
    """Where two servers hold another log: which of them, and from which sequence on."""
    client = await cluster.client("provisioner")
    await cluster.healthy(client)
    await client.close()
    logs = []
    for node in cluster.nodes:
        own = await cluster.client_of(node)
        logs.append(await read_log(own, 0))
        await own.close()
    found = []
    for node, log in zip(cluster.nodes, logs, strict=True):
        if log != logs[0]:
            pairs = zip(log, logs[0], strict=False)
            first = next((a.seq for a, b in pairs if a != b), min(len(log), len(logs[0])))
            found.append(f"replicas: {name_of(node)} and {name_of(cluster.nodes[0])} differ from {first} on")
    return found
