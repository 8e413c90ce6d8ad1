"""The operator's connection: what a command that changes something at the broker is given."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from broker.append import LogFull, OutcomeUnknown
from broker.connect import Broker, Unavailable, connect
from broker.entries import get, put
from contracts.credentials import AnyEntry, decode_entry
from contracts.streams import AUTH, OPERATOR
from millrace.datadir import DataDir
from millrace.errors import CommandFailed

PATIENCE = 3.0
"""How long to wait for the broker."""

_T = TypeVar("_T")


def at_broker(data: DataDir, work: Callable[[Broker], Awaitable[_T]], user: str = OPERATOR) -> _T:
    """What `work` makes of the broker. Raises CommandFailed where that is away or does not do it."""
    url = data.broker_url(os.environ)
    try:
        return asyncio.run(_connected(url, user, str(data.credentials.user(user)), work))
    except (Unavailable, TimeoutError):
        raise CommandFailed(f"no answer from {url}: is `millrace up` running?") from None
    except OutcomeUnknown:
        raise CommandFailed(f"no answer from {url}: it may be done, and may be tried again") from None
    except ValueError as error:
        raise CommandFailed(f"{AUTH} holds what cannot be read: {error}") from None
    except LogFull as error:
        raise CommandFailed(f"{url} stores no more: {error}") from None


async def _connected(url: str, user: str, seed_file: str, work: Callable[[Broker], Awaitable[_T]]) -> _T:
    async with asyncio.timeout(PATIENCE) as patience, connect(url, user, seed_file=seed_file) as broker:
        patience.reschedule(None)
        return await work(broker)


async def change(broker: Broker, subject: str, make: Callable[[AnyEntry | None], AnyEntry | None]) -> None:
    """Put what `make` makes of the entry of AUTH in its place; None leaves it.

    Where somebody else was quicker it is made anew, of what is there then: of two changes none is lost.
    """
    while True:
        found = await get(broker, AUTH, subject)
        new = make(decode_entry(subject, found.data) if found else None)
        if new is None or await put(broker, AUTH, subject, msgspec.json.encode(new), found.seq if found else 0):
            return
