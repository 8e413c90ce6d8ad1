"""Entries: streams that keep one message for each subject, read at the leader and replaced on condition."""

import msgspec
from msgspec import Struct

from broker.append import Append, OutcomeUnknown, append
from broker.client import header
from broker.connect import Broker, Unavailable
from broker.read import NO_MESSAGE
from contracts.events import new_id

DECIDED_WITHIN = 4.0


class Entry(Struct, frozen=True):
    """What a subject holds."""

    seq: int
    data: bytes
    message_id: str


class _Answer(Struct):
    class _Message(Struct):
        seq: int
        data: bytes = b""
        hdrs: bytes = b""

    class _Error(Struct):
        err_code: int = 0
        description: str = ""

    message: _Message | None = None
    error: _Error | None = None


_answer = msgspec.json.Decoder(_Answer)


async def get(broker: Broker, stream: str, subject: str) -> Entry | None:
    """What the subject holds, as the leader knows it. Raises Unavailable or TimeoutError."""
    request = msgspec.json.encode({"last_by_subj": subject})
    answer = _answer.decode((await broker.request(f"$JS.API.STREAM.MSG.GET.{stream}", request)).data)
    if found := answer.message:
        return Entry(found.seq, found.data, (header(found.hdrs, b"Nats-Msg-Id") or b"").decode())
    if answer.error and answer.error.err_code == NO_MESSAGE:
        return None
    raise Unavailable(answer.error.description if answer.error else "no answer")


async def put(broker: Broker, stream: str, subject: str, data: bytes, after: int) -> int | None:
    """Replace the entry at sequence `after` (0: there must be none); the new one's sequence.

    None where another is there, so of several who replace the same entry one succeeds. Raises Unavailable where
    nothing was stored, OutcomeUnknown where it may be, and LogFull.
    """
    what = Append(subject, data, new_id(), subject, after)
    try:
        if stored := await append(broker, what, deadline=DECIDED_WITHIN):
            return stored.seq
    except OutcomeUnknown:
        if seq := await _mine(broker, stream, what):
            return seq
        raise
    # a try whose answer was lost is why the next one was refused
    return await _mine(broker, stream, what)


async def _mine(broker: Broker, stream: str, what: Append) -> int | None:
    try:
        entry = await get(broker, stream, what.subject)
    except (Unavailable, TimeoutError) as error:
        raise OutcomeUnknown(what.message_id) from error
    return entry.seq if entry and entry.message_id == what.message_id else None
