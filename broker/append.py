"""Appending: stored, refused or unknown. Unknown is never returned: it is retried until it is known.

A conditional append names the last fact of its topic that its writer has folded; the broker stores it only if no
other fact came since. The check subject is always the topic's `fact.>`: on three replicas different
check subjects do not exclude each other.
"""

import asyncio
import random
import time

import msgspec

from broker.client import header_block
from broker.connect import Broker, Unavailable
from broker.read import read
from contracts.subjects import Topic

ATTEMPT_TIMEOUT = 3.0
BACKOFF = (0.02, 0.5)

REFUSED = 10071
IN_PROCESS = frozenset({10158, 10164})
"""Another append to the same check subject, or of the same id, is not decided yet (replicated logs only)."""
FULL = frozenset({10023, 10047, 10077, 10122})
"""Insufficient resources, insufficient storage, maximum bytes or messages exceeded."""


class LogFull(Exception):
    """The log refuses to grow; what was to be appended is not stored."""


class OutcomeUnknown(Exception):
    """The deadline passed: the append may be stored, now or later. The same id may be tried again."""


class Stored(msgspec.Struct, frozen=True):
    """The append's place in the log. `duplicate`: it had been stored before."""

    seq: int
    duplicate: bool = False


class _Ack(msgspec.Struct):
    class _Error(msgspec.Struct):
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


async def append(broker: Broker, what: Append, *, deadline: float | None = None, wait_when_full: bool = False) -> Stored | None:
    """Store `what`, or return None where its condition was refused.

    Without `deadline` (seconds) it tries until the outcome is known. With it, raises Unavailable where
    nothing was sent, and OutcomeUnknown where it may be stored. Raises LogFull unless told to wait.
    """
    ends = None if deadline is None else time.monotonic() + deadline
    headers, doubt, pause = what.headers, False, BACKOFF[0]
    while True:
        try:
            left = ATTEMPT_TIMEOUT if ends is None else min(ATTEMPT_TIMEOUT, max(0.05, ends - time.monotonic()))
            reply = await broker.request(what.subject, what.payload, headers=headers, timeout=left)
            ack = _ack.decode(reply.data)
            if ack.error is None:
                return Stored(ack.seq, ack.duplicate)
            if ack.error.err_code == REFUSED:
                return await _stored_before(broker, what) if doubt else None
            if ack.error.err_code in FULL and not wait_when_full:
                raise LogFull(ack.error.description)
            if ack.error.err_code not in IN_PROCESS | FULL:
                raise Unavailable(f"{ack.error.err_code} {ack.error.description}")
        except TimeoutError:
            doubt = True
        except Unavailable:
            if ends is not None and not doubt and time.monotonic() >= ends:
                raise
        if ends is not None and time.monotonic() >= ends:
            if doubt:
                raise OutcomeUnknown(what.message_id)
            raise Unavailable("the broker is away")
        await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311 - jitter
        pause = min(pause * 2, BACKOFF[1])


async def _stored_before(broker: Broker, what: Append) -> Stored | None:
    """Whether an append whose outcome was unknown, and which is refused now, had been stored all the same."""
    while True:
        try:
            async for records in read(broker, what.subject, what.after):
                for record in records:
                    if record.message_id == what.message_id:
                        return Stored(record.seq, duplicate=True)
            return None
        except (Unavailable, TimeoutError):
            await asyncio.sleep(BACKOFF[1])
