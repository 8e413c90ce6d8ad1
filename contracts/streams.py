"""Topology as data: every stream, consumer and permission.

The provisioner makes the server match it, and the server's configuration is generated from it.
Durations are in seconds. A lane has one writer; a service may publish to its lanes, read what it
needs and nothing else.
"""

from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

from contracts import subjects
from contracts.subjects import DEFAULT_GROUP

LOG = "LOG"
DEAD = "DEAD"
STATE = "STATE"
AUTH = "AUTH"
TICKETS = "TICKETS"
TOOLS = "TOOLS"

ACK_WAIT = 1.5
"""How long a silent holder keeps a delivery: a killed runner's turn is taken over within twice that time, 3 s."""

DELTA_TTL = 24 * 3600
"""How long a delta outlives its append: longer than an answer may stay open."""

MAX_EVENT_BYTES = 4 * 1024 * 1024
"""The largest event; the server's `max_payload` leaves room for headers beside it."""

MAX_PAYLOAD = 8 * 1024 * 1024

SIDE_STREAM_BYTES = 256 * 1024 * 1024
"""What the dead letters, the folds, and each tenant's external events may take."""

TOOL_BYTES = 64 * 1024 * 1024
AUTH_BYTES = 64 * 1024 * 1024
TICKET_BYTES = 16 * 1024 * 1024

TICKET_AGE = 60
"""How long the broker knows a ticket: longer than it may be used."""


class Stream(Struct, frozen=True, kw_only=True):
    """A stream in files; refuses rather than forgets when full. `queue`: what is acked is deleted."""

    name: str
    subjects: tuple[str, ...]
    republish: tuple[str, str] | None = None
    max_bytes: int = -1
    max_age: float = 0
    max_per_subject: int = -1
    duplicate_window: float = 120
    allow_direct: bool = False
    allow_msg_ttl: bool = False
    discard: str = "new"
    queue: bool = False
    epoch: bool = False


class Consumer(Struct, frozen=True, kw_only=True):
    """A durable pull consumer: one delivery, one holder, redelivered after `ack_wait`, for ever."""

    stream: str
    durable: str
    filter_subject: str
    ack_wait: float
    max_ack_pending: int = -1


class Permissions(Struct, frozen=True, kw_only=True):
    """What one account user may publish and subscribe to."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


AGENT_RUNNER = "agent_runner"
SERVICES = ("edge", AGENT_RUNNER, "tool_runner", "event_ingest")
GROUPS = (DEFAULT_GROUP,)
"""The groups of agents where nothing is configured."""
PROVISIONER = "provisioner"
"""Creates and changes streams and consumers, and may purge. Never a service's credentials."""
OPERATOR = "operator"
"""A person at the command line: reads the dead letters, makes and revokes API keys."""
USERS = (*SERVICES, PROVISIONER, OPERATOR)


def log(max_bytes: int) -> Stream:
    """The log. `max_bytes` must leave the disk room: the broker refuses before the disk does."""
    return Stream(
        name=LOG,
        subjects=(subjects.LOG_ALL,),
        republish=(subjects.LOG_ALL, subjects.LIVE_ALL),
        max_bytes=max_bytes,
        allow_direct=True,
        allow_msg_ttl=True,
        epoch=True,
    )


def dead_letters() -> Stream:
    """What could not be accepted, with the reason. The oldest gives way when it is full."""
    return Stream(
        name=DEAD,
        subjects=(subjects.DEAD_ALL,),
        max_bytes=SIDE_STREAM_BYTES,
        discard="old",
        allow_direct=True,
    )


def state() -> Stream:
    """The last fold of each session: a cache, of which the oldest gives way when it is full."""
    return Stream(
        name=STATE,
        subjects=(subjects.STATE_ALL,),
        max_bytes=SIDE_STREAM_BYTES,
        max_per_subject=1,
        discard="old",
        allow_direct=True,
    )


def auth() -> Stream:
    """API keys, and what was revoked. Each entry replaces the one before it; none is ever forgotten."""
    return Stream(name=AUTH, subjects=(subjects.AUTH_ALL,), max_bytes=AUTH_BYTES, max_per_subject=1, allow_direct=True)


def tickets() -> Stream:
    """Tickets. One is used by replacing it, which succeeds once."""
    return Stream(
        name=TICKETS,
        subjects=(subjects.TICKET_ALL,),
        max_bytes=TICKET_BYTES,
        max_age=TICKET_AGE,
        max_per_subject=1,
        duplicate_window=TICKET_AGE,
    )


def tools() -> Stream:
    """The tools of each server, the newest list of each."""
    return Stream(
        name=TOOLS, subjects=(subjects.TOOLS_ALL,), max_bytes=TOOL_BYTES, max_per_subject=1, allow_direct=True
    )


def ingest(tenant: str) -> Stream:
    """What a tenant's external systems publish. Message ids are per stream, so each has its own."""
    return Stream(
        name=subjects.ingest_stream(tenant),
        subjects=(subjects.ingest_all(tenant),),
        queue=True,
        max_bytes=SIDE_STREAM_BYTES,
        max_age=7 * 24 * 3600,
    )


def streams(tenants: tuple[str, ...], log_bytes: int) -> tuple[Stream, ...]:
    """Every stream."""
    return (
        log(log_bytes),
        dead_letters(),
        state(),
        auth(),
        tickets(),
        tools(),
        *(ingest(tenant) for tenant in tenants),
    )


def agent_runner(ack_wait: float = ACK_WAIT, group: str = DEFAULT_GROUP) -> Consumer:
    """Delivers every message for the agents of a group to one agent runner."""
    return Consumer(
        stream=LOG,
        durable=AGENT_RUNNER if group == DEFAULT_GROUP else f"{AGENT_RUNNER}_{group}",
        filter_subject=subjects.messages_of_all(group),
        ack_wait=ack_wait,
    )


def tool_runner(ack_wait: float = ACK_WAIT) -> Consumer:
    """Delivers every tool call to one tool runner."""
    return Consumer(
        stream=LOG,
        durable="tool_runner",
        filter_subject=subjects.lane_of_all("session", "call"),
        ack_wait=ack_wait,
    )


def event_ingest(tenant: str, ack_wait: float = ACK_WAIT) -> Consumer:
    """Delivers what a tenant's external systems published, one after another: their order holds."""
    return Consumer(
        stream=subjects.ingest_stream(tenant),
        durable="event_ingest",
        filter_subject=subjects.ingest_all(tenant),
        ack_wait=ack_wait,
        max_ack_pending=1,
    )


def consumers(
    tenants: tuple[str, ...],
    ack_wait: float = ACK_WAIT,
    groups: tuple[str, ...] = GROUPS,
    ack_waits: Mapping[str, float] = MappingProxyType({}),
) -> tuple[Consumer, ...]:
    """Every consumer; `ack_waits` of the groups that have their own."""
    runners = (agent_runner(ack_waits.get(group, ack_wait), group) for group in groups)
    ingests = (event_ingest(tenant, ack_wait) for tenant in tenants)
    return (*runners, tool_runner(ack_wait), *ingests)


def inbox(user: str) -> str:
    """The private inbox prefix of a user: nobody else may read the replies to it."""
    return f"_IN.{user}"


def _reads(*streams: str) -> tuple[str, ...]:
    calls = ("DIRECT.GET", "STREAM.MSG.GET", "STREAM.INFO")
    return tuple(f"$JS.API.{call}.{stream}" for stream in streams for call in calls)


def _holds(consumer: Consumer) -> tuple[str, ...]:
    path = f"{consumer.stream}.{consumer.durable}"
    return (
        f"$JS.API.CONSUMER.MSG.NEXT.{path}",
        f"$JS.API.CONSUMER.INFO.{path}",
        f"$JS.ACK.{path}.>",
    )


def permissions(user: str, tenants: tuple[str, ...], groups: tuple[str, ...] = GROUPS) -> Permissions:
    """Least privilege: its lanes to write, the reads it needs, its own consumers and inbox."""
    publish: tuple[str, ...]
    listens: tuple[str, ...] = ()
    match user:
        case "edge":
            publish = (
                subjects.lane_of_all("session", "message"),
                subjects.ANY_GROUPED,
                subjects.lane_of_all("session", "client"),
                subjects.lane_of_all("user", "client"),
                subjects.ANY_STATE,
                subjects.ANY_TYPING,
                subjects.TICKET_ALL,
                subjects.EDGES_ALL,
                *_reads(LOG, STATE, AUTH, TICKETS),
            )
            listens = (subjects.LIVE_ALL, subjects.EDGES_ALL)
        case "agent_runner":
            publish = (
                subjects.lane_of_all("session", "agent"),
                subjects.lane_of_all("session", "call"),
                subjects.ANY_DELTA,
                subjects.ANY_TURNS,
                subjects.DEAD_ALL,
                *_reads(LOG, STATE, TOOLS),
                *(subject for group in groups for subject in _holds(agent_runner(group=group))),
            )
            listens = (subjects.live_of_all("session"),)
        case "tool_runner":
            publish = (
                subjects.lane_of_all("session", "tool"),
                subjects.TOOLS_ALL,
                subjects.DEAD_ALL,
                *_reads(LOG, STATE),
                *_holds(tool_runner()),
            )
            listens = (subjects.live_of_all("session"),)
        case "event_ingest":
            publish = (
                subjects.lane_of_all("*", "event"),
                subjects.DEAD_ALL,
                *_reads(LOG),
                *(subject for tenant in tenants for subject in _holds(event_ingest(tenant))),
            )
        case "provisioner":
            publish = ("$JS.API.>",)
        case "operator":
            publish = (*_reads(DEAD, AUTH), f"$JS.API.STREAM.INFO.{LOG}", subjects.AUTH_ALL)
        case _:
            raise ValueError(f"not a user: {user!r}")
    return Permissions(publish=publish, subscribe=(*listens, f"{inbox(user)}.>"))


def tenant_permissions(tenant: str) -> Permissions:
    """What a tenant's external systems may do, in an account of their own: publish their events."""
    return Permissions(publish=(subjects.ingest_all(tenant),), subscribe=("_INBOX.>",))
