"""Credentials: what a request shows to say who makes it."""

from collections.abc import Mapping
from typing import Self

from msgspec import Struct


class Credentials(Struct, frozen=True):
    """A token, an API key or a ticket; none of them is ever shown."""

    token: str | None = None
    api_key: str | None = None
    ticket: str | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str], query: Mapping[str, str]) -> Self:
        """What a request shows, whose header names are found in any spelling.

        The first of these counts and the others do not: `Authorization: Bearer`, `X-API-Key`, `?ticket=`, `?token=`.
        """
        if token := _bearer(headers.get("authorization")):
            return cls(token=token)
        if api_key := headers.get("x-api-key", "").strip():
            return cls(api_key=api_key)
        if ticket := query.get("ticket"):
            return cls(ticket=ticket)
        return cls(token=query.get("token") or None)

    def __repr__(self) -> str:
        """Hide everything but what there is."""
        kinds = [name for name in self.__struct_fields__ if getattr(self, name)]
        return f"Credentials({', '.join(kinds)})"


def _bearer(authorization: str | None) -> str | None:
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
