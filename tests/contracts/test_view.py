"""The view of a session: what is kept of it is as good as all of its facts, and it does not grow."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import events
from contracts import view as viewing
from contracts.events import AnyEvent
from contracts.session import Session
from contracts.subjects import Topic
from contracts.view import View, shown_as
from tests.contracts import facts as a

TOPIC = Topic.session("acme", "s")
EPOCH = "e1"
LONG = "x" * (viewing.LONG + 1)

unhurried = settings(deadline=None)


def updated(state: events.SessionState = "active", title: str | None = None) -> AnyEvent:
    """What the session has become."""
    return events.SessionUpdated(**a.BASE, user_id="u", title=title, state=state, metadata={"title": title})


def said(message_id: str, content: str = LONG, metadata: dict[str, Any] | None = None) -> AnyEvent:
    """A message with more in it than its id."""
    return msgspec.structs.replace(a.message(message_id), content=content, metadata=metadata)


def workflow(workflow_id: str) -> AnyEvent:
    """How far one of several workflows is."""
    return events.WorkflowProgress(**a.BASE, workflow_id=workflow_id, step="s", progress=0.5)


def turn(message_id: str, answer_id: str = "") -> list[AnyEvent]:
    """A message, its answer and the end."""
    answer_id = answer_id or f"a-{message_id}"
    return [
        a.message(message_id),
        a.turn_start(message_id),
        a.stream_start(answer_id, message_id),
        a.stream_end(answer_id, message_id),
        a.turn_end(message_id),
    ]


histories = a.honest() | st.lists(
    st.one_of(
        a.arbitrary,
        st.builds(said, a.message_ids),
        st.builds(workflow, st.sampled_from(("w1", "w2", "w3"))),
        st.builds(updated, st.sampled_from(("active", "closed", "deleted")), st.none() | st.text(max_size=3)),
    ),
    max_size=40,
)


@contextmanager
def sizes(small: bool) -> Iterator[None]:
    """The sizes as they are, or so small that a short history passes them."""
    with pytest.MonkeyPatch.context() as patch:
        if small:
            for name, size in {"MESSAGES": 3, "WORKFLOWS": 2, "REMEMBERED": 1, "REPEATS": 2}.items():
                patch.setattr(viewing, name, size)
        yield


def fold(facts: list[AnyEvent], view: View | None = None, *, after: int = 0) -> View:
    """The view after those facts, which stand behind sequence `after`; each has an id made of its place."""
    view = view or View()
    for seq, fact in enumerate(facts, after + 1):
        named = msgspec.structs.replace(fact, id=f"e{seq}")
        view.apply(seq, named, events.encode(named))
    return view


def again(view: View, upto: int = 7) -> View:
    """The view as it is read again."""
    read = View.again(view.kept(EPOCH, upto), EPOCH)
    assert read
    assert read[1] == upto
    return read[0]


def shown(view: View, facts: list[AnyEvent]) -> dict[str, Any]:
    """The snapshot of a view; what it has not is read from the facts."""
    view.fill({seq: events.encode(facts[seq - 1]) for seq in view.missing()})
    opened = view.open_answer()
    frame: dict[str, Any] = msgspec.to_builtins(view.frame(TOPIC, "cursor", opened[0] if opened else None))
    for message in frame["messages"]:
        for of_the_place in ("id", "timestamp"):
            message.pop(of_the_place, None)
    return frame


@given(histories, st.integers(0, 40), st.booleans())
@unhurried
def test_a_kept_view_and_the_rest_is_folding_everything(facts: list[AnyEvent], cut: int, small: bool) -> None:
    """Promise: a snapshot is the same, wherever the fold was kept, whatever was stored twice or forgotten."""
    cut = min(cut, len(facts))
    with sizes(small):
        kept, whole = fold(facts[cut:], again(fold(facts[:cut])), after=cut), fold(facts)
        assert shown(kept, facts) == shown(whole, facts)
    assert kept.session.turns == whole.session.turns
    assert kept.session.calls == whole.session.calls
    assert list(kept.session.ended) == list(whole.session.ended)
    assert (kept.repeats, kept.created, kept.forgot) == (whole.repeats, whole.created, whole.forgot)


@given(a.honest(), st.booleans())
@unhurried
def test_what_is_shown_as_running_is_what_runs_also_where_ended_messages_were_forgotten(
    facts: list[AnyEvent], small: bool
) -> None:
    """Our choice: a forgotten message that is stored again waits in vain until the next claim, and never runs."""
    view, truth = View(), Session()
    with sizes(small):
        for seq, fact in enumerate(facts, 1):
            view.apply(seq, fact, events.encode(fact))
            truth.apply(seq, fact)
            running = truth.first if truth.first and truth.turns[truth.first].claim else None
            assert view.frame(TOPIC, "cursor", None).running == running
            assert truth.turns.keys() <= view.session.turns.keys(), "what is open is there in full"


def test_it_stays_as_large_as_it_is_however_long_the_session_is() -> None:
    """Promise: the snapshot of a long session costs what that of a short one costs."""
    view, size = View(), dict[int, int]()
    made = 2 * viewing.REMEMBERED
    for number in range(made):
        facts = [*turn(f"m_{number:032x}"), workflow(f"w{number}"), a.message(f"m_{number:032x}")]
        fold(facts, view, after=number * len(facts))
        if number in (made - 1000, made - 1):
            size[number] = len(view.kept(EPOCH, 1))
    assert len(view.messages) == viewing.MESSAGES + 1
    assert len(view.workflows) == viewing.WORKFLOWS
    assert len(view.repeats) == viewing.REPEATS
    assert len(view.session.ended) == viewing.REMEMBERED
    assert not view.agents
    assert view.more
    first, second = size.values()
    assert abs(second - first) < 2000
    assert second < 256 * 1024


def test_answers_of_ended_turns_are_not_remembered_while_others_wait() -> None:
    """A session in which somebody always waits has no end of answers either."""
    view = fold([a.message("m0")])
    for number in range(20):
        fold([a.message(f"m{number + 1}"), *turn(f"m{number}")[1:]], view, after=1 + 5 * number)
        assert len(view.session.turns) == 1
    assert not view.agents


@pytest.mark.parametrize("ended", [False, True], ids=["open", "ended"])
def test_a_message_that_is_stored_again_is_shown_once(ended: bool) -> None:
    """Promise: at its first place; the second is known as a repetition."""
    facts = turn("m1") if ended else turn("m1")[:1]
    view = fold([*facts, a.message("m1"), a.message("m2")])
    assert [m["message_id"] for m in shown(view, [])["messages"]] == ["m1", *(["a-m1"] * ended), "m2"]
    assert view.repeats == [len(facts) + 1]


def test_an_answer_that_is_recorded_again_is_shown_once() -> None:
    """A runner that does not know whether it was stored stores it again."""
    started = turn("m1")[:4]
    view = fold([*started, a.stream_end("a-m1", "m1")])
    assert len(view.messages) == 2
    assert view.repeats == [5]


def test_a_forgotten_message_that_is_stored_again_is_gone_with_the_next_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our choice: a runner claims only what comes first, so what stands before it unclaimed had ended."""
    monkeypatch.setattr(viewing, "REMEMBERED", 1)
    facts = [*turn("m1"), *turn("m2"), a.message("m1"), a.message("m3"), a.message("m4")]
    view = again(fold(facts))
    assert view.forgot
    assert shown(view, facts)["queue"] == ["m1", "m3", "m4"]
    fold([a.turn_start("m3")], view, after=len(facts))
    assert (shown(view, facts)["running"], shown(view, facts)["queue"]) == ("m3", ["m4"])
    assert [m["message_id"] for m in shown(view, facts)["messages"]] == ["m1", "a-m1", "m2", "a-m2", "m3", "m4"]
    assert view.repeats == [len(turn("m1")) * 2 + 1]


def test_a_session_is_what_its_first_record_and_its_last_say() -> None:
    """Whose it is and when it was made never changes; title and state do."""
    view = again(fold([updated(title="first"), *turn("m1"), updated(title="between"), updated("closed", "last")]))
    assert view.created
    assert view.session.about
    assert (view.created.title, view.session.about.title, view.session.about.state) == ("first", "last", "closed")


def test_a_claimed_message_is_never_dropped() -> None:
    """What runs is no repetition, whatever a reader of the log believes."""
    view = fold([a.message("m1"), a.turn_start("m1")])
    view.drop("m1")
    assert view.session.first == "m1"


def test_deleted_is_for_ever() -> None:
    """Promise: reads answer 404, whatever is stored later; also in a view that was kept."""
    view = again(fold([updated(title="t"), *turn("m1"), workflow("w"), a.message("m2"), updated("deleted")]))
    before = msgspec.structs.replace(view)
    fold([updated("active"), a.message("m3")], view, after=20)
    assert view.is_deleted
    assert view == before
    frame = shown(view, [])
    assert (frame["messages"], frame["queue"], frame["workflows"], frame["before"]) == ([], [], [], None)


def test_a_long_message_is_kept_by_its_place_and_left_out_where_the_log_has_it_no_more() -> None:
    """A kept view is small; what it has not is read again."""
    facts = [said("m1"), said("m2", "short"), said("m3", LONG)]
    view = again(fold(facts))
    assert view.missing() == [1, 3]
    assert [m["content"] for m in shown(view, facts)["messages"]] == [LONG, "short", LONG]
    gone = again(fold(facts))
    gone.fill({})
    assert [m["message_id"] for m in msgspec.to_builtins(gone.frame(TOPIC, "c", None))["messages"]] == ["m2"]


def test_what_is_no_message_is_not_shown_as_one() -> None:
    """Places are of messages and answers; a type that is unknown here is neither."""
    assert shown_as(None) is None
    assert shown_as(events.encode(a.turn_start("m1"))) is None
    assert shown_as(b'{"type":"of the future","id":"e"}') is None


def test_metadata_comes_back_as_it_was() -> None:
    """Whatever JSON it is, within the depth that is let in."""
    deep: Any = 0
    for _ in range(100):
        deep = {"n": [deep]}
    odd = {
        "": None,
        "\0": -0.0,
        "big": 2**64 - 1,
        "small": -(2**63),
        "e": 1e-300,
        "text": "Grüße 世界 🌍",
        "deep": deep,
    }
    view = fold([said("m1", metadata=odd)])
    message = again(view).session.turns["m1"].message
    assert message.metadata == odd


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1])
def test_an_integer_beyond_64_bits_is_shown_and_cannot_be_kept(number: int) -> None:
    """JSON holds it and MessagePack does not. Once the turn has ended, the view can be kept."""
    facts = [said("m1", metadata={"n": number})]
    view = fold(facts)
    with pytest.raises((OverflowError, TypeError)):
        view.kept(EPOCH, 1)
    assert shown(view, facts)["messages"][0]["metadata"] == {"n": number}
    assert again(fold([a.turn_start("m1"), a.turn_end("m1")], view, after=1)).session.turns == {}


def test_a_view_of_another_log_or_format_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a cache: what does not fit is not read."""
    kept = fold(turn("m1")).kept(EPOCH, 5)
    assert View.again(kept, "another epoch") is None
    monkeypatch.setattr(viewing, "FORMAT", viewing.FORMAT + 1)
    assert View.again(kept, EPOCH) is None


@given(st.binary(max_size=40), st.integers(0, 2000), st.integers(0, 3))
@unhurried
def test_garbage_is_no_view_and_raises_nothing(garbage: bytes, place: int, cut: int) -> None:
    """Whatever is in the stream, a session can be joined."""
    assert View.again(garbage, EPOCH) is None
    kept = fold([*turn(f"m_{7:032x}"), *turn("m2"), a.message("m3")]).kept(EPOCH, 5)
    place %= len(kept)
    View.again(kept[:place] + garbage + kept[place + cut :], EPOCH)


def test_an_id_that_is_none_makes_no_view() -> None:
    """Also where everything else would do."""
    kept = list(msgspec.msgpack.decode(fold(turn("m1")).kept(EPOCH, 5)))
    kept[3] = [5]
    assert View.again(msgspec.msgpack.encode(kept), EPOCH) is None
