"""Sessions: created, found and listed. A session is its first fact; its owner's topic holds the index."""

from typing import Any

from msgspec import Struct

from broker.append import Append, append, conditional
from broker.connect import Broker
from broker.read import read
from contracts import events
from contracts.errors import Code, MillraceError
from contracts.subjects import Topic
from edge.auth import Principal

DEADLINE = 5.0
"""Seconds that a request waits for the broker before it is told to try again."""


class Session(Struct, frozen=True):
    """A session as its facts describe it."""

    session_id: str
    user_id: str
    agent: str
    state: str
    title: str | None
    project_id: str | None
    metadata: dict[str, Any] | None
    created_at: str | None

    @property
    def is_closed(self) -> bool:
        """Whether nothing may be said in it any more."""
        return self.state == "closed"


async def create(broker: Broker, principal: Principal, wanted: Session) -> tuple[Session, bool]:
    """The session and whether it was created now; the same id again gives the owner the same session.

    Raises MillraceError where the id is somebody else's.
    """
    topic = Topic.session(principal.tenant, wanted.session_id)
    fact = events.SessionUpdated(
        id=events.new_id(),
        timestamp=events.timestamp(),
        session_id=wanted.session_id,
        project_id=wanted.project_id,
        user_id=principal.user_id,
        title=wanted.title,
        state="active",
        agent=wanted.agent,
        created_at=events.timestamp(broker.now()),
        metadata=wanted.metadata,
    )
    what = conditional(topic, topic.fact("client"), events.encode(fact), fact.id, 0)
    created = await append(broker, what, deadline=DEADLINE) is not None
    session = await find(broker, principal, wanted.session_id)
    index = Topic.user(principal.tenant, principal.user_id)
    entry = events.SessionListed(
        id=f"listed-{wanted.session_id}", timestamp=events.timestamp(), listed_id=wanted.session_id
    )
    listed = Append(index.fact("client"), events.encode(entry), f"{index.tenant}/{index.id}/{entry.id}")
    if created or session.session_id not in await _listed(broker, principal):
        await append(broker, listed, deadline=DEADLINE)
    return session, created


async def find(broker: Broker, principal: Principal, session_id: str) -> Session:
    """The caller's session. Raises MillraceError `session_not_found`, or `forbidden` for another user's."""
    try:
        topic = Topic.session(principal.tenant, session_id)
    except ValueError:
        raise MillraceError(Code.SESSION_NOT_FOUND) from None
    session = await _fold(broker, topic)
    if session is None or session.state == "deleted":
        raise MillraceError(Code.SESSION_NOT_FOUND)
    if session.user_id != principal.user_id:
        raise MillraceError(Code.FORBIDDEN)
    return session


async def list_own(broker: Broker, principal: Principal, limit: int) -> list[Session]:
    """The caller's newest sessions, newest first."""
    found: list[Session] = []
    for session_id in reversed(await _listed(broker, principal)):
        session = await _fold(broker, Topic.session(principal.tenant, session_id))
        if session and session.state != "deleted":
            found.append(session)
        if len(found) == limit:
            break
    return found


async def _listed(broker: Broker, principal: Principal) -> list[str]:
    index = Topic.user(principal.tenant, principal.user_id)
    listed: dict[str, None] = {}
    async for records in read(broker, index.fact("client"), 0):
        for record in records:
            event = events.decode(record.data)
            if isinstance(event, events.SessionListed):
                listed[event.listed_id] = None
    return list(listed)


async def _fold(broker: Broker, topic: Topic) -> Session | None:
    session: Session | None = None
    async for records in read(broker, topic.fact("client"), 0):
        for record in records:
            event = events.decode(record.data)
            if isinstance(event, events.SessionUpdated):
                session = Session(
                    session_id=topic.id,
                    user_id=session.user_id if session else event.user_id,
                    agent=session.agent if session else event.agent or "",
                    state=event.state,
                    title=event.title,
                    project_id=session.project_id if session else event.project_id,
                    metadata=session.metadata if session else event.metadata,
                    created_at=session.created_at if session else event.created_at,
                )
    return session
