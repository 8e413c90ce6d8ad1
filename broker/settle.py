"""Settling: decide and act, again and again, until what is held is settled, dropped or handed over."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from math import inf
from typing import Any, Protocol, TypeVar

from broker.acts import Act, Drop, Put, Settle, Wait
from broker.delivery import Delivery
from broker.hold import Hold
from broker.prefix import F
from broker.telemetry import tracer
from contracts.events import AnyEvent

logger = logging.getLogger(__name__)

CANCEL_GRACE = 2.0
"""Seconds that work which is cancelled has to clean up."""

_abandoned: set[asyncio.Task[Any]] = set()

T = TypeVar("T")


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


async def work_while(
    hold: Hold[F],
    work: Coroutine[None, None, T],
    wanted: Callable[[], bool],
    cancelling: Callable[[], None] = lambda: None,
) -> T | None:
    """The result of `work`, or None where it was cancelled because it is not `wanted` any more.

    `cancelling` is called just before. Work that does not end when it is cancelled is left to itself after CANCEL_GRACE
    seconds.
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
            cancelling()
            await _cancel(task)
        return None if not task.done() or task.cancelled() else task.result()
    finally:  # the state is another holder's when this one is gone
        if not task.done():
            cancelling()
        await asyncio.gather(*(_cancel(each) for each in (task, news) if each and not each.done()))


async def _cancel(task: asyncio.Task[T]) -> None:
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=CANCEL_GRACE)
    if not done:
        logger.error("work does not end though it was cancelled", extra={"task": task.get_name()})
        _abandoned.add(task)
        task.add_done_callback(_abandoned.discard)


async def _takes_room(delivery: Delivery, act: Act) -> bool:
    """Whether the act begins work, for which there had to be room: then it must be decided again."""
    if isinstance(act, Put) and act.claim:
        await delivery.go_on()
        return True
    if not isinstance(act, Wait):
        delivery.rest(False)
    return False


async def settle(hold: Hold[F], role: Role) -> None:
    """Decide and act until the trigger is settled, dropped or, when told to stop, handed over."""
    while True:
        if hold.stopping and not role.is_done:
            if await role.release():
                await hold.delivery.nak()
            return hold.delivery.drop()
        act = role.decide()
        if hold.delivery.resting and await _takes_room(hold.delivery, act):
            continue
        match act:
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
