"""Holding: one delivery, one owner, who folds the session and appends to it until the log says it is done.

The same piece serves messages (agent_runner) and tool calls (tool_runner). What to do next is decided by a
pure function of the folded state; this file only keeps the fold true: it reads on when an append is
refused, when something live comes, and every few seconds, so a lost live message delays and never blocks.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from math import inf
from typing import Generic

import msgspec

from broker.append import ATTEMPT_TIMEOUT, Append, LogFull, OutcomeUnknown, Stored, append, conditional
from broker.client import header
from broker.connect import Broker, Unavailable
from broker.delivery import Delivery
from broker.prefix import F, Prefix
from broker.read import Record, last, page, read
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


FULL_AGAIN = (0.25, 1.0)
"""Seconds until an append is tried again that found the log full."""

MISSED = b""
"""The message id of what nobody has folded."""


class Hold(Generic[F]):
    """One delivery, the folded state of its topic, and the only way to append for it."""

    def __init__(
        self,
        broker: Broker,
        delivery: Delivery,
        topic: Topic,
        prefix: Prefix[F],
        begin: Callable[[], Awaitable[tuple[F, int] | None]] | None = None,
    ) -> None:
        self.broker = broker
        self.delivery = delivery
        self.topic = topic
        self.news = asyncio.Event()
        self._prefix = prefix
        self._begin = begin
        self._own = b""
        self._heard: set[bytes] = set()

    @property
    def state(self) -> F:
        """What the topic's facts amount to, as far as this process has folded them."""
        return self._prefix.state

    @property
    def seq(self) -> int:
        """How far it has."""
        return self._prefix.seq

    def knows_all_before(self) -> bool:
        """Whether the state already holds everything before a first delivery; then it is folded too.

        Nobody can have claimed what is delivered for the first time before it was: the first look may wait until
        an append is refused. On replicas its condition does not keep out what is appended without one.
        """
        if self.broker.is_replicated or self._prefix.lock.locked():  # somebody else reads, or appends
            return False
        event = events.decode(self.delivery.data)
        if self.delivery.delivered > 1 or not self.seq or self.delivery.follows != self.seq or event is None:
            return False
        self._prefix.apply(self.delivery.seq, event, event.id.encode())
        self._prefix.has_grown()
        return True

    async def look(self, *, at_nothing: bool = False, at_heard: bool = False) -> None:
        """Fold everything up to the last fact that the leader knows. Retries while the broker is away.

        `at_nothing`: there should be nothing new. To ask for what follows costs the broker a walk through all that
        was stored since, to ask for the last fact does not. `at_heard`: only what was heard of; another holder of this
        process may have folded that.
        """
        async with self._prefix.lock:
            if at_heard and self._heard and self._prefix.knows(self._heard):
                self._heard.clear()
                self.news.clear()
                return
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
        """Read what follows, and fold it. Where that is cut short, what was heard of is still news."""
        self.news.clear()
        self._heard.clear()
        try:
            await self._read_all()
        except BaseException:
            self.missed()
            raise

    async def _read_all(self) -> None:
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
                self._prefix.begin_again(*kept)
                records, more = since[1:], further
        self._fold(records)
        return more

    def _fold(self, records: list[Record]) -> None:
        for record in records:
            self._prefix.apply(record.seq, events.decode(record.data), record.message_id.encode())
        if records:
            self._prefix.has_grown()

    @property
    def stopping(self) -> bool:
        """Whether this process was told to stop: let go as soon as that is safe."""
        return self.delivery.stopping

    async def folded(self) -> None:
        """Wait until something more is folded; somebody else must `wait` or `look` in the meantime."""
        await self._prefix.growth()

    async def append(
        self, event: AnyEvent, lane: Lane | None = None, context: dict[str, str] | None = None
    ) -> int | None:
        """The sequence of the stored and folded fact, or None where something else came first: it is folded now.

        What is folded while this waits for its turn came first, too: the caller did not decide with it in mind.
        Raises TypeError for an event with fields that nobody could read: those are not checked where it is made.
        """
        try:
            events.check(encoded := events.encode(event))
        except (msgspec.DecodeError, RecursionError) as error:
            raise TypeError(f"{type(event).__name__}: {error}") from None
        subject, decided = self.topic.fact(lane or events.LANE_OF[type(event)]), self.seq
        async with self._prefix.lock:
            if self.seq != decided:
                return None
            what = conditional(self.topic, subject, encoded, event.id, self.seq, context=context)
            self._own = event.id.encode()
            stored, is_full = await self._try(what)
            if stored:
                await self._take_in(stored.seq, event)
                return stored.seq
        await self._come_again(is_full=is_full)
        return None

    async def _come_again(self, *, is_full: bool) -> None:
        """Before the caller decides again: fold what came first; or leave the others of the topic alone for a while."""
        if is_full:
            logger.debug("the log is full", extra={"topic": self.topic.id})
            await asyncio.sleep(random.uniform(*FULL_AGAIN))  # noqa: S311 - jitter
        else:
            await self.look()

    async def _take_in(self, seq: int, event: AnyEvent) -> None:
        """Fold the fact that was just stored.

        On replicas an append without a condition (a message, a cancel, an external event) may have been stored between
        it and the fact that it names: that comes first.
        """
        if not self.broker.is_replicated or seq == self.seq + 1:
            self._prefix.apply(seq, event, event.id.encode())
            self._prefix.has_grown()
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
        async with self._prefix.lock:
            if self.seq != decided:
                return False
            what = conditional(self.topic, self.topic.delta, events.encode(event), event.id, self.seq, ttl=DELTA_TTL)
            stored, is_full = await self._try(what)
            if stored:
                return True
        await self._come_again(is_full=is_full)
        return False

    async def _try(self, what: Append) -> tuple[Stored | None, bool]:
        """What was stored, and whether nothing was because the log is full."""
        try:
            return await self._store(what), False
        except LogFull:
            return None, True

    async def _store(self, what: Append) -> Stored | None:
        """Append. When this is cancelled, whatever is read or appended next comes after it all the same."""
        try:
            return await append(self.broker, what)
        except asyncio.CancelledError:
            with contextlib.suppress(Unavailable, OutcomeUnknown, LogFull):  # the same again: stored once, or never
                await append(self.broker, what, deadline=ATTEMPT_TIMEOUT)
            raise

    async def wait(self, seconds: float = inf) -> None:
        """Wait for something new, at most `seconds` or a few; then fold what is new. Told to stop, do not wait."""
        if self.stopping:
            self.news.set()
        self.delivery.rest(True)
        await self.news_folded(seconds)

    async def news_folded(self, seconds: float = inf) -> None:
        """Wait for something new, at most `seconds` or a few; then fold what is new."""
        most = max(LOOK_EVERY, self.broker.holds / LOOKS) * random.uniform(0.75, 1.0)  # noqa: S311 - jitter
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, most)):
                await self.news.wait()
        await self.look(at_nothing=not self.news.is_set(), at_heard=bool(self._heard))

    def wake(self, _subject: bytes, _reply: bytes, _data: bytes, headers: bytes) -> None:
        """Something is new, unless it is the holder's own append."""
        message_id = header(headers, b"Nats-Msg-Id")
        if message_id != self._own:
            self._heard.add(message_id or MISSED)
            self.news.set()

    def missed(self) -> None:
        """Something may be new that was not heard of."""
        self._heard.add(MISSED)
        self.news.set()
