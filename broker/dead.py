"""Dead letters: what could not be accepted, with the reason, as one JSON object."""

import hashlib
from base64 import b64decode, b64encode
from itertools import islice
from typing import Any

import msgspec
from msgspec import Struct

from broker import points
from broker.append import Append, append
from broker.connect import Broker
from broker.delivery import Delivery
from contracts import events
from contracts.cloudevents import header_lines
from contracts.subjects import dead

KEPT_DATA = 256 * 1024
KEPT_HEADERS = 64
KEPT_VALUE = 2048


class Letter(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message of INGEST that was refused, or one of the log whose turn failed.

    `data` is base64, of the first 256 KiB; `size` tells how long it was. `id` is derived from the message's place: a
    letter that is there twice is the same letter.
    """

    id: str
    tenant: str
    reason: str
    error: str
    subject: str
    headers: dict[str, str]
    data: str
    size: int
    received_at: str
    ingest_sequence: int | None = None
    log_sequence: int | None = None
    session_id: str | None = None
    message_id: str | None = None

    @property
    def payload(self) -> bytes:
        """What is kept of the message. Raises ValueError where it is no base64."""
        return b64decode(self.data, validate=True)


def letter(tenant: str, refused: Delivery, reason: str, error: str, **more: Any) -> Letter:
    """The letter for a message that was refused, or whose turn failed."""
    place = f"dead\0{tenant}\0{refused.seq}\0{refused.stored_at!r}"
    return Letter(
        id=hashlib.sha256(place.encode()).hexdigest()[:32],
        tenant=tenant,
        reason=reason,
        error=error,
        subject=refused.subject,
        headers=_headers(refused.headers),
        data=b64encode(refused.data[:KEPT_DATA]).decode(),
        size=len(refused.data),
        received_at=events.timestamp(refused.stored_at),
        **more,
    )


async def send(broker: Broker, what: Letter, *, deadline: float | None = None) -> None:
    """Store a letter; the same one again within two minutes is stored once. Raises what `append` raises."""
    points.reach("append:letter", "before")
    await append(broker, Append(dead(what.tenant), msgspec.json.encode(what), what.id), deadline=deadline)
    points.reach("append:letter", "after")


def _headers(block: bytes) -> dict[str, str]:
    """The headers, cut; what a name stands for that is given twice is joined by commas."""
    kept: dict[str, str] = {}
    for name, raw in islice(header_lines(block), KEPT_HEADERS):
        name, value = name[:KEPT_VALUE], raw.decode(errors="replace")[:KEPT_VALUE]
        kept[name] = f"{kept[name]}, {value}" if name in kept else value
    return kept
