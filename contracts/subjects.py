"""Subjects: the only place where one is built or parsed.

    log.<tenant>.<topic>.<id>.fact.<lane>     what happened; stays
    log.<tenant>.session.<id>.fact.message.<group>   the lane `message`, for the agents of another group than `default`
    log.<tenant>.<topic>.<id>.delta           streamed text; fades
    live.<…>                                  the same message, republished after it is stored
    live.<tenant>.session.<id>.typing         somebody is typing; never stored
    ingest.<tenant>.<source>.<type…>          what external systems publish
    dead.<tenant>                             what could not be accepted, with the reason
    state.<tenant>.session.<id>.turns         an agent runner's fold of a session, likewise
    state.<tenant>.session.<id>               a fold of a session's facts, to begin the next fold from; a cache
    tools.<server>                            the tools of one server, for those who offer them to models
    auth.<tenant>.<key|user|token>.<id>       API keys, and what was revoked
    ticket.<hash>                             a ticket that may be used once
    edges.<what>                              what the edges tell one another; never stored

The grammar is the security model: a lane has one writer, and a token can never hold a dot or a wildcard.
"""

import re
from typing import Literal, Self, get_args

from msgspec import Struct

Lane = Literal["message", "client", "agent", "call", "tool", "event"]
LANES: tuple[Lane, ...] = get_args(Lane)
DEFAULT_GROUP = "default"
"""The group of agents whose messages have no group in their subject."""
Kind = Literal["session", "user", "project", "tenant"]
KINDS: tuple[Kind, ...] = get_args(Kind)

LOG_ALL = "log.>"
LIVE_ALL = "live.>"
DEAD_ALL = "dead.>"
STATE_ALL = "state.>"
AUTH_ALL = "auth.>"
TICKET_ALL = "ticket.*"
TOOLS_ALL = "tools.*"
EDGES_ALL = "edges.>"
ANY_STATE = "state.*.session.*"
ANY_TURNS = "state.*.session.*.turns"
ANY_TYPING = "live.*.session.*.typing"
ANY_DELTA = "log.*.*.*.delta"
ANY_GROUPED = "log.*.session.*.fact.message.*"

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")


def is_token(text: object) -> bool:
    """Whether `text` may stand between two dots of a subject: `[A-Za-z0-9_-]{1,64}`."""
    return isinstance(text, str) and _TOKEN.fullmatch(text) is not None


def token(text: str) -> str:
    """`text` itself. Raises ValueError where it could reach beyond its place in a subject."""
    if not is_token(text):
        raise ValueError(f"not a token [A-Za-z0-9_-]{{1,64}}: {text!r:.80}")
    return text


class Topic(Struct, frozen=True, order=True):
    """One ordered history in the log: a session's, or what a user, a project or a tenant is told."""

    tenant: str
    kind: Kind
    id: str

    def __post_init__(self) -> None:
        """Refuse what could reach beyond its place in a subject."""
        token(self.tenant)
        token(self.id)
        if self.kind not in KINDS:
            raise ValueError(f"not a topic kind: {self.kind!r}")

    @classmethod
    def session(cls, tenant: str, session_id: str) -> Self:
        """The topic of a session."""
        return cls(tenant, "session", session_id)

    @classmethod
    def user(cls, tenant: str, user_id: str) -> Self:
        """What a user is told outside any session, and the index of the user's sessions."""
        return cls(tenant, "user", user_id)

    @classmethod
    def project(cls, tenant: str, project_id: str) -> Self:
        """What everybody who watches a project is told."""
        return cls(tenant, "project", project_id)

    @classmethod
    def everybody(cls, tenant: str) -> Self:
        """What everybody of a tenant is told."""
        return cls(tenant, "tenant", "all")

    @property
    def _path(self) -> str:
        return f"{self.tenant}.{self.kind}.{self.id}"

    @property
    def all(self) -> str:
        """Everything stored of this topic."""
        return f"log.{self._path}.>"

    @property
    def facts(self) -> str:
        """Every fact of this topic: the check subject of every conditional append."""
        return f"log.{self._path}.fact.>"

    def fact(self, lane: Lane) -> str:
        """One lane of facts."""
        return f"log.{self._path}.fact.{lane}"

    def message(self, group: str = DEFAULT_GROUP) -> str:
        """The lane `message`, for the agents of a group."""
        lane = self.fact("message")
        return lane if group == DEFAULT_GROUP else f"{lane}.{token(group)}"

    @property
    def grouped(self) -> str:
        """The messages for the agents of every group but the default one."""
        return f"{self.fact('message')}.*"

    @property
    def delta(self) -> str:
        """Streamed text."""
        return f"log.{self._path}.delta"

    @property
    def typing(self) -> str:
        """Who is typing, told to whoever follows `live`."""
        return f"live.{self._path}.typing"

    @property
    def state(self) -> str:
        """The fold of this topic that the next fold begins from."""
        return f"state.{self._path}"

    @property
    def turns_state(self) -> str:
        """Likewise, as agent runners keep it."""
        return f"state.{self._path}.turns"

    @property
    def live(self) -> str:
        """Everything of this topic, as it is stored."""
        return f"live.{self._path}.>"

    @property
    def live_facts(self) -> str:
        """Every fact of this topic, as it is stored."""
        return f"live.{self._path}.fact.>"


def parse(subject: str) -> tuple[Topic, Lane | Literal["delta"]]:
    """The topic and lane of a `log.` or `live.` subject. Raises ValueError for any other."""
    match subject.split("."):
        case ["log" | "live", tenant, kind, topic_id, "delta"]:
            return Topic(tenant, kind, topic_id), "delta"  # type: ignore[arg-type]
        case ["log" | "live", tenant, kind, topic_id, "fact", lane] if lane in LANES:
            return Topic(tenant, kind, topic_id), lane  # type: ignore[arg-type]
        case ["log" | "live", tenant, "session", topic_id, "fact", "message", group] if group != DEFAULT_GROUP:
            token(group)
            return Topic(tenant, "session", topic_id), "message"
    raise ValueError(f"not a subject of the log: {subject!r:.200}")


def group_of(subject: str) -> str:
    """The group whose agents answer a message that is stored there. Raises ValueError where it is no such subject."""
    topic, lane = parse(subject)
    if lane != "message":
        raise ValueError(f"not a message's subject: {subject!r:.200}")
    return subject.removeprefix(topic.message()).lstrip(".") or DEFAULT_GROUP


def lane_of_all(kind: Kind | Literal["*"], lane: Lane, tenant: str = "*") -> str:
    """One lane of every topic of that kind: a consumer's filter, or what a service may publish."""
    return f"log.{tenant}.{kind}.*.fact.{lane}"


def messages_of_all(group: str) -> str:
    """Every message for the agents of a group: its consumer's filter."""
    lane = lane_of_all("session", "message")
    return lane if group == DEFAULT_GROUP else f"{lane}.{token(group)}"


def live_of_all(kind: Kind | Literal["*"]) -> str:
    """Every live subject of topics of that kind: what a service may subscribe to."""
    return f"live.*.{kind}.*.>"


def ingest_all(tenant: str) -> str:
    """All that a tenant's external systems may publish."""
    return f"ingest.{token(tenant)}.>"


def ingest(tenant: str, source: str, event_type: str) -> str:
    """Where an event is published: a source token and one token per dotted part of its type."""
    parts = [token(part) for part in event_type.split(".")]
    return ".".join(["ingest", token(tenant), token(source), *parts])


def tenant_of_ingest(subject: str) -> str:
    """The tenant that an `ingest.` subject belongs to."""
    match subject.split("."):
        case ["ingest", tenant, *_]:
            return token(tenant)
    raise ValueError(f"not an ingest subject: {subject!r:.200}")


def dead(tenant: str) -> str:
    """The dead letters of a tenant."""
    return f"dead.{token(tenant)}"


def auth(tenant: str, kind: Literal["key", "user", "token"], subject_id: str) -> str:
    """Where an API key is kept, or that a user's tokens or one token were revoked."""
    return f"auth.{token(tenant)}.{kind}.{token(subject_id)}"


def tools(server: str) -> str:
    """Where the tools of a server are told."""
    return f"tools.{token(server)}"


def ticket(digest: str) -> str:
    """Where a ticket waits to be used, by its hash."""
    return f"ticket.{token(digest)}"


def edges(what: str) -> str:
    """What the edges tell one another."""
    return f"edges.{token(what)}"


def ingest_stream(tenant: str) -> str:
    """The name of the stream that a tenant's external systems publish to."""
    return f"INGEST_{token(tenant)}"
