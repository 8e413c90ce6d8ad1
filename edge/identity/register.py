"""Register: the API keys there are and what was revoked, as stream AUTH has them.

All of it is in memory, and is read on every second from where the last look ended. While the broker is away, what
is known holds.
"""

import asyncio
import logging

from broker.connect import Broker, Unavailable
from broker.read import Record, last, read
from contracts.credentials import ApiKey, RevokedToken, RevokedUser, decode_entry
from contracts.streams import AUTH
from contracts.subjects import AUTH_ALL
from edge.identity.refresh import Refresh
from edge.principal import Principal

logger = logging.getLogger(__name__)

EVERY = 1.0
"""Seconds between looks, and between those that an unknown key makes."""

FAILURES = (Unavailable, TimeoutError)


class _Known:
    """What was read up to sequence `seq` of one incarnation of the stream."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.seq = 0
        self.keys: dict[str, ApiKey] = {}
        self.users: dict[tuple[str, str], float] = {}
        self.tokens: set[tuple[str, str]] = set()

    def take(self, record: Record) -> None:
        """Take in an entry. One that cannot be read lets nobody in, and is told of."""
        self.seq = record.seq
        try:
            entry = decode_entry(record.subject, record.data)
        except ValueError:
            logger.error("an entry cannot be read", extra={"stream": AUTH, "sequence": record.seq})
            return
        match entry:
            case ApiKey():
                self.keys[entry.id] = entry
            case RevokedUser():
                self.users[entry.tenant, entry.user_id] = entry.until
            case RevokedToken():
                self.tokens.add((entry.tenant, entry.hash))


class Register:
    """The edge's copy of stream AUTH."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._known: _Known | None = None
        self._reading = Refresh(self._read, lambda: EVERY)

    async def ready(self) -> None:
        """Wait for the first look. Raises Unavailable or TimeoutError."""
        if self._known is None:
            await self._reading.now()

    async def key(self, key_id: str) -> ApiKey | None:
        """The key of that id. An unknown one is looked for again: it may be new. Raises as `ready`."""
        await self.ready()
        assert self._known
        if found := self._known.keys.get(key_id):
            return found
        await self._reading.afresh()
        return self._known.keys.get(key_id)

    def has_revoked(self, principal: Principal) -> bool:
        """Whether what somebody was authenticated with holds no longer."""
        known = self._known
        if known is None:
            return True
        kind, _, name = principal.credential.partition(":")
        if kind == "key":
            key = known.keys.get(name)
            return key is None or key.tenant != principal.tenant or key.revoked_at is not None
        if (principal.tenant, name) in known.tokens:
            return True
        until = known.users.get((principal.tenant, principal.user_id))
        return until is not None and (principal.issued_at is None or principal.issued_at <= until)

    async def run(self) -> None:
        """Read on, every second. Runs for ever."""
        failing = False
        while True:
            try:
                await self._reading.now()
                failing = False
            except FAILURES as error:
                if not failing:
                    logger.warning("AUTH cannot be read", extra={"reason": str(error)})
                failing = True
            except Exception:
                logger.exception("AUTH cannot be read")
            await asyncio.sleep(EVERY)

    async def close(self) -> None:
        """Wait for nothing any more."""
        await self._reading.cancel()

    async def _read(self) -> None:
        upto = await last(self._broker, AUTH_ALL, AUTH)
        info = self._broker.log_info
        epoch = info.epoch if info else ""
        known = self._known
        if known is None or known.epoch != epoch or upto < known.seq:  # restored: it counts anew
            known = _Known(epoch)
        async for records in read(self._broker, AUTH_ALL, known.seq, upto, stream=AUTH):
            for record in records:
                known.take(record)
        self._known = known
