"""Rosters of edges, and a net between them that loses and delays what it is told to."""

from collections import defaultdict

from contracts.events import timestamp
from edge.presence import gossip
from edge.presence.entry import Entry
from edge.presence.roster import Roster

LIMIT = 2
EDGES = ("a" * 32, "b" * 32, "c" * 32)


def entry(name: str, started: float = 0.0, session_id: str = "s1", user_id: str = "ann") -> Entry:
    return Entry(name, "acme", session_id, user_id, "websocket", None, timestamp(started), started)


class Net:
    """Rosters, and what is on its way between them: in order from one to another, or lost."""

    def __init__(self, limit: int = LIMIT, edges: tuple[str, ...] = EDGES) -> None:
        self.now = 0.0
        self.rosters = {edge: Roster(edge, limit, 1.0) for edge in edges}
        self.wires: dict[tuple[str, str], list[bytes]] = defaultdict(list)
        self.lossy: set[str] = set()
        self.frozen: set[str] = set()
        self.evicted: list[tuple[str, str]] = []
        self.suspects: set[tuple[str, tuple[str, str]]] = set()
        for roster in self.rosters.values():
            roster.beat(self.now, {}, hello=True)
        self.everything()

    def __getitem__(self, edge: int) -> Roster:
        return self.rosters[EDGES[edge]]

    def send(self) -> None:
        """Put what the rosters want told on the wires; what a lossy edge tells or is told is lost."""
        for edge, roster in self.rosters.items():
            outgoing, roster.outgoing = roster.outgoing, []
            for to, message in outgoing:
                for other in self.rosters if to is None else [to]:
                    if other in self.rosters and not {edge, other} & self.lossy:
                        self.wires[edge, other].append(gossip.encode(message))
            self.evicted += [(entry.key, reason) for entry, reason in roster.evictions]
            roster.evictions = []
            self.suspects |= {(edge, session) for session in roster.suspects}
            roster.suspects = set()

    def deliver(self, wire: tuple[str, str]) -> None:
        """Let the first message of a wire arrive."""
        message = gossip.decode(self.wires[wire].pop(0))
        assert message
        if receiver := self.rosters.get(wire[1]):
            receiver.receive(message, self.now)
        self.send()

    def everything(self) -> None:
        """Let all that is on its way arrive, and what follows from it."""
        self.send()
        while wires := [wire for wire, waiting in self.wires.items() if waiting and wire[1] not in self.frozen]:
            self.deliver(wires[0])

    def judge(self) -> None:
        """Let the moment pass after which too many connections are too many."""
        suspects, self.suspects = self.suspects, set()
        for edge, session in sorted(suspects):
            if edge in self.rosters:
                self.rosters[edge].judge(session)
        self.send()

    def beat(self, seconds: float = 1.0) -> None:
        """Time passes, and everybody shows to be alive."""
        self.now += seconds
        for edge, roster in self.rosters.items():
            if edge not in self.frozen:
                roster.beat(self.now, {})
        self.everything()

    def settle(self) -> None:
        """Everything arrives from now on, until nobody has anything more to say."""
        self.lossy.clear()
        for _ in range(6):
            self.beat()
            self.judge()
            self.everything()

    def keys(self, edge: int, session_id: str = "s1") -> list[str]:
        return [place.entry.connection_id for place in self[edge].places.of_session(("acme", session_id))]
