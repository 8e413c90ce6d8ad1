"""Roster: the rules of presence, as one edge applies them. No clock, no connection.

Only an edge itself says who is connected to it. A connection does not count as long as one that replaces it is
there, so a takeover holds wherever it is known, and reaches the replaced one's edge with the next state if its
message is lost. Two edges may fill a session's last place at the same moment: then the newest beyond the limit go,
each from its own edge. A connection older than `limit` others have to be is never among them, whatever an edge
has not heard yet.
"""

from collections.abc import Iterable

from msgspec import Struct, field

from contracts.errors import Code, MillraceError
from edge.presence import gossip
from edge.presence.entry import Entry, Place, Takeover
from edge.presence.gossip import Ask, Beat, Bye, Change, Message, State, Told
from edge.presence.places import Places

FORGOTTEN_AFTER = 3
"""Beats that an edge may miss before its connections count no more."""

REPLACED = "replaced"


class Peer(Struct):
    """Another edge, as far as it is known. Version -1: nothing is."""

    heard: float
    version: int = -1
    asked: float | None = None
    places: dict[str, Place] = {}
    lags: dict[str, float] = {}
    parts: dict[int, State] = field(default_factory=dict)


class Roster:
    """Who is connected, here and elsewhere. `limit`: connections a session may have, 0 for any number.

    What follows from a call is left in three places for the caller to take: `outgoing` (to one edge, or to all where
    that is None), `evictions` of this edge's own connections, and `suspects`, the sessions to `judge` in a moment.
    """

    def __init__(self, edge: str, limit: int, beat: float) -> None:
        self.edge = edge
        self.limit = limit
        self.places = Places()
        self.own: dict[str, Place] = {}
        self.peers: dict[str, Peer] = {}
        self.version = 0
        self.outgoing: list[tuple[str | None, Message]] = []
        self.evictions: list[tuple[Entry, str]] = []
        self.suspects: set[tuple[str, str]] = set()
        self._beat = beat
        self._beaten: float | None = None

    def enter(self, entry: Entry, takeover: Takeover | None) -> None:
        """Take a place, and those of whom it replaces. Raises MillraceError `connection_limit` where there is none."""
        there = [place for place in self.places.of_session(entry.session) if place.entry.key != entry.key]
        surplus = len(there) + 1 - self.limit if self.limit else 0
        if surplus > 0 and not takeover:
            retry_after = FORGOTTEN_AFTER * self._beat  # by then those of an edge that was killed count no more
            raise MillraceError(Code.CONNECTION_LIMIT, retry_after=retry_after, limit=self.limit)
        replaced = {place.entry.key for place in (there if takeover == "all" else there[: max(surplus, 0)])}
        if replaced:  # also whom these replace: their edge may not have heard of it before these are gone
            counting = {place.entry.key for place in there} - replaced
            replaced = {place.entry.key for place in self.places.in_session(entry.session)} - counting - {entry.key}
        old = self.own.get(entry.key)
        if old:
            self._drop(old)
        place = Place(entry, self.edge, tuple(sorted(replaced)))
        self.own[entry.key] = place
        self.places.add(place)
        self._changed((place,), ((entry.key,) if old else ()) + self._replace(place))

    def leave(self, entry: Entry) -> None:
        """Give the place back; nothing happens where it is not taken any more."""
        place = self.own.get(entry.key)
        if place and place.entry == entry:
            self._drop(place)
            self._changed((), (entry.key,))

    def judge(self, session: tuple[str, str]) -> None:
        """Evict those of this edge that are beyond the limit, counted over all edges: the newest."""
        beyond = self.places.of_session(session)[self.limit :] if self.limit else []
        mine = [place for place in beyond if place.edge == self.edge]
        for place in mine:
            self._drop(place)
            self.evictions.append((place.entry, Code.CONNECTION_LIMIT))
        if mine:
            self._changed((), tuple(place.entry.key for place in mine))

    def beat(self, now: float, lags: dict[str, float], *, hello: bool = False) -> None:
        """Show to be alive, every `beat` seconds, and forget whom nothing was heard of.

        An edge that was paused itself does not judge the others by that: what they said is yet to be read.
        """
        if self._beaten is not None and now - self._beaten > 2 * self._beat:
            for peer in self.peers.values():
                peer.heard = now
        self._beaten = now
        for edge, peer in tuple(self.peers.items()):
            if now - peer.heard >= FORGOTTEN_AFTER * self._beat:
                self._forget(edge)
        self.outgoing.append((None, Beat(self.edge, self.version, lags, hello)))

    def close(self) -> None:
        """Say that nobody is connected here any more."""
        self.outgoing.append((None, Bye(self.edge)))

    def lag(self, place: Place) -> float:
        """For how many seconds a connection of another edge was behind, when that edge last told."""
        peer = self.peers.get(place.edge)
        return peer.lags.get(place.entry.key, 0.0) if peer else 0.0

    def receive(self, message: Message, now: float) -> None:
        """Take in what another edge told."""
        if message.edge == self.edge:
            return
        if isinstance(message, Bye):
            self._forget(message.edge)
            return
        peer = self.peers.setdefault(message.edge, Peer(now))
        peer.heard = now
        match message:
            case Beat():
                peer.lags = message.lags
                if message.hello:
                    self.outgoing.append((message.edge, Beat(self.edge, self.version)))
                self._ask(message, peer, now)
            case Change():
                if message.version == peer.version + 1:
                    peer.version = message.version
                    self._apply(message.edge, peer, message.entered, message.left)
                else:
                    self._ask(message, peer, now)
            case Ask():
                states = gossip.state(self.edge, self.version, self.own.values())
                self.outgoing += [(message.edge, state) for state in states]
            case State():
                self._gather(message, peer)

    def _ask(self, message: Beat | Change, peer: Peer, now: float) -> None:
        """Ask for everything where something is missing; not again before that had time to come."""
        if message.version > peer.version and (peer.asked is None or now - peer.asked >= self._beat / 2):
            peer.asked = now
            self.outgoing.append((message.edge, Ask(self.edge)))

    def _gather(self, state: State, peer: Peer) -> None:
        if state.version <= peer.version:
            return
        if any(part.version != state.version for part in peer.parts.values()):
            peer.parts.clear()
        peer.parts[state.part] = state
        if len(peer.parts) < state.parts:
            return
        entered = [told for part in peer.parts.values() for told in part.entered]
        peer.parts.clear()
        peer.version, peer.asked = state.version, None
        self._apply(state.edge, peer, entered, tuple(peer.places))

    def _apply(self, edge: str, peer: Peer, entered: Iterable[Told], left: Iterable[str]) -> None:
        touched = set()
        for key in left:
            if gone := peer.places.pop(key, None):
                self.places.remove(gone)
                touched.add(gone.entry.session)
        for told in entered:
            place = Place(told.entry, edge, told.replaces)
            if self.places.add(place):
                peer.places[told.entry.key] = place
                touched.add(told.entry.session)
                if replaced := self._replace(place):
                    self._changed((), replaced)
        if self.limit:
            self.suspects |= {session for session in touched if len(self.places.of_session(session)) > self.limit}

    def _replace(self, place: Place) -> tuple[str, ...]:
        """The keys of those of this edge that `place` replaces: they are gone."""
        mine = [self.own[key] for key in place.replaces if key in self.own]
        for replaced in mine:
            self._drop(replaced)
            self.evictions.append((replaced.entry, REPLACED))
        return tuple(replaced.entry.key for replaced in mine)

    def _drop(self, place: Place) -> None:
        del self.own[place.entry.key]
        self.places.remove(place)

    def _changed(self, entered: tuple[Place, ...], left: tuple[str, ...]) -> None:
        self.version += 1
        self.outgoing.append((None, Change(self.edge, self.version, tuple(map(gossip.told, entered)), left)))

    def _forget(self, edge: str) -> None:
        peer = self.peers.pop(edge, None)
        if peer:
            for place in peer.places.values():
                self.places.remove(place)
