"""Kept folds: they make joining cheap and decide nothing."""

import asyncio
from typing import Any

import msgspec
import pytest

from contracts import events
from contracts import view as viewing
from contracts.errors import Code, MillraceError
from contracts.subjects import Topic
from contracts.view import View
from edge import folds, history, snapshot
from edge.folds import KEEP_AFTER
from tests.contracts import facts as a
from tests.edge.sessions.writers import Writers, kept_upto, turn, turns, updated, writing
from tests.harness.counted import Counted, counted

pytestmark = pytest.mark.anyio


async def joined(log: Writers, topic: Topic) -> tuple[dict[str, Any], Counted]:
    """The snapshot for somebody who joins now, and what it cost."""
    with counted(log.edge) as cost:
        view, active, _ = await snapshot.take(log.edge, topic)
    return msgspec.to_builtins(view.frame(topic, "cursor", active)), cost


async def folded(log: Writers, topic: Topic) -> dict[str, Any]:
    """The snapshot by every fact, whatever was kept."""
    view, _ = await folds.onwards(log.edge, topic, None, 10**9)
    frame: dict[str, Any] = msgspec.to_builtins(view.frame(topic, "cursor", None))
    return frame


async def plant(log: Writers, topic: Topic, upto: int, epoch: str = "", state: events.SessionState = "active") -> None:
    """Keep a view that is recognised, as if somebody had folded up to there."""
    view = View()
    fact = updated(state, "planted")
    view.apply(upto, fact, events.encode(fact))
    await log.edge.request(topic.state, view.kept(epoch or log.epoch, upto))


def title_of(view: View) -> str | None:
    """Whose view it is."""
    return view.session.about.title if view.session.about else None


async def test_joining_a_session_of_2000_facts_costs_what_joining_one_of_100_costs(log: Writers) -> None:
    """Promise: the snapshot of a session of 100,000 events costs what that of 100 costs."""
    short, long = Topic.session("acme", "short"), Topic.session("acme", "long")
    await log.write(short, *turns(20))
    last = (await log.write(long, *turns(400)))[-1]
    first_frame, first = await joined(log, long)
    assert first.records >= 2000, "nothing was kept: all of it is read"
    await kept_upto(log, long, last)
    _, of_short = await joined(log, short)
    again, of_long = await joined(log, long)
    assert again == first_frame
    assert of_long.requests <= of_short.requests + 1
    assert of_long.records < of_short.records


async def test_joining_stays_cheap_while_the_session_grows(log: Writers, topic: Topic) -> None:
    """Whoever joins keeps what he has folded, as soon as that was much."""
    await log.write(topic, updated(title="t"))
    for part in range(20):
        last = (await log.write(topic, *turns(6, first=6 * part)))[-1]
        frame, cost = await joined(log, topic)
        assert cost.records < 2 + KEEP_AFTER + 30, "at most what was too little to keep, and what came since"
        assert cost.requests <= 8
        if cost.records >= 2 + KEEP_AFTER:  # the kept one, the fact that it ends with, and so many new ones
            await kept_upto(log, topic, last)
    assert frame == await folded(log, topic)
    assert [message["message_id"] for message in frame["messages"]][-2:] == ["m119", "a-m119"]


async def test_a_kept_view_is_what_the_next_fold_begins_from(log: Writers, topic: Topic) -> None:
    """The control of the next test: one that fits is believed."""
    seqs = await log.write(topic, updated(title="true"), a.message("m1"), a.message("m2"))
    await plant(log, topic, seqs[1])
    view, seq = await folds.fold(log.edge, topic)
    assert (title_of(view), seq, list(view.session.turns)) == ("planted", seqs[2], ["m2"])


@pytest.mark.parametrize("what", ["newer", "much newer", "of another tail", "of another epoch", "garbage", "empty"])
async def test_a_kept_view_that_does_not_fit_the_log_is_not_used(log: Writers, topic: Topic, what: str) -> None:
    """Nothing rests on it: after a restore it may be of another history, or of a future that never was."""
    _, second = await log.write(topic, updated(title="true"), a.message("m1"))
    (elsewhere,) = await log.write(Topic.session("acme", "other"), a.message("m1"))
    (third,) = await log.write(topic, a.message("m2"))
    match what:
        case "newer":
            await plant(log, topic, third + 1)
        case "much newer":
            await plant(log, topic, 2**53)
        case "of another tail":
            await plant(log, topic, elsewhere)
        case "of another epoch":
            await plant(log, topic, second, epoch="another")
        case "garbage":
            await log.edge.request(topic.state, b"\x95garbage")
        case "empty":
            await log.edge.request(topic.state, b"")
    view, seq = await folds.fold(log.edge, topic)
    assert (title_of(view), seq, list(view.session.turns)) == ("true", third, ["m1", "m2"])
    frame, _ = await joined(log, topic)
    assert frame["queue"] == ["m1", "m2"]


async def test_a_fold_up_to_a_place_does_not_begin_from_a_later_view(log: Writers, topic: Topic) -> None:
    """What was asked for is what is told, also of a deleted session."""
    seqs = await log.write(topic, updated(title="true"), a.message("m1"), a.message("m2"), updated("deleted"))
    await plant(log, topic, seqs[3], state="deleted")
    view, seq = await folds.fold(log.edge, topic, upto=seqs[1])
    assert (title_of(view), seq, list(view.session.turns)) == ("true", seqs[1], ["m1"])


async def test_a_deleted_session_stays_so_whatever_comes_later(log: Writers, topic: Topic) -> None:
    """Promise: reads answer 404. A kept view of it is final and costs one request."""
    seqs = await log.write(topic, *turns(60), updated("deleted"))
    assert (await folds.fold(log.edge, topic))[0].is_deleted
    await kept_upto(log, topic, seqs[-1])
    await log.write(topic, a.message("late"), updated("active"))
    with counted(log.edge) as cost:
        view, _ = await folds.fold(log.edge, topic)
    assert (view.is_deleted, view.session.turns, cost.requests) == (True, {}, 1)
    with pytest.raises(MillraceError) as refused:
        await history.messages(log.edge, topic, None, 10)
    assert refused.value.code is Code.SESSION_NOT_FOUND


async def test_an_empty_session_has_an_empty_view(log: Writers, topic: Topic) -> None:
    """Our choice: whether it exists is for others to say."""
    view, seq = await folds.fold(log.edge, topic)
    assert (view, seq) == (View(), 0)


async def test_long_messages_are_read_again_and_those_that_the_log_has_no_more_are_left_out(
    log: Writers, topic: Topic
) -> None:
    """A kept view holds their place only."""
    long = "x" * (2 * viewing.LONG)
    said = [msgspec.structs.replace(a.message(f"long{number}"), content=long) for number in range(3)]
    seqs = await log.write(topic, *turns(60), *said, *[a.cancel("nobody")] * 3)
    before, _ = await joined(log, topic)
    await kept_upto(log, topic, seqs[-1])
    frame, _ = await joined(log, topic)
    assert frame == before
    assert [message["content"] for message in frame["messages"]][-3:] == [long] * 3
    await log.operate("PURGE.LOG", filter=topic.fact("message"))
    frame, _ = await joined(log, topic)
    assert [message["message_id"] for message in frame["messages"]][-1] == "a-m59"


@pytest.mark.parametrize("what", ["too large", "beyond 64 bits"])
async def test_a_view_that_cannot_be_kept_costs_a_fold_and_nothing_more(log: Writers, topic: Topic, what: str) -> None:
    """What makes it so is an open turn, and that ends: then it is kept."""
    if what == "too large":
        last_turn = [
            a.message("m"),
            a.turn_start("m"),
            events.Step(**a.BASE, reply_to="m", name="n", result="x" * 600_000),
        ]
    else:
        last_turn = [msgspec.structs.replace(a.message("m"), metadata={"n": 2**64})]
    await log.write(topic, *turns(60), *last_turn)
    frame, _ = await joined(log, topic)
    other = Topic.session("acme", f"{topic.id}-other")
    last = (await log.write(other, *turns(60)))[-1]
    await folds.fold(log.edge, other)
    await kept_upto(log, other, last)  # written after whatever else this edge has written
    assert await folds.kept(log.edge, topic) is None
    assert frame == (await joined(log, topic))[0]
    last = (await log.write(topic, a.turn_end("m")))[-1]
    await folds.fold(log.edge, topic)
    await kept_upto(log, topic, last)


async def test_edges_that_keep_at_once_and_an_older_view_that_comes_last_do_no_harm(log: Writers, topic: Topic) -> None:
    """Each is right; an older one costs a longer read."""
    seqs = await log.write(topic, *turns(80))
    at_once = await asyncio.gather(*(folds.fold(edge, topic) for edge in (log.edge, log.other) * 5))
    assert {seq for _, seq in at_once} == {seqs[-1]}
    await kept_upto(log, topic, seqs[-1])
    older, _ = await folds.onwards(log.other, topic, None, seqs[299])
    await log.other.request(topic.state, older.kept(log.epoch, seqs[299]))
    frame, cost = await joined(log, topic)
    assert cost.records <= 104
    assert frame == await folded(log, topic)


async def test_a_message_that_ended_long_ago_and_is_stored_again_is_found_out(
    log: Writers, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often. A message with the policy `reject` must not be refused because of it."""
    monkeypatch.setattr(viewing, "REMEMBERED", 2)
    again = a.message("m0")
    await log.write(topic, *turns(1), again, *turns(4, first=1), again, a.message("new"), again)
    view, _ = await folds.fold(log.edge, topic)
    assert (view.forgot, list(view.session.turns)) == (True, ["m0", "new"])
    await folds.without_repeats(log.edge, topic, view)
    assert list(view.session.turns) == ["new"]


@pytest.mark.parametrize(("first", "second"), [("default", "cpu"), ("cpu", "default"), ("cpu", "gpu")])
async def test_a_message_that_ended_in_another_group_and_is_stored_again_is_found_out(
    log: Writers, topic: Topic, monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    """Its agent was moved to another group in between."""
    monkeypatch.setattr(viewing, "REMEMBERED", 2)
    await log.write(topic, *turns(5), group=first)
    await log.write(topic, a.message("m0"), a.message("new"), group=second)
    view, _ = await folds.fold(log.edge, topic)
    assert list(view.session.turns) == ["m0", "new"]
    await folds.without_repeats(log.edge, topic, view)
    assert list(view.session.turns) == ["new"]


async def test_without_the_stream_of_kept_views_everything_works_and_is_slower(
    log: Writers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It is a cache: an operator may delete it at any time."""
    async with writing(tmp_path_factory.mktemp("bare")) as bare:
        await bare.operate("DELETE.STATE")
        topic = Topic.session("acme", "s")
        await bare.write(topic, *turns(60), *turn("last"))
        for _ in range(2):
            frame, cost = await joined(bare, topic)
            assert frame == await folded(bare, topic)
            assert cost.records >= 305
        assert bare.edge.connected
        assert not bare.edge.lost.is_set()
