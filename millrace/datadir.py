"""The data directory: what an embedded Millrace keeps, and who may use it.

lock                     held while `millrace up` runs
state.json               what the other commands need to know of it
credentials/             seeds, and the secret that tokens are signed with
nats/, nats-server.conf  the broker's store and configuration
running                  left behind by an unclean stop
logs/, notes.txt         what the processes say; what the demo tool wrote
"""

import base64
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from broker.credentials import Credentials, write_secret
from broker.embedded import Server
from broker.incarnation import RunningMark
from broker.settings import PREFIX, Settings
from contracts.streams import GROUPS
from millrace.errors import CommandError

DEFAULT = "millrace-data"
LOCK_PATIENCE = 1.0
"""How long to wait for a lock: the children of a killed `millrace up` die within moments."""
LOG_BYTES_LEAST = 64 * 1024 * 1024


class State(Struct, frozen=True, kw_only=True):
    """How the system was last started."""

    host: str = "127.0.0.1"
    nats_port: int
    log_bytes: int
    tenants: tuple[str, ...]
    config: str = ""
    groups: tuple[str, ...] = GROUPS

    @property
    def nats_url(self) -> str:
        """Where the broker listens."""
        return f"nats://{self.host}:{self.nats_port}"


class DataDir(Struct, frozen=True):
    """One data directory; its path is absolute."""

    path: Path

    @classmethod
    def at(cls, path: str) -> "DataDir":
        """The directory at `path`, whether it is there yet or not."""
        return cls(Path(path).resolve())

    @property
    def credentials(self) -> Credentials:
        """The seeds."""
        return Credentials(self.path / "credentials")

    @property
    def jwt_secret(self) -> Path:
        """The file with the base64 secret that tokens are signed with."""
        return self.path / "credentials" / "jwt.secret"

    @property
    def notes(self) -> Path:
        """What the demo tool `note` appends to."""
        return self.path / "notes.txt"

    @property
    def running(self) -> RunningMark:
        """The mark of an unclean stop."""
        return RunningMark(self.path / "running")

    def log(self, name: str) -> Path:
        """What a child process said."""
        return self.path / "logs" / f"{name}.log"

    def make(self) -> None:
        """Create the directory and what is missing of its secrets. Raises CommandError."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.path / "logs").mkdir(exist_ok=True)
            if not self.jwt_secret.exists():
                write_secret(self.jwt_secret, base64.b64encode(os.urandom(32)) + b"\n")
        except OSError as error:
            raise CommandError(f"{self.path} cannot be used: {error.strerror}") from None

    def server(self, state: State, sync: str) -> Server:
        """The embedded broker."""
        return Server(
            data=self.path,
            tenants=state.tenants,
            host=state.host,
            port=state.nats_port,
            log_bytes=state.log_bytes,
            sync="os" if sync == "os" else "always",
            groups=state.groups,
        )

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the lock, as a file descriptor. Raises CommandError where somebody else has it."""
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            ends = time.monotonic() + LOCK_PATIENCE
            while not _try_lock(descriptor):
                if time.monotonic() > ends:
                    holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
                    raise CommandError(f"{self.path} is in use by another millrace ({holder})")
                time.sleep(0.02)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"process %d" % os.getpid(), 0)
            yield descriptor
        finally:
            os.close(descriptor)

    def remembered(self) -> State | None:
        """How the system was last started, or None where it never was."""
        try:
            return msgspec.json.decode((self.path / "state.json").read_bytes(), type=State)
        except (OSError, msgspec.DecodeError):
            return None

    def state(self) -> State:
        """How the system was last started. Raises CommandError where it never was."""
        if state := self.remembered():
            return state
        raise CommandError(f"nothing was started in {self.path} yet: run `millrace up`, or give --data")

    def broker_url(self, env: Mapping[str, str]) -> str:
        """Where a command finds the broker: `MILLRACE_NATS_URL`, or where it was last started."""
        return env.get(f"{PREFIX}NATS_URL") or self.state().nats_url

    def remember(self, state: State) -> None:
        """Keep how the system is started."""
        write_secret(self.path / "state.json", msgspec.json.encode(state))

    def log_bytes(self, settings: Settings) -> int:
        """What the log may take: what is set, but half of the disk that it could have at most."""
        store = self.path / "nats"
        used = sum(file.stat().st_size for file in store.rglob("*.blk"))
        room = (shutil.disk_usage(self.path).free + used) // 2
        return max(LOG_BYTES_LEAST, min(settings.log_bytes, room))


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
