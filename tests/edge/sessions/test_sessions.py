"""Sessions: created once, listed for their owner, changed by their owner alone, deleted for ever."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker.read import read
from contracts import events
from contracts.errors import Code, MillraceError
from contracts.subjects import Topic
from edge import folds, sessions
from edge.principal import Principal
from tests.contracts import facts as a
from tests.edge.sessions.writers import (
    Writers,
    caller,
    create,
    kept_upto,
    listed,
    new,
    refused,
    turns,
    updated,
)
from tests.harness.counted import counted

pytestmark = pytest.mark.anyio


async def told(log: Writers, topic: Topic) -> list[events.AnyEvent | None]:
    """What clients have had recorded."""
    lane = topic.fact("client")
    return [events.decode(record.data) async for records in read(log.edge, lane, 0) for record in records]


async def test_a_created_session_is_found_as_it_was_wanted_and_belongs_to_who_asked(
    log: Writers, ann: Principal
) -> None:
    """Promise P8: the user comes from the credentials, the time from the broker."""
    (session_id,) = await create(log, ann)
    found = await sessions.find(log.other, ann, session_id)
    assert (found.user_id, found.state, found.agent) == (ann.user_id, "active", "script")
    assert (found.project_id, found.metadata) == ("p1", {"n": 1})
    assert found.created_at
    assert abs(events.unix_time(found.created_at) - log.edge.now()) < 60


async def test_creating_twice_gives_the_same_session(log: Writers, ann: Principal) -> None:
    """A client that lost the answer asks again with its id; what it says then is not heard."""
    first, created = await sessions.create(log.edge, ann, new("twice", "first"))
    second, again = await sessions.create(log.other, ann, new("twice", "second"))
    assert (created, again, first) == (True, False, second)
    assert await listed(log, ann, 5) == [["twice"]]


async def test_of_many_who_create_at_once_one_does_and_only_its_user_has_it(
    log: Writers, ann: Principal, bob: Principal
) -> None:
    """The first fact is appended on the condition that there is none."""
    wanted = [(edge, who) for edge in (log.edge, log.other) for who in (ann, ann, bob)]
    outcomes = await asyncio.gather(
        *(sessions.create(edge, who, new("contested")) for edge, who in wanted), return_exceptions=True
    )
    made = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert [created for _, created in made].count(True) == 1
    owner = {session.user_id for session, _ in made}
    assert len(owner) == 1
    codes = {error.code for error in outcomes if isinstance(error, MillraceError)}
    assert codes == {Code.FORBIDDEN}
    assert [await listed(log, who, 5) for who in (ann, bob) if who.user_id not in owner] == [[[]]]
    assert [await listed(log, who, 5) for who in (ann, bob) if who.user_id in owner] == [[["contested"]]]


async def test_an_id_that_is_somebody_elses_or_was_deleted_cannot_be_created(
    log: Writers, ann: Principal, bob: Principal
) -> None:
    """Nor does the attempt list anything. Another tenant's id is nobody's here."""
    theirs, gone = await create(log, bob, 2)
    await sessions.delete(log.edge, bob, gone)
    with refused(Code.FORBIDDEN):
        await sessions.create(log.edge, ann, new(theirs))
    for who in (ann, bob):
        with refused(Code.SESSION_NOT_FOUND):
            await sessions.create(log.edge, who, new(gone))
    assert await listed(log, ann, 5) == [[]]
    abroad = caller(ann.user_id, tenant="globex")
    with refused(Code.SESSION_NOT_FOUND):
        await sessions.find(log.edge, abroad, theirs)
    assert (await sessions.create(log.edge, abroad, new(theirs)))[1]


async def test_changes_that_are_made_at_once_all_survive(log: Writers, ann: Principal) -> None:
    """Each is appended on the condition that nothing came since, and made again on what came."""
    (session_id,) = await create(log, ann)
    await asyncio.gather(
        sessions.update(log.edge, ann, session_id, title="new"),
        sessions.update(log.other, ann, session_id, state="closed"),
        sessions.update(log.edge, ann, session_id, title="new"),
    )
    found = await sessions.find(log.edge, ann, session_id)
    assert (found.title, found.state, found.is_closed) == ("new", "closed", True)
    assert (found.agent, found.metadata, found.project_id) == ("script", {"n": 1}, "p1")


@pytest.fixture
def overtaken(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Awaitable[object]]], None]:
    """`overtaken(by)`: what is folded next is out of date when it is known, because of `by()`."""
    fold = folds.fold

    def overtake(by: Callable[[], Awaitable[object]]) -> None:
        async def folded(*what: Any) -> Any:
            monkeypatch.setattr(folds, "fold", fold)
            view = await fold(*what)
            await by()
            return view

        monkeypatch.setattr(folds, "fold", folded)

    return overtake


async def test_a_change_that_was_overtaken_is_made_to_what_came(
    log: Writers, ann: Principal, overtaken: Callable[[Callable[[], Awaitable[object]]], None]
) -> None:
    """It does not take back what somebody else has changed meanwhile."""
    (session_id,) = await create(log, ann)
    overtaken(lambda: sessions.update(log.other, ann, session_id, state="closed"))
    changed = await sessions.update(log.edge, ann, session_id, title="new")
    assert (changed.title, changed.state) == ("new", "closed")
    assert await sessions.find(log.edge, ann, session_id) == changed


async def test_a_message_that_overtakes_a_deletion_is_cancelled_with_the_others(
    log: Writers, ann: Principal, overtaken: Callable[[Callable[[], Awaitable[object]]], None]
) -> None:
    """Whatever was accepted before the session was deleted is told to stop."""
    (session_id,) = await create(log, ann)
    topic = Topic.session("acme", session_id)
    overtaken(lambda: log.write(topic, a.message("late")))
    await sessions.delete(log.edge, ann, session_id)
    last = (await told(log, topic))[-1]
    assert isinstance(last, events.Cancel)
    assert last.message_id == "late"


async def test_a_change_to_what_it_is_already_records_nothing(log: Writers, ann: Principal) -> None:
    """Connected clients are not told of nothing."""
    (session_id,) = await create(log, ann)
    for _ in range(3):
        await sessions.update(log.edge, ann, session_id, title="t")
    recorded = await told(log, Topic.session("acme", session_id))
    titles = [event.title for event in recorded if isinstance(event, events.SessionUpdated)]
    assert titles == [None, "t"]


async def test_only_the_owner_and_an_administrator_change_a_session(
    log: Writers, ann: Principal, bob: Principal
) -> None:
    """Promise P8. Who may approve may look at every session of the tenant, and change none."""
    (session_id,) = await create(log, ann)
    approver, admin = caller("eve", "approve"), caller("root", "admin")
    with refused(Code.FORBIDDEN):
        await sessions.find(log.edge, bob, session_id)
    for who in (approver, admin):
        assert (await sessions.find(log.edge, who, session_id)).user_id == ann.user_id
    for who in (bob, approver):
        with refused(Code.FORBIDDEN):
            await sessions.update(log.edge, who, session_id, title="x")
        with refused(Code.FORBIDDEN):
            await sessions.delete(log.edge, who, session_id)
    changed = await sessions.update(log.edge, admin, session_id, title="by admin")
    assert (changed.title, changed.user_id) == ("by admin", ann.user_id)
    await sessions.delete(log.edge, admin, session_id)
    with refused(Code.SESSION_NOT_FOUND):
        await sessions.find(log.edge, ann, session_id)


@pytest.mark.parametrize("session_id", ["never-created", "", "a.b", "*", ">", "x" * 65, "a b", "ü"])
async def test_what_is_no_session_is_not_found(log: Writers, ann: Principal, session_id: str) -> None:
    """An id that could reach beyond its place in a subject is none."""
    with refused(Code.SESSION_NOT_FOUND):
        await sessions.find(log.edge, ann, session_id)
    with refused(Code.SESSION_NOT_FOUND):
        await sessions.update(log.edge, ann, session_id, title="x")
    with refused(Code.SESSION_NOT_FOUND):
        await sessions.delete(log.edge, ann, session_id)


async def test_deleting_is_a_fact_and_cancels_what_is_open(log: Writers, ann: Principal) -> None:
    """Promise: reads answer 404, for ever; what runs and what waits is told to stop."""
    (session_id,) = await create(log, ann)
    topic = Topic.session("acme", session_id)
    await log.write(topic, *turns(1), a.message("runs"), a.turn_start("runs"), a.message("waits"))
    await sessions.delete(log.edge, ann, session_id)
    _, deleted, *cancels = await told(log, topic)
    assert isinstance(deleted, events.SessionUpdated)
    assert deleted.state == "deleted"
    assert [event.message_id for event in cancels if isinstance(event, events.Cancel)] == ["runs", "waits"]
    await log.write(topic, updated("active", user_id=ann.user_id))
    for again in (sessions.find, sessions.delete, sessions.update):
        with refused(Code.SESSION_NOT_FOUND):
            await again(log.edge, ann, session_id)


async def test_of_a_change_and_a_deletion_at_once_the_deletion_stays(log: Writers, ann: Principal) -> None:
    """In whichever order they are stored."""
    (session_id,) = await create(log, ann)
    await asyncio.gather(
        sessions.update(log.edge, ann, session_id, title="x"),
        sessions.delete(log.other, ann, session_id),
        sessions.update(log.edge, ann, session_id, state="closed"),
        return_exceptions=True,
    )
    with refused(Code.SESSION_NOT_FOUND):
        await sessions.find(log.edge, ann, session_id)


async def test_finding_a_session_costs_the_same_however_long_it_is(log: Writers, ann: Principal) -> None:
    """Promise: what a session is called is not read out of all its facts, and is right once a view is kept."""
    (session_id,) = await create(log, ann)
    topic = Topic.session("acme", session_id)
    last = (await log.write(topic, *[a.cancel("nobody")] * 600))[-1]
    await folds.fold(log.edge, topic)
    await kept_upto(log, topic, last)
    await sessions.update(log.edge, ann, session_id, title="renamed since")
    with counted(log.edge) as cost:
        found = await sessions.find(log.edge, ann, session_id)
    assert (found.title, found.user_id) == ("renamed since", ann.user_id)
    assert (cost.requests, cost.records) == (3, 2)
