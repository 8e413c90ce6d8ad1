"""Places: everybody who is known to be connected, found by session, user or tenant without looking at all."""

from collections import Counter
from collections.abc import Iterable

from edge.presence.entry import Place

Group = dict[tuple[str, ...], dict[str, Place]]


class Places:
    """The places of every edge, one a key. Nothing is kept of a session, user or tenant without any."""

    def __init__(self) -> None:
        self._all: dict[str, Place] = {}
        self._sessions: Group = {}
        self._users: Group = {}
        self._tenants: Group = {}
        self._replaced: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._all)

    def get(self, key: str) -> Place | None:
        """The place of that key."""
        return self._all.get(key)

    def add(self, place: Place) -> bool:
        """Add it, or return False where its key is taken."""
        key = place.entry.key
        if key in self._all:
            return False
        self._all[key] = place
        for group, of in self._groups(place):
            group.setdefault(of, {})[key] = place
        self._replaced.update(place.replaces)
        return True

    def remove(self, place: Place) -> None:
        """Remove what was added."""
        key = place.entry.key
        del self._all[key]
        for group, of in self._groups(place):
            del group[of][key]
            if not group[of]:
                del group[of]
        for replaced in place.replaces:
            self._replaced[replaced] -= 1
            if not self._replaced[replaced]:
                del self._replaced[replaced]

    def _groups(self, place: Place) -> tuple[tuple[Group, tuple[str, ...]], ...]:
        entry = place.entry
        return (
            (self._sessions, entry.session),
            (self._users, (entry.tenant, entry.user_id)),
            (self._tenants, (entry.tenant,)),
        )

    def in_session(self, session: tuple[str, str]) -> tuple[Place, ...]:
        """Every place there, also those that are replaced and not gone yet."""
        return tuple(self._sessions.get(session, {}).values())

    def of_session(self, session: tuple[str, str]) -> list[Place]:
        """Those that count, oldest first."""
        return self._counting(self._sessions.get(session, {}).values())

    def of_user(self, tenant: str, user_id: str) -> list[Place]:
        """Those that count, oldest first."""
        return self._counting(self._users.get((tenant, user_id), {}).values())

    def of_tenant(self, tenant: str) -> list[Place]:
        """Those that count, oldest first."""
        return self._counting(self._tenants.get((tenant,), {}).values())

    def has_session(self, session: tuple[str, str]) -> bool:
        """Whether anybody is there."""
        return session in self._sessions

    def _counting(self, places: Iterable[Place]) -> list[Place]:
        return sorted((place for place in places if place.entry.key not in self._replaced), key=lambda p: p.rank)
