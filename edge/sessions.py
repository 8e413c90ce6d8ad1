"""Sessions: created, found, listed, changed, deleted. A session is its facts; its owner's topic holds the index."""

import asyncio
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from broker.append import Append, append, conditional
from broker.backwards import block
from broker.connect import Broker
from broker.read import Record, last, read
from contracts import events
from contracts.errors import Code, MillraceError
from contracts.subjects import Topic
from contracts.view import View
from edge import folds
from edge.history import place
from edge.principal import Principal

DEADLINE = 5.0
"""Seconds that a request waits for the broker before it is told to try again."""

SCANNED = 4
"""Entries of the index that are looked at for each one wanted, before a page is as long as it is."""


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

    def fact(self) -> events.SessionUpdated:
        """What is recorded when it has become this."""
        return events.SessionUpdated(
            id=events.new_id(),
            timestamp=events.timestamp(),
            session_id=self.session_id,
            project_id=self.project_id,
            user_id=self.user_id,
            title=self.title,
            state=self.state,  # type: ignore[arg-type] # what facts and requests say, both checked
            agent=self.agent,
            created_at=self.created_at,
            metadata=self.metadata,
        )


async def create(broker: Broker, principal: Principal, wanted: Session) -> tuple[Session, bool]:
    """The session and whether it was created now; the same id again gives the owner the same session.

    It is listed before it exists, so that none exists unlisted. Raises MillraceError where the id is somebody else's.
    """
    topic = Topic.session(principal.tenant, wanted.session_id)
    if await _look(broker, topic) is None:
        index = Topic.user(principal.tenant, principal.user_id)
        entry = events.SessionListed(
            id=f"listed-{wanted.session_id}", timestamp=events.timestamp(), listed_id=wanted.session_id
        )
        listed = Append(index.fact("client"), events.encode(entry), f"{index.tenant}/{index.id}/{entry.id}")
        await append(broker, listed, deadline=DEADLINE)
        new = replace(wanted, user_id=principal.user_id, created_at=events.timestamp(broker.now()))
        if await _record(broker, topic, new, 0):
            return new, True
    return await find(broker, principal, wanted.session_id), False


async def find(broker: Broker, principal: Principal, session_id: str) -> Session:
    """A session that the caller may see. Raises MillraceError `session_not_found`, or `forbidden` for another user's.

    Costs the same however long the session is.
    """
    try:
        topic = Topic.session(principal.tenant, session_id)
    except ValueError:
        raise MillraceError(Code.SESSION_NOT_FOUND) from None
    return _allowed(principal, await _look(broker, topic))


async def update(broker: Broker, principal: Principal, session_id: str, **changes: str | None) -> Session:
    """The session with another title or state. Raises MillraceError as `find`, and where it is not one's own."""
    await find(broker, principal, session_id)
    topic = Topic.session(principal.tenant, session_id)
    while True:
        view, seq = await folds.fold(broker, topic)
        session = _own(principal, _of(topic, view))
        changed = replace(session, **changes)
        if changed == session or await _record(broker, topic, changed, seq):
            return changed


async def delete(broker: Broker, principal: Principal, session_id: str) -> None:
    """Record that the session is deleted, for ever; then stop what runs in it. Raises MillraceError as `update`."""
    await find(broker, principal, session_id)
    topic = Topic.session(principal.tenant, session_id)
    while True:
        view, seq = await folds.fold(broker, topic)
        session = _own(principal, _of(topic, view))
        if await _record(broker, topic, replace(session, state="deleted"), seq):
            break
    for message_id in view.session.turns:
        event = events.Cancel(
            id=events.new_id(),
            timestamp=events.timestamp(),
            session_id=topic.id,
            message_id=message_id,
            user_id=principal.user_id,
        )
        what = Append(topic.fact("client"), events.encode(event), f"{topic.tenant}/{topic.id}/{event.id}")
        await append(broker, what, deadline=DEADLINE)


async def list_own(
    broker: Broker, principal: Principal, limit: int, before: str | None = None
) -> tuple[list[Session], str | None]:
    """The caller's sessions, newest first, and where the next page begins; None at the end.

    A page may be shorter than `limit`, even empty, where many sessions were deleted. An attempt at creating one that
    was broken off, and repeated minutes later, leaves two entries: within a page the session is there once.
    """
    index = Topic.user(principal.tenant, principal.user_id).fact("client")
    end = place(before)
    found: dict[str, Session] = {}
    for _ in range(SCANNED):
        entries = await block(broker, index, end, limit)
        for chunk in _chunks(entries.records, limit):
            for seq, session in await _listed(broker, principal, chunk):
                if session and session.session_id not in found:
                    found[session.session_id] = session
                if len(found) == limit:
                    return list(found.values()), str(seq)
        if entries.start <= 1:
            return list(found.values()), None
        end = entries.start
    return list(found.values()), str(end)


async def _listed(broker: Broker, principal: Principal, records: list[Record]) -> list[tuple[int, Session | None]]:
    """What stands in the index at those places, newest first; None for what is no session of the caller's (now)."""

    async def look(record: Record) -> Session | None:
        event = events.decode(record.data)
        if not isinstance(event, events.SessionListed):
            return None
        session = await _look(broker, Topic.session(principal.tenant, event.listed_id))
        mine = session is not None and session.user_id == principal.user_id and session.state != "deleted"
        return session if mine else None

    newest_first = records[::-1]
    sessions = await asyncio.gather(*map(look, newest_first))
    return [(record.seq, session) for record, session in zip(newest_first, sessions, strict=True)]


def _chunks(records: list[Record], size: int) -> list[list[Record]]:
    """From the end, so that what is not wanted is not looked at."""
    return [records[max(0, end - size) : end] for end in range(len(records), 0, -size)]


def _allowed(principal: Principal, session: Session | None) -> Session:
    if session is None or session.state == "deleted":
        raise MillraceError(Code.SESSION_NOT_FOUND)
    if session.user_id != principal.user_id and not principal.may_join_any:
        raise MillraceError(Code.FORBIDDEN)
    return session


def _own(principal: Principal, session: Session | None) -> Session:
    session = _allowed(principal, session)
    if session.user_id != principal.user_id and not principal.may("admin"):
        raise MillraceError(Code.FORBIDDEN, "only its owner changes a session")
    return session


async def _record(broker: Broker, topic: Topic, session: Session, after: int) -> bool:
    """Append what the session has become, if its last fact is still that."""
    fact = session.fact()
    what = conditional(topic, topic.fact("client"), events.encode(fact), fact.id, after)
    return await append(broker, what, deadline=DEADLINE) is not None


async def _look(broker: Broker, topic: Topic) -> Session | None:
    """The session: what was kept of it, and what clients did since."""
    lane = topic.fact("client")
    kept, upto = await asyncio.gather(folds.kept(broker, topic), last(broker, lane))
    view, seq = kept or (View(), 0)
    created, about = view.created, view.session.about
    async for records in read(broker, lane, seq, upto):
        for record in records:
            event = events.decode(record.data)
            if isinstance(event, events.SessionUpdated) and (about is None or about.state != "deleted"):
                created, about = created or event, event
    return _shown(topic, created, about)


def _of(topic: Topic, view: View) -> Session | None:
    return _shown(topic, view.created, view.session.about)


def _shown(topic: Topic, created: events.SessionUpdated | None, about: events.SessionUpdated | None) -> Session | None:
    if created is None or about is None:
        return None
    return Session(
        session_id=topic.id,
        user_id=created.user_id,
        agent=created.agent or "",
        state=about.state,
        title=about.title,
        project_id=created.project_id,
        metadata=created.metadata,
        created_at=created.created_at,
    )
