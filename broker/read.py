"""Reading the log: pages by direct get, the leader's last sequence, the last of every lane.

A page may come from any replica and so may end early; it never has a hole. Where it matters that nothing is
missing, read up to a sequence that the leader named (`last`).
"""

import asyncio
from collections.abc import AsyncIterator

import msgspec

from broker.client import header, status
from broker.connect import Broker, Unavailable
from contracts.streams import LOG

PAGE_MESSAGES = 512
PAGE_BYTES = 1 << 20
PAGE_TIMEOUT = 5.0
LAG_WAIT = 0.02
"""How long to wait for a replica that is behind the leader before it is asked again."""


class Record(msgspec.Struct, frozen=True):
    """One stored message. `time` is the broker's, RFC 3339."""

    seq: int
    subject: str
    data: bytes
    headers: bytes

    @property
    def message_id(self) -> str:
        """The id it was appended with."""
        return (header(self.headers, b"Nats-Msg-Id") or b"").decode()

    @property
    def time(self) -> str:
        """When the broker stored it."""
        return (header(self.headers, b"Nats-Time-Stamp") or b"").decode()


class _Error(msgspec.Struct):
    err_code: int = 0
    code: int = 0
    description: str = ""


class _Last(msgspec.Struct):
    class _Message(msgspec.Struct):
        seq: int

    message: _Message | None = None
    error: _Error | None = None


_last = msgspec.json.Decoder(_Last)
NO_MESSAGE = 10037


def _record(data: bytes, headers: bytes) -> Record:
    seq, subject = header(headers, b"Nats-Sequence"), header(headers, b"Nats-Subject")
    assert seq and subject
    return Record(int(seq), subject.decode(), data, headers)


async def last(broker: Broker, subject: str, stream: str = LOG) -> int:
    """The last sequence of what `subject` (wildcards allowed) names, as the leader knows it; 0 if there is none."""
    request = msgspec.json.encode({"last_by_subj": subject})
    answer = _last.decode((await broker.request(f"$JS.API.STREAM.MSG.GET.{stream}", request)).data)
    if answer.message:
        return answer.message.seq
    if answer.error and answer.error.err_code == NO_MESSAGE:
        return 0
    raise Unavailable(answer.error.description if answer.error else "no answer")


async def _get(broker: Broker, request: dict[str, object], stream: str) -> tuple[list[Record], int]:
    """The messages of one batched direct get, and how many more match: at least 1 where the batch was cut short.

    What is there has no hole: replies that come over the next connection, after some were lost, are not heard.
    """
    records: list[Record] = []

    def heard(_subject: bytes, _reply: bytes, data: bytes, headers: bytes) -> None:
        code = status(headers)
        if code == 0:
            records.append(_record(data, headers))
        elif code in (204, 404):
            done.set_result(int(header(headers, b"Nats-Num-Pending") or 0))
        else:
            done.set_exception(Unavailable(headers[9:60].decode(errors="replace").strip()))

    subject = f"$JS.API.DIRECT.GET.{stream}"
    done: asyncio.Future[int] = broker.converse(subject, msgspec.json.encode(request), heard, timeout=PAGE_TIMEOUT)
    try:
        return records, await done
    except TimeoutError:
        if not records:
            raise
        return records, 1


async def page(
    broker: Broker, subject: str, after: int, *, messages: int = PAGE_MESSAGES, stream: str = LOG
) -> tuple[list[Record], bool]:
    """The next messages of `subject` after a sequence, in order, and whether there are more."""
    request = {"next_by_subj": subject, "seq": after + 1, "batch": messages, "max_bytes": PAGE_BYTES}
    records, more = await _get(broker, request, stream)
    return records, more > 0


async def read(
    broker: Broker, subject: str, after: int, upto: int | None = None, *, stream: str = LOG
) -> AsyncIterator[list[Record]]:
    """Pages of `subject` after a sequence, up to `upto` (the leader's last by default) at least.

    Waits for a replica that is behind. Raises Unavailable or TimeoutError while the broker is away.
    """
    if upto is None:
        upto = await last(broker, subject, stream)
    while after < upto:
        records, _ = await page(broker, subject, after, stream=stream)
        if records:
            after = records[-1].seq
            yield records
        elif after < upto:
            if await last(broker, subject, stream) <= after:
                return
            await asyncio.sleep(LAG_WAIT)


async def last_of_each(broker: Broker, subject: str) -> list[Record]:
    """The last message of every subject that `subject` matches: whether a reader has everything."""
    records, more = await _get(broker, {"multi_last": [subject], "batch": 64}, LOG)
    if more:
        raise TimeoutError("not every subject was answered for")
    return records
