"""Deltas of an answer: one append in flight, and what is produced meanwhile travels in the next."""

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_runner.outgoing import FULL, Kind, Outgoing
from contracts.events import StreamDelta

pytestmark = pytest.mark.anyio


class Log:
    """Where deltas are appended: at once, or only as often as `let_through` says."""

    def __init__(self, *, at_once: bool = False) -> None:
        self.deltas: list[StreamDelta] = []
        self.in_flight = 0
        self.error: Exception | None = None
        self._permits = asyncio.Semaphore(10**9 if at_once else 0)

    async def append(self, delta: StreamDelta) -> None:
        """Store a delta."""
        self.in_flight += 1
        assert self.in_flight == 1, "one append is in flight"
        await self._permits.acquire()
        self.in_flight -= 1
        if self.error:
            raise self.error
        self.deltas.append(delta)

    async def let_through(self, appends: int = 1) -> None:
        """Complete that many appends, and let everybody notice."""
        for _ in range(appends):
            self._permits.release()
        await everybody_has_run()

    @property
    def texts(self) -> list[str]:
        """What was appended, one text a delta."""
        return [delta.delta for delta in self.deltas]


async def everybody_has_run() -> None:
    """Give every task its turn until all of them wait for something else than their turn."""
    for _ in range(20):
        await asyncio.sleep(0)


def outgoing(log: Log) -> Outgoing:
    """The outgoing deltas of an answer."""
    return Outgoing(log.append, "s", "a1")


async def test_with_appends_that_complete_at_once_every_piece_is_its_own_delta() -> None:
    """DESIGN: at low load every token travels alone, also of a producer that never waits."""
    log = Log(at_once=True)
    async with outgoing(log) as out:
        for text in "one", "two", "three":
            await out.push(text)
            assert log.texts[-1] == text
    assert log.texts == ["one", "two", "three"]


async def test_what_is_produced_during_an_append_travels_together_in_the_next() -> None:
    """DESIGN: under load appends grow by themselves."""
    log = Log()
    async with outgoing(log) as out:
        for text in "one", "two", "three":
            await out.push(text)
        assert (log.texts, log.in_flight) == ([], 1)
        await log.let_through()
        assert (log.texts, log.in_flight) == (["one"], 1)
        await out.push("four")
        await log.let_through(2)
    assert log.texts == ["one", "twothree", "four"]


async def test_leaving_waits_until_everything_is_appended() -> None:
    """An answer is recorded only after its last delta."""
    log, left = Log(), asyncio.Event()

    async def produce() -> None:
        async with outgoing(log) as out:
            await out.push("one")
            await out.push("two")
        left.set()

    producer = asyncio.create_task(produce())
    await log.let_through()
    assert not left.is_set()
    await log.let_through()
    await producer
    assert log.texts == ["one", "two"]


async def test_a_producer_that_is_full_ahead_waits() -> None:
    """DESIGN: a slow log costs a bounded amount of memory."""
    log, produced = Log(), list[int]()

    async def produce() -> None:
        async with outgoing(log) as out:
            for number in range(4):
                await out.push("x" * (FULL // 2))
                produced.append(number)

    producer = asyncio.create_task(produce())
    await everybody_has_run()
    assert produced == [0], "one append in flight, and as much again"
    await log.let_through()
    assert produced == [0, 1]
    await log.let_through(3)
    await producer
    assert "".join(log.texts) == "x" * (2 * FULL)


async def test_an_error_of_the_append_is_raised_at_the_producer() -> None:
    """A turn that is not this holder's any more must not go on producing."""
    log = Log(at_once=True)
    log.error = ConnectionError("gone")
    pushed = []
    with suppress(ConnectionError):
        async with outgoing(log) as out:
            for text in "one", "two":
                await out.push(text)
                pushed.append(text)
    assert pushed == []


async def test_an_error_of_the_last_append_is_raised_on_leaving() -> None:
    """Nobody takes the answer for whole."""
    log = Log()
    log.error = ConnectionError("gone")

    async def produce() -> None:
        async with outgoing(log) as out:
            await out.push("one")

    producer = asyncio.create_task(produce())
    await log.let_through()
    with pytest.raises(ConnectionError):
        await producer


async def test_an_error_of_the_append_wakes_a_producer_that_waits() -> None:
    """It would wait for ever."""
    log = Log()
    log.error = ConnectionError("gone")

    async def produce() -> None:
        async with outgoing(log) as out:
            await out.push("x" * FULL)
            pytest.fail("the producer goes on")

    producer = asyncio.create_task(produce())
    await log.let_through()
    with pytest.raises(ConnectionError):
        await producer


async def test_a_piece_of_any_size_is_refused_after_an_error() -> None:
    """It would wait for ever for somebody to make room."""
    log = Log()
    log.error = ConnectionError("gone")
    out = outgoing(log)
    with suppress(ConnectionError):
        async with out:
            await out.push("one")
            await log.let_through()
            push = asyncio.create_task(out.push("x" * FULL))
            await everybody_has_run()
            refused = push.done()
            push.cancel()
            await asyncio.wait([push])
            assert refused


async def test_a_producer_that_fails_has_said_what_it_said_before() -> None:
    """The partial answer of an agent that fails is whole."""
    log = Log(at_once=True)
    with suppress(ValueError):
        async with outgoing(log) as out:
            await out.push("one")
            await out.push("two")
            raise ValueError("no idea")
    assert "".join(log.texts) == "onetwo"


async def test_a_producer_that_is_cancelled_says_nothing_more() -> None:
    """The turn is to stop."""
    log = Log()

    async def produce() -> None:
        async with outgoing(log) as out:
            await out.push("one")
            await asyncio.Event().wait()

    producer = asyncio.create_task(produce())
    await everybody_has_run()
    producer.cancel()
    await asyncio.wait([producer])
    await log.let_through(5)
    assert log.texts == []


async def test_an_empty_piece_is_no_delta() -> None:
    """Models send them."""
    log = Log(at_once=True)
    async with outgoing(log) as out:
        await out.push("")
    assert log.deltas == []


@given(st.lists(st.tuples(st.text(), st.sampled_from(("text", "thinking"))), max_size=20), st.data())
@settings(deadline=None)
def test_offsets_count_the_characters_of_each_kind(pieces: list[tuple[str, Kind]], data: st.DataObject) -> None:
    """WIRE: `offset` (characters of that kind before it), wherever the pieces are joined."""

    async def produce() -> tuple[Log, Outgoing]:
        log = Log()
        async with outgoing(log) as out:
            for text, kind in pieces:
                await out.push(text, kind)
                if data.draw(st.booleans()):
                    await log.let_through()
            await log.let_through(2 * len(pieces))
        return log, out

    log, out = asyncio.run(produce())
    for kind in ("text", "thinking"):
        whole = "".join(text for text, of in pieces if of == kind)
        assert out.whole(kind) == whole
        deltas = [delta for delta in log.deltas if delta.kind == kind]
        assert "".join(delta.delta for delta in deltas) == whole
        for delta in deltas:
            assert whole.startswith(delta.delta, delta.offset)
            assert (delta.message_id, delta.session_id) == ("a1", "s")
        assert [delta.offset for delta in deltas] == sorted({delta.offset for delta in deltas})
