"""Kept: the fold of a session's turns as it is kept beside the log, to begin the next fold from. A cache."""

from typing import Any

import msgspec
from msgspec import Struct

from contracts.session import Session
from contracts.view import packed, unpacked

FORMAT = 2
"""Of what is kept. Another one is passed over."""


class KeptTurns(Struct, frozen=True, kw_only=True):
    """What an agent runner keeps: of the log with that epoch, every fact up to `upto` taken in.

    `more` is the agent runner's own; tool runners need the session only.
    """

    format: int
    epoch: str
    upto: int
    session: Session
    ended: list[Any]
    more: msgspec.Raw


_decoder = msgspec.msgpack.Decoder(KeptTurns)


def encode(session: Session, epoch: str, upto: int, more: object) -> bytes:
    """The bytes to be kept. Raises OverflowError, TypeError or ValueError for what JSON holds and this cannot."""
    return msgspec.msgpack.encode(
        KeptTurns(
            format=FORMAT,
            epoch=epoch,
            upto=upto,
            session=msgspec.structs.replace(session, ended={}),
            ended=[packed(message_id) for message_id in session.ended],
            more=msgspec.Raw(msgspec.msgpack.encode(more)),
        )
    )


def decode(stored: bytes, epoch: str) -> KeptTurns | None:
    """What was kept; None for what is none, or is of another log or format."""
    try:
        kept = _decoder.decode(stored)
        if (kept.format, kept.epoch) != (FORMAT, epoch):
            return None
        kept.session.ended = dict.fromkeys(map(unpacked, kept.ended), "completed")
    except (msgspec.DecodeError, ValueError):
        return None
    return kept


def session_of(stored: bytes, epoch: str) -> tuple[Session, int] | None:
    """The session that was kept and how far it goes."""
    kept = decode(stored, epoch)
    return (kept.session, kept.upto) if kept else None
