"""The standing pull request of a consumer."""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable

import msgspec
from nats.aio.subscription import Subscription

from broker.client import status
from broker.connect import Broker, Unavailable
from broker.delivery import NANOSECONDS, Delivery

BATCH = 256
"""The most that are asked for at a time."""

EXPIRES = 30.0
HEARTBEAT = 1.0
"""Seconds. A consumer whose leader has died is asked again after two or three: its new one knows of no request."""

BACKOFF = 0.25
BARRIER = 1.0
IDLE_HEARTBEAT = 100


class Pull:
    """The standing pull request: deliveries in, and when to ask again.

    A request that may still stand in the broker when it is not wanted any more, after a reconnect or a missing
    heartbeat, is ended by giving up the subject that it delivers to.
    """

    def __init__(self, broker: Broker, stream: str, durable: str, take: Callable[[Delivery], None]) -> None:
        self._broker = broker
        self._consumer = f"{stream}.{durable}"
        self._take = take
        self._reply = ""
        self._subscription: Subscription | None = None
        self._left = 0
        self._heard = 0.0
        self._failed = False
        self._may_stand = False
        self._leaving: asyncio.Task[None] | None = None
        self.trusted = True
        """Whether what comes over the request that stands is still this process's."""
        self.over = asyncio.Event()
        self.over.set()
        broker.reconnected.append(self._broken)

    def _broken(self) -> None:
        self._may_stand = True
        self.over.set()

    def recall(self) -> None:
        """Let nothing more come over the request, if one stands."""
        if not self.over.is_set():
            self._broken()

    def distrust(self) -> None:
        """What comes before the next request was delivered long ago, and may be somebody else's by now."""
        self.trusted = False
        self._broken()

    def _arrived(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        self._heard = time.monotonic()
        if not reply and (code := status(headers)):
            if code != IDLE_HEARTBEAT and subject.decode() == self._reply:
                self._failed = code not in (404, 408)
                self.over.set()
            return
        self._left -= 1
        if self._left <= 0:
            self.over.set()
        self._take(Delivery(self._broker, subject.decode(errors="replace"), reply.decode(), data, headers))

    async def open(self) -> None:
        """Listen. Deliveries keep their own subject, so they need a subscription of their own."""
        self._may_stand, self.trusted = False, True
        self._reply = self._broker.inbox(f"pull.{os.urandom(8).hex()}")
        self._subscription = await self._broker.subscribe(self._reply, self._arrived)

    async def clear(self) -> None:
        """Let no request stand, and take what is on its way; after a failure, not at once."""
        if self._failed:
            await asyncio.sleep(BACKOFF)
        while self._may_stand:
            await self._leave()
            await self.open()

    def ask(self, room: int | None) -> None:
        """Ask for as many messages as there is room for. `clear` comes first."""
        messages = BATCH if room is None else min(BATCH, room)
        self._failed, self._left, self._heard = False, messages, time.monotonic()
        self.over.clear()
        request = {
            "batch": messages,
            "expires": int(EXPIRES * NANOSECONDS),
            "idle_heartbeat": int(HEARTBEAT * NANOSECONDS),
        }
        try:
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._consumer}"
            self._broker.publish(subject, msgspec.json.encode(request), self._reply)
        except Unavailable:
            self._failed = True
            self.over.set()

    async def ended(self) -> None:
        """Return when the request is used up, refused, or its heartbeat is missing."""
        while not self.over.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT):
                    await self.over.wait()
            if time.monotonic() - self._heard > 2 * HEARTBEAT:
                self._broken()

    async def close(self) -> None:
        """Ask for nothing more, and take what is on its way already."""
        self._broker.reconnected.remove(self._broken)
        await self._leave()

    async def _leave(self) -> None:
        """Stop listening. What is on its way is taken also where whoever waits for that is cancelled."""
        if self._subscription:
            self._leaving = asyncio.create_task(self._end(self._subscription), name="leave")
            self._subscription = None
        if self._leaving:
            await asyncio.shield(self._leaving)

    async def _end(self, subscription: Subscription) -> None:
        try:
            await self._broker.end(subscription)
            with contextlib.suppress(Unavailable, TimeoutError):  # the answer comes behind what is on its way
                await self._broker.request(f"$JS.API.CONSUMER.INFO.{self._consumer}", timeout=BARRIER)
        finally:
            await self._broker.unsubscribe(subscription)
