"""Cursor: how far a connection was sent each of its topics, and in which incarnation of the log.

A sequence alone would be wrong once the log is restored: numbers come again. So a cursor carries the
epoch. It is opaque to clients: `<epoch>.<position>[.<position>…]`, one position a topic, in the order in
which the connection lists its topics.
"""

import re
from typing import Self

from msgspec import Struct

_CURSOR = re.compile(r"[A-Za-z0-9]{1,64}(\.(0|[1-9a-z][0-9a-z]{0,12})){1,8}")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def base36(number: int) -> str:
    """A position as it stands in a cursor."""
    digits = ""
    while number >= 36:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return _DIGITS[number] + digits


class Cursor(Struct, frozen=True):
    """`positions[i]`: the last sequence of the connection's topic i that was sent; 0 is the beginning."""

    epoch: str
    positions: tuple[int, ...]

    def __str__(self) -> str:
        return ".".join([self.epoch, *map(base36, self.positions)])

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a cursor back. Raises ValueError for what is none."""
        if not _CURSOR.fullmatch(text):
            raise ValueError(f"not a cursor: {text!r:.100}")
        epoch, *positions = text.split(".")
        return cls(epoch, tuple(int(position, 36) for position in positions))
