"""Holding: the state is what the log says, and who holds hears what is new, at once or a little later."""

import asyncio

import pytest

from broker import hold as holding_module
from broker.connect import Broker
from broker.folded import Folded, holding
from broker.hold import Hold
from broker.settle import work_while
from contracts import events
from tests.broker.holders import TOPIC, Seen, cancel, delivery, say, status
from tests.harness.nats_server import NatsServer
from tests.harness.proxy import Proxy
from tests.harness.wait import until

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is live wakes a holder, unless a test says otherwise."""
    monkeypatch.setattr(holding_module, "LOOK_EVERY", 600.0)


async def test_what_is_stored_is_folded(hold: Hold[Seen]) -> None:
    assert [await hold.append(status(name)) for name in "abc"] == [2, 3, 4]
    assert hold.state.seqs == [1, 2, 3, 4]


async def test_a_refused_holder_reads_on_and_decides_again(hold: Hold[Seen], edge: Broker) -> None:
    await cancel(edge)
    await cancel(edge)
    assert await hold.append(status("a")) is None
    assert hold.state.seqs == [1, 2, 3]
    assert await hold.append(status("b")) == 4


async def test_a_refused_delta_reads_on_too(hold: Hold[Seen], edge: Broker) -> None:
    await cancel(edge)
    delta = events.StreamDelta(id="d", timestamp=events.timestamp(), message_id="m", delta="x", offset=0)
    assert not await hold.append_delta(delta)
    assert hold.state.seqs == [1, 2]
    assert await hold.append_delta(delta)
    assert hold.seq == 2


async def test_what_is_new_wakes_the_holder(hold: Hold[Seen], edge: Broker) -> None:
    waiting = asyncio.create_task(hold.wait())
    await cancel(edge)
    await waiting
    assert hold.state.seqs == [1, 2]


async def test_what_the_holder_appends_does_not_wake_it(hold: Hold[Seen], runner: Broker) -> None:
    hold.news.clear()
    for name in "abc":
        await hold.append(status(name))
    await runner.look_at_log()
    assert not hold.news.is_set()


async def test_a_lost_live_message_only_delays(
    hold: Hold[Seen], edge: Broker, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding_module, "LOOK_EVERY", 0.05)
    proxy.drop = lambda message: message.subject.startswith("live.")
    await cancel(edge)
    while hold.seq == 1:
        await hold.wait()
    assert hold.state.seqs == [1, 2]
    assert proxy.dropped


async def test_a_holder_looks_on_when_the_broker_was_away(hold: Hold[Seen], edge: Broker, nats: NatsServer) -> None:
    await nats.kill()
    await until(lambda: not hold.broker.connected)
    looking = asyncio.create_task(hold.look())
    await nats.start()
    await until(lambda: edge.connected)
    await looking
    await cancel(edge)
    await hold.look()
    assert hold.state.seqs == [1, 2]


async def test_what_nobody_can_read_ends_no_turn(hold: Hold[Seen], edge: Broker) -> None:
    await say(edge, b'{"type":"cancel"}')
    await say(edge, b"")
    await cancel(edge)
    await hold.look()
    assert hold.state.seqs == [1, 4]
    assert await hold.append(status("a")) == 5


async def test_what_was_folded_is_there_for_the_next_holder(runner: Broker, edge: Broker, folded: Folded[Seen]) -> None:
    await say(edge)
    async with holding(runner, delivery(runner), folded) as first:
        await first.append(status("a"))
    await cancel(edge)
    async with holding(runner, delivery(runner), folded) as second:
        assert second.state is first.state
        assert second.state.seqs == [1, 2, 3]
        async with holding(runner, delivery(runner), folded) as third:
            assert third.state is not second.state
            assert third.state.seqs == [1, 2, 3]
            await third.append(status("b"))
    assert folded.take(TOPIC)[:2] == (4, third.state)
    assert folded.take(TOPIC)[0] == 0


async def test_the_state_that_was_left_longest_ago_is_forgotten(runner: Broker) -> None:
    folded = Folded(Seen, most=8 * 4)
    topics = [type(TOPIC).session("acme", name) for name in "abcd"]

    def leave(number: int, *seqs: int) -> None:
        state = Seen()
        state.seqs += seqs
        folded.keep(runner, topics[number], max(seqs), state)

    leave(0, 1)
    leave(1, 2)
    leave(0, 1, 3)  # which is newer now, and takes no more room for having been there before
    leave(2, 4)
    leave(2, 4)
    assert [bool(folded.take(topic)[0]) for topic in topics] == [True, True, True, False]
    leave(0, 1, 3)
    leave(1, 2)
    leave(2, 4)
    leave(3, 5)
    assert [folded.take(topic)[0] for topic in topics] == [0, 2, 4, 5]
    leave(0, *range(1, 6))  # more than there is room for, alone
    assert folded.take(topics[0])[0] == 0
    leave(1, 6)
    assert folded.take(topics[1])[0] == 6


async def test_work_that_is_not_wanted_any_more_is_cancelled(hold: Hold[Seen], edge: Broker) -> None:
    started = asyncio.Event()

    async def work() -> bool:
        started.set()
        return await asyncio.Event().wait()

    working = asyncio.create_task(work_while(hold, work(), lambda: hold.seq < 3))
    await started.wait()
    await cancel(edge)
    await until(lambda: hold.seq == 2)
    assert not working.done()
    await cancel(edge)
    assert await working is None


async def test_work_has_its_result_and_its_failure(hold: Hold[Seen]) -> None:
    async def work(failure: Exception | None) -> str:
        await asyncio.sleep(0)
        if failure:
            raise failure
        return "done"

    assert await work_while(hold, work(None), lambda: True) == "done"
    with pytest.raises(ValueError, match="no"):
        await work_while(hold, work(ValueError("no")), lambda: True)


async def test_work_that_is_cut_off_leaves_nothing_behind_that_folds(hold: Hold[Seen], edge: Broker) -> None:
    """The state is another holder's by then."""
    before = asyncio.all_tasks()
    working = asyncio.create_task(work_while(hold, asyncio.Event().wait(), lambda: True))
    await until(lambda: len(asyncio.all_tasks() - before) == 3)
    working.cancel()
    await asyncio.wait([working])
    assert not asyncio.all_tasks() - before
    await cancel(edge)
    assert hold.state.seqs == [1]
