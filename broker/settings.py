"""Settings: every `MILLRACE_*` variable. What the product does is in millrace.toml, not here."""

import difflib
from collections.abc import Mapping
from typing import Annotated, Literal, Self

import msgspec
from msgspec import Meta, Struct

from contracts import streams

PREFIX = "MILLRACE_"

Port = Annotated[int, Meta(ge=0, le=65535)]
Positive = Annotated[float, Meta(gt=0)]
Sync = Literal["always", "os"]
LogLevel = Literal["debug", "info", "warning", "error"]


class SettingsError(Exception):
    """A variable is misspelt or malformed; the text names it."""


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One process's surroundings. Durations are in seconds; empty means absent."""

    nats_url: str = "nats://127.0.0.1:4222"
    """The broker. Several, separated by commas, for a cluster."""

    nkey: str = ""
    """A file with the seed that this process authenticates with."""

    config: str = ""
    """The path of millrace.toml; without it, defaults hold."""

    host: str = "127.0.0.1"
    """Where to listen for HTTP."""

    port: Port = 0
    """The HTTP port; 0 takes any free one (the edge: 8000)."""

    jwt_secret_file: str = ""
    """A file with the base64 secret that clients' tokens are signed with."""

    heartbeat_interval: Positive = 30.0
    """How often an edge sends `ping`."""

    heartbeat_timeout: Positive = 60.0
    """How long a connection lives without a sign of life."""

    compression: bool = False
    """Whether an edge offers its WebSockets permessage-deflate (RFC 7692)."""

    drain_grace: Positive = 10.0
    """How long work in flight may take after a stop was asked for."""

    groups: str = ""
    """The groups of agents that an agent runner runs, separated by commas; empty: every one."""

    states_bytes: Annotated[int, Meta(ge=0)] = 256 * 1024**2
    """Memory for the states of sessions that a runner is not at work for: their next turn begins without a read."""

    demo_notes: str = ""
    """The file that the demo server's `note` appends to."""

    log_level: LogLevel = "info"
    """What is logged at least."""

    sync: Sync = "always"
    """The embedded broker: `always` syncs every append to disk, `os` leaves that to the system."""

    log_bytes: Annotated[int, Meta(gt=0)] = 64 * 1024**3
    """What the log may take; `millrace up` takes half of the disk's free space at most."""

    ack_wait: Positive = streams.ACK_WAIT
    """How long a silent holder keeps a delivery; provisioning writes it into the consumers."""

    replicas: Annotated[int, Meta(ge=1, le=5)] = 1
    """How many servers of a cluster hold each stream."""

    fault: str = ""
    """For tests only: where this process dies or hangs (broker/points.py)."""

    @property
    def group_names(self) -> tuple[str, ...]:
        """The groups that are named; none: every one."""
        return tuple(dict.fromkeys(name.strip() for name in self.groups.split(",") if name.strip()))

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read the variables. Raises SettingsError for one that is misspelt or malformed."""
        given = {k.removeprefix(PREFIX): v for k, v in env.items() if k.startswith(PREFIX)}
        known = [name.upper() for name in cls.__struct_fields__]
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; is it {PREFIX}{near[0]}?" if near else ""
                raise SettingsError(f"{PREFIX}{name} is not a setting{hint}")
        for name, value in given.items():
            try:
                msgspec.convert({name.lower(): value}, cls, strict=False)
            except msgspec.ValidationError as error:
                reason = str(error).split(" - at ")[0]
                raise SettingsError(f"{PREFIX}{name}={value}: {reason}") from None
        return msgspec.convert({k.lower(): v for k, v in given.items()}, cls, strict=False)
