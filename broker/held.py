"""Held: all the deliveries of one consumer that this process holds, and who of them has room to work."""

import asyncio
from collections.abc import Callable

from broker.delivery import Delivery


class Held:
    """At most `most` work at once, if there is a limit; those that rest are not counted."""

    def __init__(self, most: int | None = None) -> None:
        self.deliveries: set[Delivery] = set()
        self.recall: Callable[[], None] = lambda: None
        """Has whoever asks for more ask for no more, so that there is room for one that goes on."""
        self._most = most
        self._latest: dict[int, Delivery] = {}
        self._working = 0
        self._returning: list[tuple[Delivery, asyncio.Future[None]]] = []
        self._changed = asyncio.Event()

    def add(self, delivery: Delivery) -> bool:
        """Whether it needs a holder; not where one has the same message still, who would only be overtaken."""
        latest = self._latest.get(delivery.seq)
        if latest and latest.held:
            latest.renew(delivery)
            return False
        self._working += 1
        delivery.rested = self._rested
        if self._most is not None:
            delivery.admitted = self._admitted
        self.deliveries.add(delivery)
        self._latest[delivery.seq] = delivery
        return True

    @property
    def room(self) -> int | None:
        """How many more may come, or None without a limit; negative where too many came."""
        return None if self._most is None else self._most - self._working

    def look_again(self) -> None:
        """The broker was away: every holder may have missed something."""
        for delivery in self.deliveries:
            if delivery.wake:
                delivery.wake()

    def remove(self, delivery: Delivery) -> None:
        """Its holder has let go."""
        delivery.drop()
        if delivery in self.deliveries:
            self.deliveries.remove(delivery)
            self._working -= not delivery.resting
        if self._latest.get(delivery.seq) is delivery:
            del self._latest[delivery.seq]
        self._changed.set()

    def _rested(self, resting: bool) -> None:
        self._working += -1 if resting else 1
        self._changed.set()

    async def _admitted(self, delivery: Delivery) -> None:
        answer = asyncio.get_running_loop().create_future()
        self._returning.append((delivery, answer))
        self._changed.set()
        self.recall()
        await answer

    def admit(self) -> None:
        """Those that rested go on, as far as there is room; the others are handed to somebody who has it.

        No request may stand meanwhile: what came over it would be one too many, in a process that works.
        """
        returning, self._returning = self._returning, []
        for delivery, answer in returning:
            if answer.done() or delivery not in self.deliveries:
                continue
            if self.room is None or self.room > 0 or not delivery.resting:
                delivery.rest(False)
            else:
                delivery.stop()
            answer.set_result(None)

    async def wait_for_change(self) -> None:
        """Until somebody lets go, rests or is to go on."""
        self._changed.clear()
        await self._changed.wait()

    async def stop(self) -> None:
        """Tell every holder to let go, and wait until they have."""
        for delivery in tuple(self.deliveries):
            delivery.stop()
        while self.deliveries:
            self.admit()
            await self.wait_for_change()
