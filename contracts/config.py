"""The configuration: what `millrace.toml` may say. Misspelling is an error that names its place."""

import os
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from contracts.events import Policy
from contracts.streams import DELTA_TTL
from contracts.subjects import DEFAULT_GROUP, is_token

DEFAULT_EXPIRES = 300.0  # seconds that a person has to decide

_Rate = Annotated[float, Meta(gt=0, le=1e9)]
_Seconds = Annotated[float, Meta(gt=0, le=DELTA_TTL)]
_Glob = Annotated[str, Meta(min_length=1)]
_T = TypeVar("_T")
_DEMO_INHERITS = ("MILLRACE_DEMO_NOTES", "PYTHONPATH")  # by itself a stdio server inherits nothing


class ConfigError(ValueError):
    """The configuration cannot be used. The text is one line: file, key path, problem."""


class Tenant(Struct, frozen=True, forbid_unknown_fields=True):
    """A tenant. That it is named is all there is to say yet."""


class Agent(Struct, frozen=True, forbid_unknown_fields=True):
    """An agent: a model with instructions, or a Python function."""

    model: str | None = None  # "script" or "provider:name"
    base_url: str | None = None
    api_key_env: str | None = None  # the variable that holds the key: no key is in the file
    instructions: str = ""
    tools: tuple[_Glob, ...] = ()  # what it may call: globs on "server.tool"
    run: str | None = None  # "module:function"
    group: str = DEFAULT_GROUP  # which runners run it: a consumer of its own for each group
    policy: Policy = "enqueue"  # of a message that names none
    context_tokens: Annotated[int, Meta(ge=256, le=10_000_000)] = 32_000  # what a prompt may have, estimated
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None  # of one response
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    first_seconds: _Seconds = 300.0  # until a response begins: a model that thinks silently needs long
    idle_seconds: _Seconds = 60.0  # from one piece of a response to the next
    request_seconds: _Seconds = 600.0  # a whole response
    turn_seconds: _Seconds = 3600.0  # a whole turn, also what it waits
    tries: Annotated[int, Meta(ge=1, le=100)] = 4  # of one model request
    attempts: Annotated[int, Meta(ge=1, le=100)] = 5  # of a turn without a finished step between
    max_requests: Annotated[int, Meta(ge=1)] = 50  # to the model, in a turn
    max_calls: Annotated[int, Meta(ge=1)] = 200  # of tools, in a turn
    max_steps: Annotated[int, Meta(ge=1)] = 10_000  # and reports of progress, in a turn
    max_bytes: Annotated[int, Meta(ge=1)] = 16 * 1024 * 1024  # of answers and of what steps return, in a turn

    def __post_init__(self) -> None:
        """Refuse an agent that is neither or both, and references that cannot be resolved."""
        if (self.model is None) == (self.run is None):
            raise ValueError("needs exactly one of `model` and `run`")
        if self.model is not None and not re.fullmatch(r"script|[^:\s]+:\S+", self.model):
            raise ValueError("`model` is `script` or `provider:name`")
        if not is_token(self.group):
            raise ValueError("`group` is a name [A-Za-z0-9_-]{1,64}")
        if self.run is not None and not re.fullmatch(r"\w+(\.\w+)*:\w+", self.run):
            raise ValueError("`run` is `module:function`")


class Group(Struct, frozen=True, forbid_unknown_fields=True):
    """How the processes of a group of agents run its turns."""

    turns: Annotated[int, Meta(ge=1)] | None = None  # at once in one process, beside those that only wait
    ack_wait: Annotated[float, Meta(ge=0.1, le=3600)] | None = None  # how long a silent process keeps its turns


NOBODY = Agent(model="script")
"""What holds for a session whose agent is not configured."""


class ToolServer(Struct, frozen=True, forbid_unknown_fields=True):
    """An MCP server: a command that speaks stdio, or the URL of one that speaks streamable HTTP."""

    command: tuple[str, ...] | None = None
    env: dict[str, str] = {}
    url: str | None = None
    trusted: bool = False  # whether what it says of its tools may be believed

    def __post_init__(self) -> None:
        """Refuse a server that is neither or both."""
        if (self.command is None) == (self.url is None):
            raise ValueError("needs exactly one of `command` and `url`")
        if self.command is not None and not (self.command and self.command[0]):
            raise ValueError("`command` names no program")
        if self.url is not None and not re.match(r"https?://.", self.url):
            raise ValueError("`url` begins with http:// or https://")
        if self.url is not None and self.env:
            raise ValueError("`env` is for a `command`, not for a `url`")

    def __repr__(self) -> str:
        """Hide what may hold secrets: the arguments, the environment, the URL."""
        return f"ToolServer({'command' if self.command else 'url'}=…, trusted={self.trusted})"


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """What to do with the tools that `tool` matches, for that tenant and user or for everybody."""

    tool: _Glob
    decision: Literal["allow", "deny", "ask"]
    tenant: str | None = None
    user: str | None = None
    expires: Annotated[float, Meta(gt=0, le=31_536_000)] = DEFAULT_EXPIRES


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """What one user may ask of an edge."""

    connections_per_session: Annotated[int, Meta(ge=0)] = 5  # counted over all edges; 0 lifts it
    messages_per_second: _Rate = 20.0
    handshakes_per_second: _Rate = 50.0
    requests_per_second: _Rate = 100.0
    bytes_per_second: _Rate = 256 * 1024.0
    frame_bytes: Annotated[int, Meta(ge=1)] = 64 * 1024
    slow_seconds: Annotated[float, Meta(gt=0)] = 60.0  # how long a client may be behind what is live

    @property
    def messages_burst(self) -> float:
        """How many messages a user may send at once: those of five seconds."""
        return 5 * self.messages_per_second

    @property
    def handshakes_burst(self) -> float:
        """How many connections a user may open at once: those of four seconds."""
        return 4 * self.handshakes_per_second

    @property
    def requests_burst(self) -> float:
        """How many requests a user may make at once: those of five seconds."""
        return 5 * self.requests_per_second

    @property
    def bytes_burst(self) -> float:
        """How many bytes a user may send at once: those of eight seconds, and any one frame."""
        return max(8 * self.bytes_per_second, 2.0 * self.frame_bytes)


class Claims(Struct, frozen=True, forbid_unknown_fields=True):
    """Which claim of a token says what; dots reach into objects."""

    tenant: str = "tenant"
    user: str = "sub"
    scopes: str = "scope"
    projects: str = "projects"


_Scopes = tuple[Literal["read", "write", "approve", "admin"], ...]


class Auth(Struct, frozen=True, forbid_unknown_fields=True):
    """Whose tokens an edge believes, and which pages may call it."""

    issuer: str = "millrace"
    audience: str = "millrace"
    leeway: Annotated[float, Meta(ge=0, le=300)] = 2.0  # seconds that the issuer's clock may be wrong
    jwks: str | None = None  # a file or an https URL with the issuer's public keys
    jwks_refresh: Annotated[float, Meta(gt=0)] = 300.0
    claims: Claims = Claims()
    default_scopes: _Scopes = ("read", "write")  # of a token that names none
    default_projects: tuple[str, ...] = ("*",)  # likewise; `*` is every project of the tenant
    origins: tuple[str, ...] = ()  # beside the edge's own: `https://app.example`, or `*`

    def __post_init__(self) -> None:
        """Refuse keys that would come over an open network, and what is no origin."""
        if (
            self.jwks
            and "://" in self.jwks
            and not re.match(r"https://.|http://(127\.0\.0\.1|localhost|\[::1\])[:/]", self.jwks)
        ):
            raise ValueError("`jwks` is a file, or a URL that begins with https://")
        for origin in self.origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s?#]+", origin):
                raise ValueError(f"`origins`: {origin!r:.80} is not a scheme, host and port")


class Config(Struct, frozen=True):
    """The whole configuration. Tables keep the order of the file."""

    tenants: dict[str, Tenant]
    agents: dict[str, Agent]
    servers: dict[str, ToolServer]
    rules: tuple[Rule, ...] = ()
    limits: Limits = Limits()
    demo: bool = True
    auth: Auth = Auth()
    groups: dict[str, Group] = field(default_factory=lambda: {DEFAULT_GROUP: Group()})
    """The groups of agents, `default` first, whether an agent is in it or not."""

    @property
    def default_agent(self) -> str:
        """The agent of a session that names none: the first of the file, else `script`."""
        return next(iter(self.agents), "script")

    @property
    def ack_waits(self) -> dict[str, float]:
        """Of the groups that have their own."""
        return {name: group.ack_wait for name, group in self.groups.items() if group.ack_wait is not None}

    def agent(self, name: str | None) -> Agent:
        """The agent of a session; one that is not configured is in the default group."""
        return self.agents.get(name or self.default_agent, NOBODY)


class _ToolTables(Struct, frozen=True, forbid_unknown_fields=True):
    servers: dict[str, Any] = {}
    rules: list[Any] = []


class _Tables(Struct, frozen=True, forbid_unknown_fields=True):
    tenants: dict[str, Any] = {}
    agents: dict[str, Any] = {}
    groups: dict[str, Any] = {}
    tools: _ToolTables = _ToolTables()
    limits: dict[str, Any] = {}
    auth: dict[str, Any] = {}
    demo: bool = True


def load(path: str | Path | None, env: Mapping[str, str] = os.environ) -> Config:
    """The configuration of that file, or the default one. Raises ConfigError.

    The agent `script` and the server `demo` are added unless the file has its own or says
    `demo = false`; the tenant is `dev` where none is named. `env` is what the demo server
    inherits its variables from.
    """
    try:
        return _config(_read(path), env)
    except ValueError as error:
        raise ConfigError(" ".join(f"{path}: {error}".split())) from None


def _read(path: str | Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from error


def _config(document: dict[str, Any], env: Mapping[str, str]) -> Config:
    tables = _convert(document, _Tables, "")
    tenants = _named(tables.tenants, Tenant, "tenants")
    agents = _named(tables.agents, Agent, "agents")
    servers = _named(tables.tools.servers, ToolServer, "tools.servers")
    if tables.demo:
        agents.setdefault("script", Agent(model="script", tools=("*",)))
        servers.setdefault("demo", _demo(env))
    return Config(
        tenants=tenants or {"dev": Tenant()},
        agents=agents,
        servers=servers,
        rules=tuple(_convert(rule, Rule, f"tools.rules[{i}]") for i, rule in enumerate(tables.tools.rules)),
        limits=_convert(tables.limits, Limits, "limits"),
        auth=_convert(tables.auth, Auth, "auth"),
        demo=tables.demo,
        groups=_groups(_named(tables.groups, Group, "groups"), agents.values()),
    )


def _groups(given: dict[str, Group], agents: Iterable[Agent]) -> dict[str, Group]:
    names = dict.fromkeys((DEFAULT_GROUP, *(agent.group for agent in agents)))
    for name in given.keys() - names:
        raise ValueError(f"groups.{name}: no agent is in this group (there are: {', '.join(names)})")
    return {name: given.get(name, Group()) for name in names}


def _demo(env: Mapping[str, str]) -> ToolServer:
    inherited = {name: env[name] for name in _DEMO_INHERITS if name in env}
    return ToolServer(command=(sys.executable, "-m", "tool_runner.demo"), env=inherited, trusted=True)


def _named(table: dict[str, Any], kind: type[_T], path: str) -> dict[str, _T]:
    """The entries of a table whose keys become tokens of subjects and tool names."""
    for name in table:
        if not is_token(name):
            raise ValueError(f"{path}.{name!r:.80}: a name is [A-Za-z0-9_-]{{1,64}}")
    return {name: _convert(entry, kind, f"{path}.{name}") for name, entry in table.items()}


def _convert(value: object, kind: type[_T], path: str) -> _T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        problem, _, below = str(error).partition(" - at `$")
        where = path + below.rstrip("`")
        if unknown := re.fullmatch("Object contains unknown field `(.*)`", problem):
            where, problem = f"{where}.{unknown[1]}", "unknown key"
        raise ValueError(f"{where.lstrip('.')}: {problem}") from None
