"""Refresh: one at a time, however many ask."""

import asyncio

import pytest

from edge.identity.refresh import Refresh
from tests.harness.wait import until

pytestmark = pytest.mark.anyio


class Work:
    """Work that is begun, and ends when it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.ends = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> None:
        self.begun += 1
        await self.ends.wait()
        if self.error:
            raise self.error


def refresh(work: Work, every: float = 3600.0) -> Refresh:
    """That work, asked for as often as that."""
    return Refresh(work, lambda: every)


async def test_many_wait_for_one_piece_of_work() -> None:
    """Our choice: and hear of its failure, all of them."""
    work = Work()
    once = refresh(work)
    waiting = [asyncio.create_task(once.now()) for _ in range(3)]
    await until(lambda: work.begun)
    work.error = OSError()
    work.ends.set()
    assert [type(error) for error in await asyncio.gather(*waiting, return_exceptions=True)] == [OSError] * 3
    assert work.begun == 1


async def test_what_was_asked_for_a_moment_ago_is_not_done_again() -> None:
    """Our choice: what a clock began does not count against it."""
    work = Work()
    work.ends.set()
    once = refresh(work)
    await once.now()
    await once.if_due()
    await once.if_due()
    assert work.begun == 2
    await once.now()
    assert work.begun == 3


async def test_who_asks_for_something_new_is_not_content_with_what_began_before() -> None:
    """Our choice: it might have looked too early."""
    work = Work()
    once = refresh(work, every=0.0)
    before = asyncio.create_task(once.now())
    await until(lambda: work.begun)
    asking = [asyncio.create_task(once.afresh()) for _ in range(3)]
    work.ends.set()
    await asyncio.gather(before, *asking)
    assert work.begun == 2


async def test_who_asks_too_often_waits_for_the_clock() -> None:
    """Our choice: whatever begins the work next answers everybody."""
    work = Work()
    work.ends.set()
    once = refresh(work, every=0.05)
    for _ in range(3):
        await once.afresh()
    assert work.begun == 3


async def test_work_that_is_given_up_ends() -> None:
    """STYLE R9: nothing outlives its scope."""
    work = Work()
    once = refresh(work)
    waiting = asyncio.create_task(once.now())
    await until(lambda: work.begun)
    await once.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert not once.is_running
    await once.cancel()
