"""The same nats-server in a container, for `make test-containers`: needs a Docker engine, and fails without one."""

import asyncio
from typing import Any

import nats
from testcontainers.core.container import DockerContainer

from broker.embedded import Server
from contracts import streams
from tests.harness.nats_server import NatsServer
from tests.harness.wait import until

IMAGE = "nats:2.15.1-alpine"
READY_WITHIN = 60.0


class NatsContainer(NatsServer):
    """One server in a container, on the host's network, with its data directory at the same path."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._container: DockerContainer | None = None

    async def start(self) -> None:
        """Run it on what it has stored."""
        self.server.prepare()
        data = str(self.server.data)
        container = DockerContainer(IMAGE).with_volume_mapping(data, data, "rw").with_kwargs(network_mode="host")
        container = container.with_command(list(self.server.command[1:]))
        self._container = await asyncio.to_thread(container.start)
        await until(self._answers, within=READY_WITHIN)

    async def stop(self) -> None:
        """End it cleanly."""
        await self._remove(force=False)

    async def kill(self) -> None:
        """End it with SIGKILL."""
        await self._remove(force=True)

    def pause(self) -> None:
        """Let it hang."""
        self._running.pause()

    def resume(self) -> None:
        """Let it go on."""
        self._running.unpause()

    @property
    def _running(self) -> Any:
        assert self._container, "the server is not running"
        return self._container.get_wrapped_container()

    async def _remove(self, *, force: bool) -> None:
        container, self._container = self._container, None
        if container:
            if not force:
                await asyncio.to_thread(container.get_wrapped_container().stop)
            await asyncio.to_thread(container.stop, force=True)

    async def _answers(self) -> bool:
        try:
            client = await nats.connect(
                self.url, nkeys_seed=self.seed(streams.PROVISIONER), allow_reconnect=False, connect_timeout=1
            )
        except (OSError, nats.errors.Error):
            return False
        await client.close()
        return True
