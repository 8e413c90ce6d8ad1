"""Consuming: deliveries of a durable consumer, each handed to one holder and kept alive until it lets go.

One standing pull request at a time. A delivery belongs to its holder from the moment it comes: it is kept
alive with `in_progress` and only the holder settles it. To drop one is to settle nothing: it comes again,
to somebody, after `ack_wait`.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine

import msgspec

from broker.connect import ASK_AGAIN, Broker, Unavailable
from broker.delivery import NANOSECONDS, Delivery, Holder
from broker.held import Held
from broker.pull import BACKOFF, Pull
from contracts import streams

logger = logging.getLogger(__name__)

BEATS = 2000
"""Times a second that this process tells that it holds what only waits: 10,000 are kept for 15 s at a time."""

BURST = 256
"""Words to the broker in one turn of the event loop."""


class _Pulse:
    """Whether this process has slept (paused, or starved) for `ack_wait`: somebody else has by now what was on its way.

    To hold such a delivery would take a turn away from a holder who is at it.
    """

    def __init__(self, woke: Callable[[], None]) -> None:
        self.ack_wait = float("inf")
        self._woke = woke
        self._beat = time.monotonic()

    def beat(self) -> None:
        """This process runs."""
        last, self._beat = self._beat, time.monotonic()
        if self._beat - last > self.ack_wait:
            self._woke()


class _ConsumerInfo(msgspec.Struct):
    class _Config(msgspec.Struct):
        ack_wait: int

    config: _Config


async def ack_wait(broker: Broker, stream: str, durable: str) -> float:
    """How long a delivery stays with a silent holder, in seconds, as the broker has it. Waits for the consumer."""
    while True:
        try:
            reply = await broker.request(f"$JS.API.CONSUMER.INFO.{stream}.{durable}", timeout=ASK_AGAIN)
            return msgspec.json.decode(reply.data, type=_ConsumerInfo).config.ack_wait / NANOSECONDS
        except (Unavailable, TimeoutError, msgspec.DecodeError) as error:
            logger.warning("waiting for the consumer", extra={"consumer": durable, "reason": str(error)})
            await asyncio.sleep(BACKOFF)


async def consume(  # noqa: PLR0913 - how, beside what
    broker: Broker,
    consumer: streams.Consumer,
    hold: Holder,
    stop: asyncio.Event,
    *,
    most: int | None = None,
    begun: Callable[[], None] = lambda: None,
) -> None:
    """Hand each delivery to `hold` until `stop` is set, then wait for the holders to let go.

    At most `most` are held at once beside those that rest (no limit by default: who waits costs next to nothing).
    One that rested and finds no room when it is to go on is stopped, and so handed to somebody else. A holder that
    raises drops its delivery. `begun` is called when deliveries may come.
    """
    held = Held(most)

    async def run(delivery: Delivery) -> None:
        try:
            if held.room is not None and held.room < 0:
                await delivery.nak()
            else:
                await hold(delivery)
        except asyncio.CancelledError:
            raise
        except BaseException:  # whatever it is, the others go on
            logger.exception("a holder failed", extra={"consumer": consumer.durable, "sequence": delivery.seq})
        finally:
            held.remove(delivery)

    async with asyncio.TaskGroup() as tasks:

        def take(delivery: Delivery) -> None:
            pulse.beat()
            if not pull.trusted or not held.add(delivery):
                return
            if stop.is_set():
                delivery.stop()
            tasks.create_task(run(delivery), name=f"hold-{delivery.seq}")

        pull = Pull(broker, consumer.stream, consumer.durable, take)
        pulse = _Pulse(pull.distrust)
        held.recall = pull.recall
        alive = tasks.create_task(_keep_alive(broker, consumer, held, pulse), name="keep-alive")
        broker.reconnected.append(held.look_again)
        stopped = tasks.create_task(stop.wait(), name="stop")
        try:
            await pull.open()
            begun()
            while not stop.is_set():
                await _first(stopped, _next(pull, held))
        finally:
            broker.reconnected.remove(held.look_again)
            await pull.close()
        await held.stop()
        alive.cancel()


async def _next(pull: Pull, held: Held) -> None:
    """Wait for the standing request to end; or let who rested go on, and make one if there is still room for it."""
    if not pull.over.is_set():
        return await pull.ended()
    await pull.clear()
    held.admit()
    if held.room is None or held.room > 0:
        pull.ask(held.room)
    else:
        await held.wait_for_change()


async def _first(stopped: asyncio.Task[bool], work: Coroutine[None, None, None]) -> None:
    """Do `work`, or as much of it as there is time for before the stop."""
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait([stopped, working], return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not working.cancel():
            working.result()


async def _keep_alive(broker: Broker, consumer: streams.Consumer, held: Held, pulse: _Pulse) -> None:
    """Keep what is held. Where thousands only wait, those are kept for longer at a time, at BEATS a second in all."""
    pulse.ack_wait = await ack_wait(broker, consumer.stream, consumer.durable)
    beat = pulse.ack_wait / 3
    while True:
        await asyncio.sleep(beat)
        pulse.beat()
        if not broker.connected:
            continue
        now, resting = time.monotonic(), sum(delivery.resting for delivery in held.deliveries)
        long = 3 * resting / BEATS
        due = [delivery for delivery in held.deliveries if now > delivery.kept_until]
        for number, delivery in enumerate(due, 1):
            if delivery.resting and long > pulse.ack_wait:
                delivery.keep(long)
                # a third of the time, or less: so those that came together do not stay together
                delivery.kept_until = now + random.uniform(long / 4, long / 2)  # noqa: S311 - jitter
            else:
                delivery.keep()
            if number % BURST == 0:
                await asyncio.sleep(0)
