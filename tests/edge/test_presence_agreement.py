"""Presence: whatever happens on the way, the edges agree in the end."""

import contextlib
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import Code, MillraceError
from edge.presence.entry import Entry, Takeover
from edge.presence.roster import Roster
from tests.edge.rosters import LIMIT, Net, entry


class Story:
    """What happens to three edges, at random."""

    def __init__(self, rng: random.Random, takeovers: bool) -> None:
        self.net = Net()
        self.rng = rng
        self.takeovers: list[Takeover | None] = [None, "true", "all"] if takeovers else [None]
        self.entered: list[Entry] = []
        self.left: set[Entry] = set()

    def step(self) -> None:
        """Somebody comes, somebody goes, an edge is cut off or killed, time passes, or a message arrives."""
        net, rng = self.net, self.rng
        roster = rng.choice(list(net.rosters.values()))
        acts = {self.enter: 30, self.leave: 8, self.cut: 6, self.kill: 1, self.pass_time: 10, self.arrive: 45}
        rng.choices(list(acts), list(acts.values()))[0](roster)
        net.send()

    def enter(self, roster: Roster) -> None:
        rng = self.rng
        started = self.net.now + rng.random()
        one = entry(f"x{len(self.entered)}", started, session_id=rng.choice(("s1", "s2")))
        with contextlib.suppress(MillraceError):
            roster.enter(one, rng.choice(self.takeovers))
            self.entered.append(one)

    def leave(self, roster: Roster) -> None:
        if roster.own:
            one = self.rng.choice(list(roster.own.values())).entry
            roster.leave(one)
            self.left.add(one)

    def cut(self, roster: Roster) -> None:
        self.net.lossy ^= {roster.edge}

    def kill(self, roster: Roster) -> None:
        if len(self.net.rosters) > 1:
            self.left |= {place.entry for place in roster.own.values()}
            del self.net.rosters[roster.edge]

    def pass_time(self, _roster: Roster) -> None:
        self.net.judge()
        self.net.now += 1
        for roster in self.net.rosters.values():
            roster.beat(self.net.now, {}, hello=self.rng.random() < 0.2)

    def arrive(self, _roster: Roster) -> None:
        if waiting := [wire for wire, messages in self.net.wires.items() if messages]:
            self.net.deliver(self.rng.choice(waiting))


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False), st.booleans())
def test_edges_agree_in_the_end_and_evict_nobody_without_need(rng: random.Random, takeovers: bool) -> None:
    """Issue 3: whatever is lost, late, cut off or killed. Who goes had `limit` older connections before it."""
    story = Story(rng, takeovers)
    for _ in range(rng.randrange(5, 80)):
        story.step()
    story.net.settle()

    evicted = dict(story.net.evicted)
    assert len(evicted) == len(story.net.evicted), "nobody is evicted twice"
    for session in (("acme", "s1"), ("acme", "s2")):
        tables = [roster.places.of_session(session) for roster in story.net.rosters.values()]
        assert all(table == tables[0] for table in tables)
        assert len(tables[0]) <= LIMIT
        assert {len(roster.places.in_session(session)) for roster in story.net.rosters.values()} == {len(tables[0])}
        came = sorted((one for one in story.entered if one.session == session), key=lambda one: (one.started, one.key))
        assert all(evicted.get(one.key) != Code.CONNECTION_LIMIT for one in came[:LIMIT])
        stayed = [one for one in came if one.key not in evicted and one not in story.left]
        assert [place.entry for place in tables[0]] == stayed
        if not takeovers and not story.left:
            assert stayed == came[:LIMIT]
