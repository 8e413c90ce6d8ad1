"""Holding: one delivery, one owner, who folds the session and appends to it until the log says it is done.

The same piece serves messages (agent_runner) and tool calls (tool_runner). What to do next is decided by a
pure function of the folded state; this file only keeps the fold true: it reads on when an append is
refused, when something live comes, and every few seconds, so a lost live message delays and never blocks.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from math import inf
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from broker.acts import Act, Drop, Put, Settle, Wait
from broker.append import ATTEMPT_TIMEOUT, Append, LogFull, OutcomeUnknown, Stored, append, conditional
from broker.client import header
from broker.connect import Broker, Unavailable
from broker.delivery import Delivery
from broker.read import Record, last, page, read
from broker.telemetry import tracer
from contracts import events
from contracts.events import AnyEvent, StreamDelta
from contracts.streams import DELTA_TTL
from contracts.subjects import Lane, Topic

logger = logging.getLogger(__name__)

LOOK_EVERY = 5.0
"""Seconds between looks at the leader's last sequence while a holder waits."""

KEEP_AFTER = 64
"""Facts beyond the kept fold from which on a new one is kept, and that a fold without one begins with."""

LOOKS = 200
"""Looks a second, in all, of those who wait: 10,000 look every 50 s. Each looks when the broker was away."""


class Fold(Protocol):
    """State that a holder keeps: what its topic's facts, applied in order, amount to."""

    def apply(self, seq: int, event: AnyEvent) -> None:
        """Take in the fact at `seq`."""


CANCEL_GRACE = 2.0
"""Seconds that work which is cancelled has to clean up."""

_abandoned: set[asyncio.Task[Any]] = set()

F = TypeVar("F", bound=Fold)
T = TypeVar("T")


class Hold(Generic[F]):
    """One delivery, the folded state of its topic, and the only way to append for it."""

    def __init__(  # noqa: PLR0913, PLR0917 - what a holder begins with
        self,
        broker: Broker,
        delivery: Delivery,
        topic: Topic,
        state: F,
        seq: int,
        begin: Callable[[], Awaitable[tuple[F, int] | None]] | None = None,
    ) -> None:
        self.broker = broker
        self.delivery = delivery
        self.topic = topic
        self.state = state
        self.seq = seq
        self.number = 0
        """How many facts it has folded itself."""
        self.news = asyncio.Event()
        self._begin = begin
        self._turn = asyncio.Lock()
        self._own = b""
        self._folded = asyncio.Event()

    def knows_all_before(self) -> bool:
        """Whether the state already holds everything before a first delivery; then it is folded too.

        Nobody can have claimed what is delivered for the first time before it was: the first look may wait until
        an append is refused. On replicas its condition does not keep out what is appended without one.
        """
        if self.broker.is_replicated:
            return False
        event = events.decode(self.delivery.data)
        if self.delivery.delivered > 1 or not self.seq or self.delivery.follows != self.seq or event is None:
            return False
        self.state.apply(self.delivery.seq, event)
        self.seq = self.delivery.seq
        return True

    async def look(self, *, at_nothing: bool = False) -> None:
        """Fold everything up to the last fact that the leader knows. Retries while the broker is away.

        `at_nothing`: there should be nothing new. To ask for what follows costs the broker a walk through all that
        was stored since, to ask for the last fact does not.
        """
        async with self._turn:
            while True:
                try:
                    async with self.broker.looks:
                        if not at_nothing or await last(self.broker, self.topic.facts) != self.seq:
                            await self._read_on()
                except (Unavailable, TimeoutError) as error:
                    logger.info("waiting for the broker", extra={"reason": str(error)})
                    await asyncio.sleep(0.1)
                else:
                    return

    async def _read_on(self) -> None:
        self.news.clear()
        more = True
        if not self.seq and self._begin:
            more = await self._begin_again(self._begin)
        if self.broker.is_replicated:
            upto = await last(self.broker, self.topic.facts)
            async for records in read(self.broker, self.topic.facts, self.seq, upto):
                self._fold(records)
            return
        while more:  # there is one copy: what it does not show is not stored
            records, more = await page(self.broker, self.topic.facts, self.seq)
            self._fold(records)

    async def _begin_again(self, begin: Callable[[], Awaitable[tuple[F, int] | None]]) -> bool:
        """Fold the first facts, or begin from a fold that was kept, if there are many and it is of this history.

        Whether there are more.
        """
        records, more = await page(self.broker, self.topic.facts, 0, messages=KEEP_AFTER)
        if more and (kept := await begin()):
            since, further = await page(self.broker, self.topic.facts, kept[1] - 1)
            if since and since[0].seq == kept[1]:  # what it ends with still stands where it stood
                self.state, self.seq = kept
                records, more = since[1:], further
        self._fold(records)
        return more

    def _fold(self, records: list[Record]) -> None:
        for record in records:
            try:
                event = events.decode(record.data)
            except (msgspec.DecodeError, RecursionError):  # one that nobody can read must not end every turn
                logger.exception("not an event", extra={"sequence": record.seq})
                event = None
            if event is not None:
                self.state.apply(record.seq, event)
                self.number += 1
            self.seq = record.seq
        if records:
            self._has_folded()

    def _has_folded(self) -> None:
        self._folded.set()
        self._folded = asyncio.Event()

    @property
    def stopping(self) -> bool:
        """Whether this process was told to stop: let go as soon as that is safe."""
        return self.delivery.stopping

    async def folded(self) -> None:
        """Wait until something more is folded; somebody else must `wait` or `look` in the meantime."""
        await self._folded.wait()

    async def append(
        self, event: AnyEvent, lane: Lane | None = None, context: dict[str, str] | None = None
    ) -> int | None:
        """The sequence of the stored and folded fact, or None where something else came first: it is folded now.

        What is folded while this waits for its turn came first, too: the caller did not decide with it in mind.
        """
        subject, decided = self.topic.fact(lane or events.LANE_OF[type(event)]), self.seq
        async with self._turn:
            if self.seq != decided:
                return None
            what = conditional(self.topic, subject, events.encode(event), event.id, self.seq, context=context)
            self._own = event.id.encode()
            stored = await self._store(what)
            if stored:
                await self._take_in(stored.seq, event)
                return stored.seq
        await self.look()
        return None

    async def _take_in(self, seq: int, event: AnyEvent) -> None:
        """Fold the fact that was just stored.

        On replicas an append without a condition (a message, a cancel, an external event) may have been stored between
        it and the fact that it names: that comes first.
        """
        if not self.broker.is_replicated or seq == self.seq + 1:
            self.state.apply(seq, event)
            self.seq, self.number = seq, self.number + 1
            self._has_folded()
        while self.seq < seq:
            try:
                async for records in read(self.broker, self.topic.facts, self.seq, seq):
                    self._fold(records)
            except (Unavailable, TimeoutError) as error:
                logger.info("waiting for the broker", extra={"reason": str(error)})
                await asyncio.sleep(0.1)

    async def append_delta(self, event: StreamDelta) -> bool:
        """Whether the delta is stored. Where something else came first, it is folded now."""
        decided = self.seq
        async with self._turn:
            if self.seq != decided:
                return False
            what = conditional(self.topic, self.topic.delta, events.encode(event), event.id, self.seq, ttl=DELTA_TTL)
            if await self._store(what):
                return True
        await self.look()
        return False

    async def _store(self, what: Append) -> Stored | None:
        """Append. When this is cancelled, whatever is read or appended next comes after it all the same."""
        try:
            return await append(self.broker, what, wait_when_full=True)
        except asyncio.CancelledError:
            with contextlib.suppress(Unavailable, OutcomeUnknown, LogFull):  # the same again: stored once, or never
                await append(self.broker, what, deadline=ATTEMPT_TIMEOUT, wait_when_full=True)
            raise

    async def wait(self, seconds: float = inf) -> None:
        """Wait for something new, at most `seconds` or a few; then fold what is new. Told to stop, do not wait."""
        if self.stopping:
            self.news.set()
        self.delivery.rest(True)
        await self.news_folded(seconds)
        self.delivery.rest(False)

    async def news_folded(self, seconds: float = inf) -> None:
        """Wait for something new, at most `seconds` or a few; then fold what is new."""
        most = max(LOOK_EVERY, self.broker.holds / LOOKS) * random.uniform(0.75, 1.0)  # noqa: S311 - jitter
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, most)):
                await self.news.wait()
        await self.look(at_nothing=not self.news.is_set())

    def wake(self, _subject: bytes, _reply: bytes, _data: bytes, headers: bytes) -> None:
        """Something is new, unless it is the holder's own append."""
        if header(headers, b"Nats-Msg-Id") != self._own:
            self.news.set()


class Role(Protocol):
    """What a service does with what it holds."""

    @property
    def is_done(self) -> bool:
        """Whether the work is done and only to be told: then that comes first, also when told to stop."""

    def decide(self) -> Act:
        """The next act, from the folded state."""

    def stored(self, put: Put, seq: int) -> None:
        """What was to be put is stored there."""

    async def perform(self) -> None:
        """Do the work; return when a new decision is due."""

    async def release(self) -> bool:
        """Told to stop: give the claim back. False where the delivery must be dropped instead of handed over."""

    def context(self, event: AnyEvent) -> dict[str, str] | None:
        """The trace context that an appended fact carries to the next service."""


async def work_while(hold: Hold[F], work: Coroutine[None, None, T], wanted: Callable[[], bool]) -> T | None:
    """The result of `work`, or None where it was cancelled because it is not `wanted` any more.

    Work that does not end when it is cancelled is left to itself after CANCEL_GRACE seconds.
    """
    task = asyncio.create_task(work)
    news: asyncio.Task[None] | None = None
    try:
        while not task.done():
            news = asyncio.create_task(hold.news_folded())
            await asyncio.wait([task, news], return_when=asyncio.FIRST_COMPLETED)
            if not news.done():
                news.cancel()
                continue
            news.result()
            if not wanted():
                break
        if not task.done():
            await _cancel(task)
        return None if not task.done() or task.cancelled() else task.result()
    finally:  # the state is another holder's when this one is gone
        await asyncio.gather(*(_cancel(each) for each in (task, news) if each and not each.done()))


async def _cancel(task: asyncio.Task[T]) -> None:
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=CANCEL_GRACE)
    if not done:
        logger.error("work does not end though it was cancelled", extra={"task": task.get_name()})
        _abandoned.add(task)
        task.add_done_callback(_abandoned.discard)


async def settle(hold: Hold[F], role: Role) -> None:
    """Decide and act until the trigger is settled, dropped or, when told to stop, handed over."""
    while True:
        if hold.stopping and not role.is_done:
            if await role.release():
                await hold.delivery.nak()
            return hold.delivery.drop()
        match role.decide():
            case Settle():
                return await hold.delivery.ack()
            case Drop():
                return hold.delivery.drop()
            case Wait(until=until):
                await hold.wait(inf if until is None else max(0.0, until - hold.broker.now()) + 0.001)
            case Put(event=event) as put:
                with tracer.start_as_current_span(str(event.__struct_config__.tag)):
                    seq = await hold.append(event, context=role.context(event))
                if seq is not None:
                    role.stored(put, seq)
            case _:
                await role.perform()
