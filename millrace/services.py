"""The services that `millrace up` runs, in the order in which they stop."""

import sys
from collections.abc import Iterable, Mapping

from msgspec import Struct, structs

from broker.settings import PREFIX
from contracts.streams import AGENT_RUNNER
from contracts.streams import SERVICES as NAMES
from contracts.subjects import DEFAULT_GROUP
from millrace.datadir import DataDir, State


class Service(Struct, frozen=True):
    """A service. What takes work in (stage 0) stops before what does it (stage 1)."""

    name: str
    command: tuple[str, ...]
    stage: int = 1
    group: str = ""

    @property
    def process(self) -> str:
        """What this process is called: the service, and its group of agents where that is not the default one."""
        return self.name if self.group in ("", DEFAULT_GROUP) else f"{self.name}_{self.group}"


SERVICES = (
    Service("edge", (sys.executable, "-m", "edge"), stage=0),
    Service("event_ingest", (sys.executable, "-m", "event_ingest"), stage=0),
    Service(AGENT_RUNNER, (sys.executable, "-m", "agent_runner")),
    Service("tool_runner", (sys.executable, "-m", "tool_runner")),
)
assert {service.name for service in SERVICES} == set(NAMES)


def environment(data: DataDir, state: State, service: str) -> dict[str, str]:
    """What `service` takes from its environment to be part of the system in `data`."""
    found = {"NATS_URL": state.nats_url, "NKEY": str(data.credentials.user(service))}
    if state.config:
        found["CONFIG"] = state.config
    if service == "edge":
        found["JWT_SECRET_FILE"] = str(data.jwt_secret)
    if service == "tool_runner":
        found["DEMO_NOTES"] = str(data.notes)
    return {f"{PREFIX}{name}": value for name, value in found.items()}


def for_groups(services: Iterable[Service], groups: Iterable[str]) -> tuple[Service, ...]:
    """The processes to run: of agent runners one for each group of agents, so that none waits for another's."""
    given = tuple(groups)
    return tuple(
        each
        for service in services
        for each in (
            [structs.replace(service, group=group) for group in given] if service.name == AGENT_RUNNER else [service]
        )
    )


def child_environment(data: DataDir, state: State, service: Service, env: Mapping[str, str]) -> dict[str, str]:
    """`env` with what `service` needs. Another file for the demo's notes may be given in `env`."""
    notes = f"{PREFIX}DEMO_NOTES"
    found = dict(env) | environment(data, state, service.name)
    if service.group:
        found[f"{PREFIX}GROUPS"] = service.group
    return found | {notes: env[notes]} if env.get(notes) else found
