"""Entry: one connection's place in one session."""

from typing import Literal

from msgspec import Struct

Takeover = Literal["true", "all"]
"""`true`: the oldest connection makes room where the session is full; `all`: every other one goes."""


class Entry(Struct, frozen=True):
    """One connection in one session. A connection that follows many sessions has an entry in each.

    `since` is `started` as an RFC 3339 timestamp; `started` is the broker's time in Unix seconds.
    """

    connection_id: str
    tenant: str
    session_id: str
    user_id: str
    transport: str
    device: str | None
    since: str
    started: float

    @property
    def key(self) -> str:
        """What names this entry among those of all edges."""
        return f"{self.connection_id}/{self.session_id}"

    @property
    def session(self) -> tuple[str, str]:
        """The session that it is in: the tenant and the session's id."""
        return self.tenant, self.session_id


class Place(Struct, frozen=True):
    """An entry as its edge tells it. Those that it `replaces` (by key) do not count as long as it is there."""

    entry: Entry
    edge: str
    replaces: tuple[str, ...] = ()

    @property
    def rank(self) -> tuple[float, str]:
        """The order in which connections came: the same on every edge. The last ones go where there are too many."""
        return self.entry.started, self.entry.key
