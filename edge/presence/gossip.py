"""Gossip: what the edges tell one another about who is connected."""

import logging
from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from edge.presence.entry import Entry, Place

logger = logging.getLogger(__name__)

PART_BYTES = 128 * 1024
"""About the size of one part of an edge's whole state; well below any broker's `max_payload`."""

Edge = Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
"""An edge's id: part of a subject."""

Version = Annotated[int, Meta(ge=0)]


class Told(Struct, frozen=True, omit_defaults=True):
    """A connection that entered, and the keys of those that it replaces."""

    entry: Entry
    replaces: tuple[str, ...] = ()


class Beat(Struct, frozen=True, tag="beat", omit_defaults=True):
    """Still there, at this version. `lags` (seconds, by key) of those that lag; `hello`: beat back at once."""

    edge: Edge
    version: Version
    lags: dict[str, float] = {}
    hello: bool = False


class Change(Struct, frozen=True, tag="change", omit_defaults=True):
    """What led to this version from the one before it."""

    edge: Edge
    version: Version
    entered: tuple[Told, ...] = ()
    left: tuple[str, ...] = ()


class Ask(Struct, frozen=True, tag="ask"):
    """Told to one edge: tell me everything."""

    edge: Edge


class State(Struct, frozen=True, tag="state", omit_defaults=True):
    """Told to one edge: one part of everybody who is connected at this version."""

    edge: Edge
    version: Version
    parts: Annotated[int, Meta(ge=1)]
    part: Annotated[int, Meta(ge=0)] = 0
    entered: tuple[Told, ...] = ()


class Bye(Struct, frozen=True, tag="bye"):
    """Nobody is connected any more, and nothing more will be told."""

    edge: Edge


Message = Beat | Change | Ask | State | Bye

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def encode(message: Message) -> bytes:
    """A message as it travels."""
    return _encoder.encode(message)


def decode(data: bytes) -> Message | None:
    """The message, or None for what cannot be understood: a newer edge may say more than this one knows."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        logger.warning("gossip not understood", extra={"reason": str(error)})
        return None


def told(place: Place) -> Told:
    """A place as its edge tells it."""
    return Told(place.entry, place.replaces)


def state(edge: str, version: int, places: Iterable[Place]) -> Iterator[State]:
    """Everything, in parts of about PART_BYTES; one part where there is nothing."""
    parts: list[list[Told]] = [[]]
    size = 0
    for place in places:
        one = told(place)
        size += len(_encoder.encode(one))
        if size > PART_BYTES and parts[-1]:
            parts.append([])
            size = 0
        parts[-1].append(one)
    for number, part in enumerate(parts):
        yield State(edge, version, len(parts), number, tuple(part))
