"""Presence: who is connected to which session, on every edge; counted together, told by gossip, never stored.

    entry.py     Entry: one connection's place in one session
    gossip.py    what the edges tell one another
    places.py    all known places, found by session, user or tenant
    roster.py    the rules: who may enter, who must go, whom to believe; pure
    presence.py  Presence: the rules with a broker and a clock

Only an edge itself says who is connected to it, under a version that grows by one with each change. Whoever misses
a change sees it at the next one, or at the next beat, and asks for everything.
"""

from edge.presence.entry import Entry, Takeover
from edge.presence.presence import Presence

__all__ = ["Entry", "Presence", "Takeover"]
