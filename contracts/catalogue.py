"""Catalogue: the tools of one server, as the tool runner tells them to those who offer them to models."""

from typing import Any

import msgspec
from msgspec import Struct


class Listed(Struct, frozen=True, omit_defaults=True):
    """A tool. `name` is `server.tool`, `input_schema` a JSON Schema; the hints are its server's own."""

    name: str
    description: str
    input_schema: dict[str, Any]
    read_only: bool = False
    destructive: bool = True
    idempotent: bool = False


class Catalogue(Struct, frozen=True):
    """Every tool of one server, by name."""

    server: str
    tools: tuple[Listed, ...]


_decoder = msgspec.json.Decoder(Catalogue)


def encode(catalogue: Catalogue) -> bytes:
    """The bytes that are stored: the same for the same tools."""
    return msgspec.json.encode(catalogue)


def decode(stored: bytes) -> Catalogue:
    """What is stored. Raises msgspec.DecodeError."""
    return _decoder.decode(stored)
