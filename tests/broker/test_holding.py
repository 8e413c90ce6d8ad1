"""Holding: the state is what the log says, and who holds hears what is new, at once or a little later."""

import asyncio
from typing import Any

import pytest

from broker import hold as holding_module
from broker.connect import Broker
from broker.folded import Folded, holding
from broker.hold import Hold
from broker.read import page
from broker.settle import work_while
from contracts import events
from tests.broker.holders import CANCEL, TOPIC, Seen, cancel, delivery, say, status
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
    assert folded.take(TOPIC).state is first.state


async def test_holders_of_a_topic_share_one_fold_and_read_nothing_twice(
    runner: Broker, edge: Broker, folded: Folded[Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten messages that wait behind a long turn cost no more memory than one, and its facts no request for each."""
    reads: list[int] = []

    async def counted(*given: Any, **more: Any) -> Any:
        reads.append(1)
        return await page(*given, **more)

    await say(edge)
    async with holding(runner, delivery(runner), folded) as first, holding(runner, delivery(runner), folded) as second:
        monkeypatch.setattr(holding_module, "page", counted)
        assert second.state is first.state
        for name in "abc":
            heard = asyncio.create_task(second.news_folded())
            await first.append(status(name))
            await heard
        assert second.seq == first.seq == 4
        assert not reads
        waiting = [asyncio.create_task(hold.news_folded()) for hold in (first, second)]
        await cancel(edge)
        await asyncio.gather(*waiting)
        assert (len(reads), second.state.seqs) == (1, [1, 2, 3, 4, 5])


async def test_what_a_holder_has_decided_waits_for_what_another_one_folds(
    runner: Broker, edge: Broker, folded: Folded[Seen]
) -> None:
    """They append one after another, each to what it has seen."""
    await say(edge)
    async with holding(runner, delivery(runner), folded) as first, holding(runner, delivery(runner), folded) as second:
        stored = await asyncio.gather(*(hold.append(status(f"{n}")) for n in range(5) for hold in (first, second)))
    assert [seq for seq in stored if seq] == first.state.seqs[1:]
    assert None in stored


async def test_a_late_append_of_a_holder_that_has_let_go_is_folded_once(
    runner: Broker, edge: Broker, folded: Folded[Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an agent left behind folds into the state that is the next holder's by then."""
    going, gone = asyncio.Event(), asyncio.Event()

    async def slow(*given: Any, **more: Any) -> Any:
        found = await page(*given, **more)
        gone.set()
        await going.wait()
        return found

    await say(edge)
    async with holding(runner, delivery(runner), folded) as first:
        await cancel(edge)
        monkeypatch.setattr(holding_module, "page", slow)
        late = asyncio.create_task(first.append(status("late")))
        await gone.wait()
    monkeypatch.setattr(holding_module, "page", page)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(looks_on(runner, folded))
        going.set()
        await late
    assert folded.take(TOPIC).state.seqs == [1, 2]


async def looks_on(runner: Broker, folded: Folded[Seen]) -> None:
    """The next holder."""
    async with holding(runner, delivery(runner), folded) as second:
        await second.look()


async def test_the_state_that_was_left_longest_ago_is_forgotten(runner: Broker) -> None:
    folded = Folded(Seen, most=8 * 4)
    topics = [type(TOPIC).session("acme", name) for name in "abcd"]

    def use(number: int, *seqs: int) -> int:
        prefix = folded.take(topics[number])
        known = prefix.seq
        for seq in seqs:
            prefix.apply(seq, events.decode(CANCEL), b"")
        folded.leave(runner, topics[number], prefix)
        return known

    use(0, 1)
    use(1, 2)
    assert use(0, 3) == 1  # which is newer now, and takes no more room for having been there before
    use(2, 4)
    assert [use(n) for n in range(4)] == [3, 2, 4, 0]
    assert use(1) == 2
    use(3, 5)
    assert [use(n) for n in (3, 1, 2)] == [5, 2, 4]
    use(3, *range(6, 10))  # more than there is room for, alone
    assert [use(n) for n in range(4)] == [0, 0, 0, 0]
    use(1, 6)
    assert use(1) == 6


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
