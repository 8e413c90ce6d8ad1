"""The subject grammar: what is built is parsed back; no token reaches beyond its place."""

import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contracts import subjects
from contracts.subjects import DEFAULT_GROUP, KINDS, LANES, Lane, Topic

ALPHABET = string.ascii_letters + string.digits + "_-"

unhurried = settings(deadline=None)
tokens = st.text(ALPHABET, min_size=1, max_size=64)
topics = st.builds(Topic, tokens, st.sampled_from(KINDS), tokens)
lanes = st.sampled_from(LANES)
others = st.text().filter(lambda text: not 0 < len(text) <= 64 or not set(text) <= set(ALPHABET))


def matches(pattern: str, subject: str) -> bool:
    """Whether a NATS subscription to `pattern` hears `subject`."""
    wanted, given_ = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted, given_ = (
            wanted[:-1],
            given_[: len(wanted) - 1] if len(given_) >= len(wanted) else [],
        )
    return len(wanted) == len(given_) and all(w in ("*", g) for w, g in zip(wanted, given_, strict=True))


@given(tokens)
@unhurried
def test_a_token_is_itself(text: str) -> None:
    """WIRE: `[A-Za-z0-9_-]{1,64}`."""
    assert subjects.is_token(text)
    assert subjects.token(text) == text


@given(others)
@example("a.b")
@example("*")
@example(">")
@example("a\n")
@example("é")
@example("١")
@example("a" * 65)
@unhurried
def test_what_is_no_token_is_refused_wherever_one_stands(text: str) -> None:
    """Promise P10: a dot or a wildcard in an id would be a hole."""
    assert not subjects.is_token(text)
    builds = (
        lambda: subjects.token(text),
        lambda: Topic.session(text, "s"),
        lambda: Topic.session("t", text),
        lambda: Topic.user("t", text),
        lambda: Topic.project("t", text),
        lambda: Topic.everybody(text),
        lambda: subjects.ingest(text, "source", "type"),
        lambda: subjects.ingest("t", text, "type"),
        lambda: subjects.ingest_all(text),
        lambda: subjects.ingest_stream(text),
        lambda: subjects.dead(text),
        lambda: Topic.session("t", "s").message(text),
        lambda: subjects.messages_of_all(text),
    )
    for build in builds:
        with pytest.raises(ValueError, match=r"\[A-Za-z0-9_-\]"):
            build()


@given(st.one_of(st.none(), st.integers(), st.binary(), st.lists(st.text())))
@unhurried
def test_only_text_is_a_token(value: object) -> None:
    """Ids come out of JSON and JWTs, where they may be anything."""
    assert not subjects.is_token(value)


@given(topics, lanes)
@unhurried
def test_a_subject_is_parsed_as_what_it_was_built_of(topic: Topic, lane: Lane) -> None:
    """Promise P10: a delivery tells its topic by its subject."""
    assert subjects.parse(topic.fact(lane)) == (topic, lane)
    assert subjects.parse(topic.delta) == (topic, "delta")
    live = topic.fact(lane).replace("log.", "live.", 1)
    assert subjects.parse(live) == (topic, lane)


@given(topics, lanes, topics, lanes)
@unhurried
def test_no_two_things_share_a_subject(one: Topic, lane: Lane, other: Topic, lane2: Lane) -> None:
    """Promise P10."""
    same = (one, lane) == (other, lane2)
    assert (one.fact(lane) == other.fact(lane2)) == same
    assert (one.delta == other.delta) == (one == other)


@given(topics, lanes, topics)
@unhurried
def test_a_topic_hears_its_own_subjects_and_no_others(topic: Topic, lane: Lane, other: Topic) -> None:
    """Promise P10: also on replay."""
    fact, live = topic.fact(lane), topic.fact(lane).replace("log.", "live.", 1)
    assert matches(topic.facts, fact)
    assert not matches(topic.facts, topic.delta)
    assert matches(topic.all, fact)
    assert matches(topic.all, topic.delta)
    assert matches(topic.live_facts, live)
    assert matches(topic.live, live)
    assert matches(other.all, fact) == (topic == other)
    assert matches(other.live, live) == (topic == other)
    assert matches(subjects.ANY_DELTA, topic.delta)
    assert not matches(subjects.ANY_DELTA, fact)


@given(topics, lanes, lanes)
@unhurried
def test_a_lane_of_all_topics_is_that_lane_alone(topic: Topic, lane: Lane, other: Lane) -> None:
    """DESIGN: a lane belongs to one writer."""
    assert matches(subjects.lane_of_all(topic.kind, lane), topic.fact(lane))
    assert matches(subjects.lane_of_all("*", lane), topic.fact(other)) == (lane == other)
    assert not matches(subjects.lane_of_all("*", lane), topic.delta)


@given(topics, tokens, tokens)
@unhurried
def test_messages_of_a_group_are_heard_by_its_runners_and_by_no_others(topic: Topic, group: str, other: str) -> None:
    """Our choice: the default group's have no group in their subject. All are facts of the session."""
    topic = Topic.session(topic.tenant, topic.id)
    subject = topic.message(group)
    assert subjects.parse(subject) == (topic, "message")
    assert subjects.parse(subject.replace("log.", "live.", 1)) == (topic, "message")
    assert matches(topic.facts, subject)
    assert matches(subjects.messages_of_all(group), subject)
    assert matches(subjects.messages_of_all(other), subject) == (group == other)
    assert matches(topic.grouped, subject) == matches(subjects.ANY_GROUPED, subject) == (group != DEFAULT_GROUP)
    assert (topic.message(group) == topic.message(other)) == (group == other)
    assert topic.message() == topic.message(DEFAULT_GROUP) == topic.fact("message")


@given(st.text() | st.lists(tokens | st.sampled_from(["log", "live", "fact", "delta", *LANES])).map(".".join))
@example("log.t.session.s.fact.other")
@example("log.t.planet.s.delta")
@example("log.t.session.*.delta")
@example("log.t.session.s.fact")
@example("log.t.session.s.fact.message.cpu")
@example("log.t.session.s.fact.message.default")
@example("log.t.session.s.fact.message.*")
@example("log.t.session.s.fact.client.cpu")
@example("log.t.user.s.fact.message.cpu")
@example("ingest.t.session.s.delta")
@unhurried
def test_what_is_parsed_is_what_could_have_been_built(text: str) -> None:
    """Any other subject is refused."""
    try:
        topic, lane = subjects.parse(text)
    except ValueError:
        return
    built = topic.delta if lane == "delta" else topic.fact(lane)
    if text.count(".") == 6:
        built = topic.message(text.rpartition(".")[2])
    assert text in (built, built.replace("log.", "live.", 1))


@given(tokens, tokens, st.lists(tokens, min_size=1).map(".".join))
@unhurried
def test_an_event_is_published_where_its_tenant_alone_may(tenant: str, source: str, event_type: str) -> None:
    """Promise P7, P10."""
    subject = subjects.ingest(tenant, source, event_type)
    assert matches(subjects.ingest_all(tenant), subject)
    assert subjects.tenant_of_ingest(subject) == tenant


@pytest.mark.parametrize("event_type", ["", ".", "a..b", "a.", ".a", "a.*", "a.>", "a b"])
def test_a_type_with_a_part_that_is_no_token_is_refused(event_type: str) -> None:
    """Promise P10."""
    with pytest.raises(ValueError, match="token"):
        subjects.ingest("t", "source", event_type)


@pytest.mark.parametrize("subject", ["log.t.session.s.delta", "ingest", "ingest.*.a.b", ""])
def test_what_is_no_ingest_subject_has_no_tenant(subject: str) -> None:
    """Our choice."""
    with pytest.raises(ValueError, match=r"token|ingest"):
        subjects.tenant_of_ingest(subject)
