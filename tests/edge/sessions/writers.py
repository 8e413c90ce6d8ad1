"""The services that write a session's log, each its lanes, as a test says. Nobody answers by himself."""

import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from broker.connect import Broker, connect
from contracts import events
from contracts.errors import Code, MillraceError
from contracts.events import AnyEvent
from contracts.subjects import DEFAULT_GROUP, Lane, Topic
from edge import folds, sessions
from edge.principal import Principal
from edge.sessions import Session
from tests.contracts import facts as a
from tests.harness.nats_server import NatsServer, nats_server
from tests.harness.wait import until

WRITERS: dict[Lane, str] = {
    "message": "edge",
    "client": "edge",
    "agent": "agent_runner",
    "call": "agent_runner",
    "tool": "tool_runner",
    "event": "event_ingest",
}


class Writers:
    """A broker, an edge's connection to it, another edge's, and one of each service that writes."""

    def __init__(self, nats: NatsServer, services: dict[str, Broker], other: Broker) -> None:
        self.nats = nats
        self.edge = services["edge"]
        self.other = other
        self._services = services

    @property
    def epoch(self) -> str:
        """The log's."""
        assert self.edge.log_info
        return self.edge.log_info.epoch

    async def write(self, topic: Topic, *facts: AnyEvent, group: str = DEFAULT_GROUP) -> list[int]:
        """Store the facts in order, each with an id of its own; where they stand. `group`: of the messages."""
        seqs: list[int] = []
        for service, some in itertools.groupby(facts, lambda fact: WRITERS[_lane(fact)]):
            answers = [
                self._services[service].ask(_subject(topic, fact, group), events.encode(_of(topic, fact)))
                for fact in some
            ]
            seqs += [json.loads((await answer).data)["seq"] for answer in answers]
        return seqs

    async def operate(self, call: str, **request: object) -> None:
        """Do what an operator may to a stream."""
        client = await self.nats.client("provisioner")
        reply = await client.request(f"$JS.API.STREAM.{call}", json.dumps(request).encode())
        assert json.loads(reply.data)["success"], reply.data
        await client.close()


def _lane(fact: AnyEvent) -> Lane:
    return events.LANE_OF.get(type(fact), "event")


def _subject(topic: Topic, fact: AnyEvent, group: str) -> str:
    return topic.message(group) if isinstance(fact, events.Message) else topic.fact(_lane(fact))


def _of(topic: Topic, fact: AnyEvent) -> AnyEvent:
    return replace(fact, id=events.new_id(), session_id=topic.id if topic.kind == "session" else None)


@asynccontextmanager
async def writing(data: Path) -> AsyncIterator[Writers]:
    """A broker of its own and everybody who writes, until the block ends."""
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(nats_server(data))
        services = {
            name: await stack.enter_async_context(connect(nats.url, name, seed_file=nats.seed(name)))
            for name in dict.fromkeys(WRITERS.values())
        }
        other = await stack.enter_async_context(connect(nats.url, "edge", seed_file=nats.seed("edge")))
        yield Writers(nats, services, other)


async def kept_upto(log: Writers, topic: Topic, seq: int) -> None:
    """Wait until a view that goes so far is kept."""

    async def is_kept() -> bool:
        kept = await folds.kept(log.edge, topic)
        return kept is not None and kept[1] == seq

    await until(is_kept)


def turn(message_id: str) -> list[AnyEvent]:
    """A message, its answer (`a-<message_id>`) and the end: five facts."""
    answer_id = f"a-{message_id}"
    return [
        a.message(message_id),
        a.turn_start(message_id),
        a.stream_start(answer_id, message_id),
        a.stream_end(answer_id, message_id),
        a.turn_end(message_id),
    ]


def turns(number: int, first: int = 0) -> list[AnyEvent]:
    """That many turns."""
    return [fact for place in range(first, first + number) for fact in turn(f"m{place}")]


def updated(state: events.SessionState = "active", title: str | None = None, user_id: str = "ann") -> AnyEvent:
    """What a session has become."""
    return events.SessionUpdated(**a.BASE, user_id=user_id, title=title, state=state)


def caller(user_id: str, *scopes: str, tenant: str = "acme") -> Principal:
    """An authenticated caller, who may read and write, and more."""
    return Principal(tenant, user_id, None, frozenset({"read", "write", *scopes}))


@contextmanager
def refused(code: Code) -> Iterator[None]:
    """What is done here is refused with that code."""
    with pytest.raises(MillraceError) as error:
        yield
    assert error.value.code is code


def new(session_id: str, title: str | None = None) -> Session:
    """What somebody wants to create; whose it is and when it was made is not for him to say."""
    return Session(session_id, "somebody", "script", "active", title, "p1", {"n": 1}, "1999-01-01T00:00:00.000000Z")


async def create(log: Writers, principal: Principal, number: int = 1) -> list[str]:
    """Sessions of a user, in the order in which they were created."""
    ids = [events.new_id() for _ in range(number)]
    for session_id in ids:
        await sessions.create(log.edge, principal, new(session_id))
    return ids


async def listed(log: Writers, principal: Principal, limit: int) -> list[list[str]]:
    """All pages of a user's sessions."""
    pages: list[list[str]] = []
    before: str | None = None
    while True:
        found, after = await sessions.list_own(log.edge, principal, limit, before)
        pages.append([session.session_id for session in found])
        if after is None:
            return pages
        assert before is None or int(after) < int(before)
        before = after
