"""Refresh: work that many may ask and wait for, and that is done once at a time."""

import asyncio
from collections.abc import Awaitable, Callable


class Refresh:
    """Work that brings something up to date: by a clock (`now`), or because somebody misses something.

    `every`: seconds between two beginnings of the second kind, however many ask.
    """

    def __init__(self, work: Callable[[], Awaitable[None]], every: Callable[[], float]) -> None:
        self._work = work
        self._every = every
        self._count = 0
        self._asked_at = float("-inf")
        self._running: asyncio.Future[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether it is being done."""
        return self._running is not None and not self._running.done()

    async def now(self) -> None:
        """Do it, or wait for what is being done already. Whoever waits hears what it raises."""
        if not self.is_running:
            self._begin()
        await self._end()

    async def if_due(self) -> None:
        """As `now`, because somebody misses something; does nothing where it was done for that a moment ago."""
        if self._due_in == 0 and not self.is_running:
            self._ask()
        if self.is_running:
            await self._end()

    async def afresh(self) -> None:
        """As `now`, because somebody misses something: what began before this call does not count."""
        before = self._count
        while self._count == before:
            if self._running and self.is_running:
                await asyncio.wait([self._running])
            elif wait := self._due_in:
                await asyncio.sleep(wait)
            else:
                self._ask()
        await self._end()

    async def cancel(self) -> None:
        """Give up what is being done."""
        if self._running and self._running.cancel():
            await asyncio.wait([self._running])

    @property
    def _due_in(self) -> float:
        return max(0.0, self._asked_at + self._every() - asyncio.get_running_loop().time())

    def _ask(self) -> None:
        self._asked_at = asyncio.get_running_loop().time()
        self._begin()

    def _begin(self) -> None:
        self._count += 1
        self._running = asyncio.ensure_future(self._work())
        self._running.add_done_callback(_heard)

    async def _end(self) -> None:
        assert self._running
        await asyncio.shield(self._running)


def _heard(done: asyncio.Future[None]) -> None:
    if not done.cancelled():
        done.exception()  # whoever asked may not wait any more
