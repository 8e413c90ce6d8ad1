"""Lists of sessions: one's own, newest first, a page at a time."""

import asyncio

import pytest

from contracts import events
from contracts.errors import Code
from contracts.subjects import Topic
from edge import sessions
from edge.principal import Principal
from tests.edge.sessions.writers import Writers, create, listed, refused

pytestmark = pytest.mark.anyio


async def test_ones_sessions_are_listed_newest_first_a_page_at_a_time(
    log: Writers, ann: Principal, bob: Principal
) -> None:
    """Promise: newest first, paged, only one's own; deleted ones are passed over and pages are full all the same."""
    mine: list[str] = []
    for _ in range(13):
        mine += await create(log, ann)
        await create(log, bob)
    for gone in (mine[0], mine[5], mine[12]):
        await sessions.delete(log.edge, ann, gone)
    left = [session_id for place, session_id in enumerate(mine) if place not in (0, 5, 12)][::-1]
    pages = await listed(log, ann, 3)
    assert pages[:4] == [left[:3], left[3:6], left[6:9], left[9:]]
    assert await listed(log, ann, 200) == [left]


async def test_a_list_in_which_most_were_deleted_goes_on_to_its_end(log: Writers, ann: Principal) -> None:
    """Pages may be short, even empty, and say where to go on."""
    mine = await create(log, ann, 24)
    await asyncio.gather(*(sessions.delete(log.edge, ann, session_id) for session_id in mine[1:]))
    pages = await listed(log, ann, 1)
    assert [session_id for page in pages for session_id in page] == mine[:1]
    assert len(pages) > 1


async def test_an_entry_that_names_no_session_of_ones_own_is_passed_over(
    log: Writers, ann: Principal, bob: Principal
) -> None:
    """A session is listed before it exists; whose it is, its own facts say."""
    (theirs,), (mine,) = await create(log, bob), await create(log, ann)
    index = Topic.user("acme", ann.user_id)
    for listed_id in ("never-created", theirs, mine):
        await log.write(index, events.SessionListed(id="e", timestamp=events.timestamp(), listed_id=listed_id))
    assert await listed(log, ann, 10) == [[mine]]


@pytest.mark.parametrize("before", ["", "x", "-1", "1.5", "٣", "9" * 19, " 1"])
async def test_a_place_that_no_page_gave_is_a_bad_request(log: Writers, ann: Principal, before: str) -> None:
    """Never an internal error."""
    with refused(Code.BAD_REQUEST):
        await sessions.list_own(log.edge, ann, 3, before)
