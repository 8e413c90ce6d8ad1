"""Backwards: the newest messages of a subject before a sequence, in a bounded number of requests.

The log is indexed forwards only. A direct get tells how many messages follow the one that it found, so the
place from which on enough of them stand is searched for, first in ever wider windows, then by halves; from there
the block is read forwards. The counts may be of a replica that is behind, or be old: they decide how large a block
is, never what is in it.
"""

import asyncio
import base64
from collections import deque

import msgspec

from broker.client import header, status
from broker.connect import Broker, Unavailable
from broker.read import LAG_WAIT, NO_MESSAGE, PAGE_MESSAGES, PAGE_TIMEOUT, Record, last, page
from contracts.streams import LOG

MOST_BYTES = 8 << 20
"""Bytes of a block at most; it begins later where there are more."""

ROOM = 4
"""How many times more than was wanted a block may hold, before a smaller one is looked for."""


class Block(msgspec.Struct, frozen=True):
    """Every message from sequence `start` on and before the one asked for, in order. At 1 there is none before it."""

    start: int
    records: list[Record]


async def block(broker: Broker, subject: str, before: int | None, wanted: int, *, stream: str = LOG) -> Block:
    """About `wanted` messages of a subject (wildcards allowed) before a sequence; before None, the newest.

    It may hold fewer, even none, where there are more before `start`: go on from there. Raises Unavailable or
    TimeoutError while the broker is away.
    """
    if before is None:
        before = await last(broker, subject, stream) + 1
    if before <= 1:
        return Block(1, [])
    messages = _Messages(broker, subject, before, stream)
    await messages.begin()
    start, expected = await _search(messages, before, wanted)
    records = await messages.read(start, expected)
    if records and messages.cut:
        start = records[0].seq
    if len(records) > ROOM * wanted:
        records = records[-ROOM * wanted :]
        start = records[0].seq
    return Block(start, records)


async def at(broker: Broker, seqs: list[int], *, stream: str = LOG) -> dict[int, bytes]:
    """What stands at those sequences, as the leader knows it; what is there no more is left out."""
    found = await asyncio.gather(*(_at(broker, seq, stream) for seq in seqs))
    return {seq: data for seq, data in zip(seqs, found, strict=True) if data is not None}


class _Messages:
    """The messages of a subject before a sequence."""

    def __init__(self, broker: Broker, subject: str, before: int, stream: str) -> None:
        self._broker = broker
        self._subject = subject
        self._before = before
        self._stream = stream
        self._beyond = 0
        self.cut = False

    async def begin(self) -> None:
        self._beyond = await self._from(self._before)

    async def count(self, start: int) -> int:
        """How many there are from `start` on, by what a replica knew a moment ago."""
        return await self._from(start) - self._beyond

    async def read(self, start: int, expected: int) -> list[Record]:
        """All of them from `start` on, or the last MOST_BYTES (`cut`). Waits for a replica that is behind."""
        records: deque[Record] = deque()
        size, after = 0, start - 1
        while after + 1 < self._before:
            # one more than is expected: that there is one beyond shows that none is missing
            number = min(PAGE_MESSAGES, max(1, expected - len(records) + 1))
            found, _ = await page(self._broker, self._subject, after, messages=number, stream=self._stream)
            for record in found:
                if record.seq >= self._before:
                    return list(records)
                records.append(record)
                size += len(record.data)
                while size > MOST_BYTES and len(records) > 1:
                    size -= len(records.popleft().data)
                    self.cut = True
            if found:
                after = found[-1].seq
            elif await last(self._broker, self._subject, self._stream) <= after:
                break
            else:
                await asyncio.sleep(LAG_WAIT)
        return list(records)

    async def _from(self, seq: int) -> int:
        request = msgspec.json.encode({"next_by_subj": self._subject, "seq": seq, "batch": 1})
        pending: list[int] = []

        def heard(_subject: bytes, _reply: bytes, _data: bytes, headers: bytes) -> None:
            code = status(headers)
            if code == 0:
                pending.append(int(header(headers, b"Nats-Num-Pending") or 0))
            elif code in (204, 404):
                done.set_result(None)
            else:
                done.set_exception(Unavailable(headers[9:60].decode(errors="replace").strip()))

        subject = f"$JS.API.DIRECT.GET.{self._stream}"
        done: asyncio.Future[None] = self._broker.converse(subject, request, heard, timeout=PAGE_TIMEOUT)
        await done
        return pending[0] + 1 if pending else 0


async def _search(messages: _Messages, before: int, wanted: int) -> tuple[int, int]:
    """A sequence from which on `wanted` messages stand, not many more, and how many; 1 where there are fewer."""
    enough, width = 1, 2 * wanted
    number = await messages.count(1)
    if number <= ROOM * wanted:
        return 1, number
    few = before
    while (start := before - width) > 1:
        here = await messages.count(start)
        if here >= wanted:
            enough, number = start, here
            break
        few, width = start, 2 * width
    while number > ROOM * wanted and few - enough > 1:
        middle = (enough + few) // 2
        here = await messages.count(middle)
        if here >= wanted:
            enough, number = middle, here
        else:
            few = middle
    return enough, number


class _Answer(msgspec.Struct):
    class _Message(msgspec.Struct):
        data: str = ""

    class _Error(msgspec.Struct):
        err_code: int = 0
        description: str = ""

    message: _Message | None = None
    error: _Error | None = None


_answer = msgspec.json.Decoder(_Answer)


async def _at(broker: Broker, seq: int, stream: str) -> bytes | None:
    request = msgspec.json.encode({"seq": seq})
    answer = _answer.decode((await broker.request(f"$JS.API.STREAM.MSG.GET.{stream}", request)).data)
    if answer.message:
        return base64.b64decode(answer.message.data)
    if answer.error and answer.error.err_code == NO_MESSAGE:
        return None
    raise Unavailable(answer.error.description if answer.error else "no answer")
