"""Appending: stored, refused or unknown. Unknown is never returned: it is retried until it is known.

A conditional append names the last fact of its topic that its writer has folded; the broker stores it only if no
other fact came since. The check subject is always the topic's `fact.>`: on three replicas different
check subjects do not exclude each other.
"""

import asyncio
import random
import time

import msgspec

from broker import points
from broker.client import header_block
from broker.connect import Broker, Rejected, Unavailable
from broker.read import read
from contracts.subjects import Topic

ATTEMPT_TIMEOUT = 3.0
BACKOFF = (0.02, 0.5)

REMEMBERED = 60.0
"""Seconds for which the broker surely knows an id again: half of the log's `duplicate_window`."""

REFUSED = 10071
IN_PROCESS = frozenset({10158, 10164})
"""Another append to the same check subject, or of the same id, is not decided yet (replicated logs only)."""
FULL = frozenset({10002, 10023, 10047})
"""The account's limits exceeded, insufficient resources, insufficient storage."""
STORE_FAILED = 10077
"""The log's own limit (`maximum bytes exceeded`), or that its store is being closed."""


class LogFull(Exception):
    """The log refuses to grow; what was to be appended is not stored."""


class OutcomeUnknown(Exception):
    """The append may be stored, now or later. An unconditional one may be tried again with the same id."""


class Stored(msgspec.Struct, frozen=True):
    """The append's place in the log. `duplicate`: it had been stored before."""

    seq: int
    duplicate: bool = False


class _Ack(msgspec.Struct):
    class _Error(msgspec.Struct):
        code: int = 0
        err_code: int = 0
        description: str = ""

    seq: int = 0
    duplicate: bool = False
    error: _Error | None = None


_ack = msgspec.json.Decoder(_Ack)


class Append(msgspec.Struct, frozen=True):
    """One message to store: the same bytes, id and condition however often it is tried."""

    subject: str
    payload: bytes
    message_id: str
    check: str | None = None
    after: int = 0
    ttl: int = 0
    context: dict[str, str] | None = None

    @property
    def headers(self) -> bytes:
        """The headers that carry id, condition, lifetime and trace context. Nothing here comes from a client."""
        headers = {"Nats-Msg-Id": self.message_id}
        if self.check:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(self.after)
            headers["Nats-Expected-Last-Subject-Sequence-Subject"] = self.check
        if self.ttl:
            headers["Nats-TTL"] = str(self.ttl)
        if self.context:
            headers |= self.context
        return header_block(headers)


def conditional(topic: Topic, subject: str, payload: bytes, message_id: str, after: int, **more: object) -> Append:
    """An append that holds only if the topic's last fact is still `after`."""
    return Append(subject, payload, message_id, topic.facts, after, **more)  # type: ignore[arg-type]


async def append(broker: Broker, what: Append, *, deadline: float | None = None) -> Stored | None:
    """Store `what`, or return None where its condition was refused.

    Without `deadline` (seconds) it tries until the outcome is known. With it, raises Unavailable where
    nothing was stored, and OutcomeUnknown where it may be. Raises LogFull where nothing was, and Rejected where
    the broker will never store it.
    """
    ends = None if deadline is None else time.monotonic() + deadline
    tries, pause = _Tries(broker, what), BACKOFF[0]
    reason: Exception
    points.appending(what.payload, "before")
    while True:
        try:
            left = ATTEMPT_TIMEOUT if ends is None else min(ATTEMPT_TIMEOUT, max(0.05, ends - time.monotonic()))
            return await tries.once(left)
        except LogFull as error:
            reason = error
            if not tries.doubt:
                raise
        except (TimeoutError, Unavailable) as error:
            reason = error
        if isinstance(reason, Rejected) or (ends is not None and time.monotonic() >= ends):
            if tries.doubt:
                raise OutcomeUnknown(what.message_id) from reason
            raise reason
        await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - jitter
        pause = min(pause * 2, BACKOFF[1])


class _Tries:
    """The tries at one append. `doubt`: since when it may be stored without our knowing, 0 if it is not."""

    def __init__(self, broker: Broker, what: Append) -> None:
        self.doubt = 0.0
        self._broker = broker
        self._what = what
        self._headers = what.headers
        # wherever it is stored, it is after this
        self._floor = what.after if what.check or not broker.log_info else broker.log_info.last_seq

    async def once(self, within: float) -> Stored | None:
        """Try. Raises TimeoutError where the outcome is unknown; after any other error this try stored nothing."""
        broker, what = self._broker, self._what
        if self.doubt and time.monotonic() - self.doubt > REMEMBERED and (stored := await self._find(within)):
            return stored
        try:
            reply = await broker.request(what.subject, what.payload, headers=self._headers, timeout=within)
        except TimeoutError:
            self.doubt = self.doubt or time.monotonic()
            raise
        ack = _ack.decode(reply.data)
        if ack.error is None:
            points.appending(what.payload, "after")
            return Stored(ack.seq, ack.duplicate)
        if ack.error.err_code == REFUSED:
            return await self._find(within) if self.doubt else None
        raise _failure(ack.error)

    async def _find(self, within: float) -> Stored | None:
        """Where it is stored, if it is."""
        async with asyncio.timeout(within):
            async for records in read(self._broker, self._what.subject, self._floor):
                for record in records:
                    if record.message_id == self._what.message_id:
                        return Stored(record.seq, duplicate=True)
        return None


def _failure(error: _Ack._Error) -> Exception:
    text = f"{error.err_code} {error.description}"
    if error.err_code in FULL or (error.err_code == STORE_FAILED and error.description.startswith("maximum ")):
        return LogFull(text)
    if error.code == 400 and error.err_code not in IN_PROCESS:
        return Rejected(text)
    return Unavailable(text)
