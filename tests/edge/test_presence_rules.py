"""The rules of presence, without broker or clock: what edges conclude from whatever reaches them."""

import random

import pytest

from contracts.errors import Code, MillraceError
from contracts.events import timestamp
from edge.presence import gossip
from edge.presence.entry import Entry, Place, Takeover
from edge.presence.gossip import Ask, Beat, Bye, Change, Message, State
from edge.presence.roster import Roster
from tests.edge.rosters import EDGES, LIMIT, Net, entry


def test_every_edge_knows_at_once_who_entered_and_left_another() -> None:
    net = Net()
    net[0].enter(entry("x"), None)
    net.everything()
    assert [net.keys(edge) for edge in range(3)] == [["x"]] * 3
    net[0].leave(entry("x"))
    net.everything()
    assert not any(net[edge].places.has_session(("acme", "s1")) for edge in range(3))


def test_a_full_session_is_full_on_every_edge() -> None:
    """Issue 3: counted over all edges; refused with the limit and when to try again."""
    net = Net()
    for edge in (0, 1):
        net[edge].enter(entry(f"x{edge}", edge), None)
        net.everything()
    with pytest.raises(MillraceError) as refused:
        net[2].enter(entry("y"), None)
    assert refused.value.code == Code.CONNECTION_LIMIT
    assert refused.value.details == {"retry_after": 3.0, "limit": LIMIT}
    net[2].enter(entry("y", session_id="s2"), None)
    net.everything()
    assert net.keys(0) == ["x0", "x1"]
    assert net.keys(0, "s2") == ["y"]


def test_a_limit_of_zero_limits_nothing() -> None:
    net = Net(limit=0)
    for number in range(20):
        net[number % 3].enter(entry(f"x{number:02}", number), "true")
    net.settle()
    assert len(net.keys(1)) == 20
    assert net.evicted == []


@pytest.mark.parametrize(("takeover", "left"), [("true", ["x1", "y"]), ("all", ["y"])])
def test_a_takeover_evicts_the_oldest_or_all_wherever_they_are(takeover: Takeover, left: list[str]) -> None:
    net = Net()
    for edge in (0, 1):
        net[edge].enter(entry(f"x{edge}", edge), None)
        net.everything()
    net[2].enter(entry("y", 2), takeover)
    assert net.keys(2) == left, "it counts no more, although its edge has not heard of it"
    net.everything()
    assert [net.keys(edge) for edge in range(3)] == [left] * 3
    assert sorted(net.evicted) == [(f"{gone}/s1", "replaced") for gone in ("x0", "x1") if gone not in left]
    assert all(len(net[edge].places) == len(left) for edge in range(3))


def test_a_takeover_where_there_is_room_evicts_nobody() -> None:
    net = Net()
    net[0].enter(entry("x"), None)
    net.everything()
    net[1].enter(entry("y", 1), "true")
    net.everything()
    assert net.keys(0) == ["x", "y"]
    assert net.evicted == []


def test_a_takeover_that_is_itself_taken_over_still_evicts_whom_it_replaced() -> None:
    """The edge of the first connection may hear of the second only when the third has replaced it."""
    net = Net()
    net[0].enter(entry("x"), None)
    net.everything()
    net.lossy.add(EDGES[0])
    net[1].enter(entry("y", 1), "all")
    net.everything()
    net[2].enter(entry("z", 2), "all")
    net.everything()
    net.settle()
    assert [net.keys(edge) for edge in range(3)] == [["z"]] * 3
    assert sorted(net.evicted) == [("x/s1", "replaced"), ("y/s1", "replaced")]


def test_who_enters_at_the_same_moment_beyond_the_limit_goes_newest_first() -> None:
    net = Net()
    for edge in range(3):
        net[edge].enter(entry(f"x{edge}", 10 - edge), None)
    net.everything()
    net.judge()
    net.everything()
    assert [net.keys(edge) for edge in range(3)] == [["x2", "x1"]] * 3
    assert net.evicted == [("x0/s1", Code.CONNECTION_LIMIT)]


def test_who_is_just_leaving_costs_nobody_a_place() -> None:
    """A connection that is gone is heard of a moment later than the one that comes in its stead."""
    net = Net()
    for edge in range(3):
        net[edge].enter(entry(f"x{edge}", edge), None)
    net.everything()
    net[0].leave(entry("x0"))
    net.everything()
    net.judge()
    assert net.keys(1) == ["x1", "x2"]
    assert net.evicted == []


def test_an_edge_of_which_nothing_is_heard_is_forgotten_and_its_places_are_free() -> None:
    """Issue 3: freed when an edge is killed."""
    net = Net()
    net[0].enter(entry("x0"), None)
    net[0].enter(entry("x1"), None)
    net.everything()
    del net.rosters[EDGES[0]]
    net.beat()
    net.beat()
    assert net.keys(1) == ["x0", "x1"]
    net.beat()
    assert net.keys(1) == []
    net[1].enter(entry("y"), None)


def test_an_edge_that_says_goodbye_is_forgotten_at_once() -> None:
    net = Net()
    net[0].enter(entry("x"), None)
    net.everything()
    net[0].close()
    net.everything()
    assert net.keys(1) == net.keys(2) == []


def test_an_edge_that_was_paused_is_accepted_again_and_has_forgotten_nobody() -> None:
    net = Net()
    net[0].enter(entry("x", 1), None)
    net[1].enter(entry("y", 2), None)
    net.everything()
    net.frozen.add(EDGES[0])
    for _ in range(10):
        net.beat()
    assert net.keys(1) == ["y"]
    net.frozen.clear()
    net.now += 1
    net[0].beat(net.now, {})
    assert net.keys(0) == ["x", "y"], "its own pause says nothing of the others"
    net.settle()
    assert [net.keys(edge) for edge in range(3)] == [["x", "y"]] * 3
    assert net.evicted == []


def test_an_edge_hears_what_it_missed() -> None:
    net = Net()
    net[0].enter(entry("x"), None)
    net.everything()
    net.lossy.add(EDGES[1])
    net[0].leave(entry("x"))
    net[0].enter(entry("y"), None)
    net.everything()
    net.lossy.clear()
    assert net.keys(1) == ["x"]
    net[0].enter(entry("z", 1), None)
    net.everything()
    assert net.keys(1) == ["y", "z"], "the gap in the versions shows it"
    net.lossy.add(EDGES[2])
    net[0].leave(entry("z", 1))
    net.everything()
    net.lossy.clear()
    net.beat()
    assert net.keys(2) == ["y"], "so does a beat"


def test_hello_is_answered_with_a_beat_to_the_one_who_said_it() -> None:
    """Whoever reconnects does not wait for the next beats to learn what it missed."""
    net = Net()
    net[0].receive(Beat(EDGES[1], 0, hello=True), 0.0)
    assert net[0].outgoing == [(EDGES[1], Beat(EDGES[0], 0))]


def test_a_large_state_travels_in_parts_and_holds_when_all_are_there() -> None:
    net = Net(limit=0, edges=EDGES[:1])
    everybody = [entry(f"x{number:04}", number, session_id=f"s{number}") for number in range(2500)]
    for one in everybody:
        net[0].enter(one, None)
    net.send()
    states = list(gossip.state(EDGES[0], net[0].version, net[0].own.values()))
    assert len(states) > 1
    assert all(len(gossip.encode(state)) < 2 * gossip.PART_BYTES for state in states)
    other = Roster(EDGES[1], 0, 1.0)
    random.Random(1).shuffle(states)
    for state in states[1:]:
        other.receive(state, 0.0)
        assert len(other.places) == 0
    other.receive(states[0], 0.0)
    assert [place.entry for place in other.places.of_tenant("acme")] == everybody


def test_an_older_state_changes_nothing() -> None:
    net = Net()
    net[0].enter(entry("x"), None)
    old = list(gossip.state(EDGES[0], net[0].version, net[0].own.values()))
    net[0].leave(entry("x"))
    net.everything()
    net[1].receive(old[0], net.now)
    assert net.keys(1) == []


def test_a_connection_that_enters_again_takes_its_own_place() -> None:
    """A session that is left and followed again on one socket: the first leaving comes late and changes nothing."""
    net = Net()
    net[0].enter(entry("x", 1), None)
    net[0].enter(entry("y", 2), None)
    net[0].enter(entry("x", 3), None)
    net[0].leave(entry("x", 1))
    net.everything()
    assert net.keys(0) == net.keys(2) == ["y", "x"]


def test_users_and_tenants_are_told_apart() -> None:
    """Promise P10."""
    roster = Roster(EDGES[0], LIMIT, 1.0)
    roster.enter(entry("x"), None)
    roster.enter(entry("y", user_id="bob"), None)
    roster.enter(Entry("z", "globex", "s1", "ann", "sse", None, timestamp(0.0), 0.0), None)
    names = [
        [place.entry.connection_id for place in places]
        for places in (
            roster.places.of_session(("acme", "s1")),
            roster.places.of_user("acme", "ann"),
            roster.places.of_tenant("acme"),
            roster.places.of_tenant("globex"),
        )
    ]
    assert names == [["x", "y"], ["x"], ["x", "y"], ["z"]]


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\xff", b"[]", b"null", b"[" * 100_000, b'{"type":"later","edge":"%b"}' % (b"a" * 32)),
        *(b'{"type":"ask","edge":"a.b"}', b'{"type":"ask","edge":">"}', b'{"type":"ask","edge":"%b\\n"}' % (b"a" * 32)),
        b'{"type":"beat","edge":"%b","version":-2}' % (b"a" * 32),
        b'{"type":"state","edge":"%b","version":1,"parts":0}' % (b"a" * 32),
        b'{"type":"change","edge":"%b","version":1,"entered":[{"entry":{"connection_id":1}}]}' % (b"a" * 32),
    ],
)
def test_what_is_not_gossip_is_ignored(data: bytes) -> None:
    assert gossip.decode(data) is None


@pytest.mark.parametrize(
    "message",
    [
        Beat(EDGES[1], 7, {"nobody": 1.0}),
        Change(EDGES[1], 1, (), ("nobody/s1",)),
        Change(EDGES[1], 9, (gossip.Told(entry("x")),), ()),
        State(EDGES[1], 9, 1, 5, (gossip.Told(entry("mine"), ("nobody/s1",)),) * 2),
        Ask(EDGES[1]),
        Bye(EDGES[1]),
    ],
)
def test_gossip_that_makes_no_sense_takes_nothing_away(message: Message) -> None:
    roster = Roster(EDGES[0], LIMIT, 1.0)
    roster.enter(entry("mine"), None)
    roster.receive(message, 0.0)
    roster.receive(Bye(EDGES[1]), 0.0)
    assert roster.places.of_session(("acme", "s1")) == [Place(entry("mine"), EDGES[0])]
