"""Sharing: holders of one topic in a process have one fold, and none of them is in another one's way."""

import asyncio
from typing import Any

import pytest

from broker import append as appending
from broker import hold as holding_module
from broker.append import LogFull
from broker.connect import Broker
from broker.folded import Folded, holding
from broker.read import page
from tests.broker.holders import MESSAGE, Seen, cancel, delivery, say, status
from tests.harness.wait import until

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is live wakes a holder."""
    monkeypatch.setattr(holding_module, "LOOK_EVERY", 600.0)


async def test_what_was_heard_of_is_still_news_where_its_reading_was_cut_short(
    runner: Broker, edge: Broker, folded: Folded[Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An act of the agent's reads it, and is cancelled by the agent's own timeout."""
    reading = asyncio.Event()

    async def hangs(*_: Any, **__: Any) -> Any:
        monkeypatch.setattr(holding_module, "page", page)
        reading.set()
        await asyncio.Event().wait()

    await say(edge)
    async with holding(runner, delivery(runner), folded) as hold:
        monkeypatch.setattr(holding_module, "page", hangs)
        await cancel(edge)
        await until(hold.news.is_set)
        act = asyncio.create_task(hold.look())
        await reading.wait()
        waits = asyncio.create_task(hold.news_folded())
        await asyncio.sleep(0)
        act.cancel()
        await waits
        assert hold.seq == 2


async def test_who_waits_for_room_in_the_log_holds_up_no_other(
    runner: Broker, edge: Broker, folded: Folded[Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancel is heard by a tool beside it."""
    once, tried = appending._Tries.once, asyncio.Event()

    async def full(tries: Any, within: float) -> Any:
        if b'"id":"big"' not in tries._what.payload:
            return await once(tries, within)
        tried.set()
        raise LogFull("full")

    await say(edge)
    async with holding(runner, delivery(runner), folded) as first, holding(runner, delivery(runner), folded) as second:
        monkeypatch.setattr(appending._Tries, "once", full)
        waits = asyncio.create_task(second.news_folded())
        put = asyncio.create_task(first.append(status("big")))
        await tried.wait()
        await cancel(edge)
        await waits
        assert second.seq == 2
        assert await put is None


async def test_a_fact_without_an_id_hides_nothing(runner: Broker, edge: Broker, folded: Folded[Seen]) -> None:
    """An operator may have stored it by hand."""
    await say(edge)
    async with holding(runner, delivery(runner), folded) as hold:
        for seq in (2, 3):
            waits = asyncio.create_task(hold.news_folded())
            await asyncio.sleep(0)
            await edge.request(MESSAGE, b'{"type":"dream"}')
            await waits
            assert hold.seq == seq
