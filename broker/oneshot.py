"""One-shot connections: a command's. It fails with one sentence where a service would wait."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats.errors
from nats.aio.client import Client

from broker.connect import Rejected, Unavailable

RETRY = 0.1
CONNECT_TIMEOUT = 2


class _Ears:
    """What a connection complains of. A refused request is never answered: it ends the block."""

    def __init__(self) -> None:
        self.last = ""
        self.refused = False
        self.block = asyncio.timeout(None)
        self._inside = False

    async def hear(self, error: Exception) -> None:
        self.last = str(error) or type(error).__name__
        if self._inside and "permissions violation" in self.last.lower():
            self.refused = True
            self.block.reschedule(0)

    def enter(self) -> asyncio.Timeout:
        self._inside = True
        return self.block


@asynccontextmanager
async def oneshot(url: str, seed_file: str, *, inbox: str = "_INBOX", within: float = 0) -> AsyncIterator[Client]:
    """A connection that never reconnects. Raises Unavailable if there is none `within` seconds.

    So does the block where the broker goes away or does not answer; where it does not permit what is asked, Rejected.
    """
    ears = _Ears()
    client = await _connect(url, seed_file, inbox, ears, time.monotonic() + within)
    try:
        async with ears.enter():
            yield client
    except nats.errors.NoRespondersError as error:
        raise Unavailable(f"{url} has no JetStream, or not that stream") from error
    except (TimeoutError, nats.errors.ConnectionClosedError) as error:
        raise (Rejected if ears.refused else Unavailable)(f"{url}: {ears.last or 'no answer'}") from error
    finally:
        with contextlib.suppress(nats.errors.Error):
            await client.close()


async def _connect(url: str, seed_file: str, inbox: str, ears: _Ears, ends: float) -> Client:
    while True:
        client = Client()
        try:
            await client.connect(
                url.split(","),
                nkeys_seed=seed_file or None,
                inbox_prefix=inbox,
                allow_reconnect=False,
                max_reconnect_attempts=1,  # without a limit connect() itself would try for ever
                reconnect_time_wait=0,
                connect_timeout=CONNECT_TIMEOUT,
                error_cb=ears.hear,
            )
        except (nats.errors.Error, OSError) as error:
            with contextlib.suppress(nats.errors.Error, OSError):
                await client.close()
            if time.monotonic() >= ends:
                raise Unavailable(f"no connection to {url}: {ears.last or error}") from error
            await asyncio.sleep(RETRY)
        else:
            return client
