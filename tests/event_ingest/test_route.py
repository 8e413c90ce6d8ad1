"""Routes: attributes decide on the topic, the type on the event."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import events
from contracts.cloudevents import CloudEvent, InvalidEvent
from contracts.errors import Code
from contracts.events import AgentUpdate, ExternalEvent, MemoryUpdate, WorkflowProgress
from contracts.subjects import Topic, parse
from event_ingest.route import Routed, identity, routed, topic_of

TIMESTAMP = "2026-11-20T00:00:00.000000Z"
PROGRESS = {"workflow_id": "w1", "step": "compile", "progress": 0.5}


def cloud_event(event_type: str = "build.finished", data: Any = None, **attributes: str) -> CloudEvent:
    """An event of `/ci`."""
    return CloudEvent(id="e1", source="/ci", type=event_type, data=data, attributes=attributes)


def becomes(event_type: str, data: Any) -> Routed:
    """What data of a type become in the session `s1`."""
    return routed(Topic.session("acme", "s1"), cloud_event(event_type, data), TIMESTAMP)


@pytest.mark.parametrize(
    ("attributes", "topic", "address"),
    [
        ({"sessionid": "s1"}, Topic.session("acme", "s1"), {"session_id": "s1"}),
        ({"userid": "u1"}, Topic.user("acme", "u1"), {"user_id": "u1"}),
        ({"projectid": "p1"}, Topic.project("acme", "p1"), {"project_id": "p1"}),
        ({}, Topic.everybody("acme"), {"tenant": "acme"}),
        ({"tenant": "globex"}, Topic.everybody("acme"), {"tenant": "acme"}),
    ],
)
def test_the_attributes_name_the_topic_and_one_field_of_the_event_tells_it(
    attributes: dict[str, str], topic: Topic, address: dict[str, str]
) -> None:
    """Promise: WIRE 5 and WIRE 1; the tenant is never taken from the message."""
    event = cloud_event(**attributes)
    assert topic_of("acme", event) == topic
    becomes = routed(topic, event, TIMESTAMP)
    names = ("session_id", "user_id", "project_id", "tenant")
    assert {name: getattr(becomes, name) for name in names if getattr(becomes, name)} == address


@pytest.mark.parametrize("name", ["sessionid", "userid", "projectid"])
@pytest.mark.parametrize("value", ["", "a.b", "*", ">", "a b", "x" * 65, "é", "s1\n"])
def test_a_target_that_is_no_token_is_refused_and_never_reaches_the_tenant(name: str, value: str) -> None:
    """Promise P10: a token cannot reach beyond its place in a subject; null is the empty string."""
    with pytest.raises(InvalidEvent) as refused:
        topic_of("acme", cloud_event(**{name: value}))
    assert refused.value.code == Code.INVALID_EVENT


def test_more_than_one_target_is_refused() -> None:
    """Our choice: an event is for one topic."""
    with pytest.raises(InvalidEvent):
        topic_of("acme", cloud_event(sessionid="s1", userid="u1"))


@given(st.dictionaries(st.sampled_from(["sessionid", "userid", "projectid", "x"]), st.text()))
def test_every_topic_lies_in_the_tenant(attributes: dict[str, str]) -> None:
    """Promise P10."""
    try:
        topic = topic_of("acme", cloud_event(**attributes))
    except InvalidEvent:
        return
    assert parse(topic.fact("event")) == (topic, "event")
    assert topic.tenant == "acme"


def test_an_event_of_any_other_type_becomes_an_external_event() -> None:
    """Promise: WIRE 1."""
    event = becomes("build.finished", {"ok": True})
    assert isinstance(event, ExternalEvent)
    assert (event.event_id, event.source, event.event_type) == ("e1", "/ci", "build.finished")
    assert event.event_data == {"ok": True}


def test_the_data_of_a_typed_event_are_the_fields_of_its_frame() -> None:
    """Promise: WIRE 5; other fields are ignored, the message's own cannot be overwritten."""
    progress = becomes("workflow.progress", PROGRESS | {"completed": 1, "total": 2, "id": "x"})
    assert isinstance(progress, WorkflowProgress)
    assert (progress.workflow_id, progress.step, progress.progress) == ("w1", "compile", 0.5)
    assert (progress.completed, progress.total, progress.session_id) == (1, 2, "s1")
    assert progress.id != "x"
    agent = becomes("agent.update", {"agent_id": "a1", "status": "busy"})
    assert isinstance(agent, AgentUpdate)
    assert (agent.agent_id, agent.status) == ("a1", "busy")
    memory = becomes("memory.update", {"memory_id": "m1", "agent_id": "a1", "operation": "add"})
    assert isinstance(memory, MemoryUpdate)
    assert (memory.memory_id, memory.agent_id, memory.operation) == ("m1", "a1", "add")


@pytest.mark.parametrize(
    ("event_type", "data"),
    [
        ("workflow.progress", None),
        ("workflow.progress", "half"),
        ("workflow.progress", {"workflow_id": "w1", "step": "s"}),
        ("workflow.progress", PROGRESS | {"progress": 1.01}),
        ("workflow.progress", PROGRESS | {"progress": -0.01}),
        ("workflow.progress", PROGRESS | {"progress": "0.5"}),
        ("workflow.progress", PROGRESS | {"progress": True}),
        ("workflow.progress", PROGRESS | {"workflow_id": ""}),
        ("workflow.progress", PROGRESS | {"workflow_id": "w" * 257}),
        ("workflow.progress", PROGRESS | {"step": "s" * 1025}),
        ("agent.update", {"agent_id": "a1", "status": ""}),
        ("workflow.progress", PROGRESS | {"completed": -1}),
        ("agent.update", {"agent_id": "a1"}),
        ("agent.update", {"agent_id": 1, "status": "busy"}),
        ("memory.update", [{"memory_id": "m1"}]),
    ],
)
def test_data_that_are_not_those_of_the_type_are_refused(event_type: str, data: Any) -> None:
    """Promise: WIRE 5."""
    with pytest.raises(InvalidEvent) as refused:
        becomes(event_type, data)
    assert refused.value.code == Code.INVALID_EVENT


def test_the_same_source_and_id_give_the_same_bytes() -> None:
    """Promise: (source, id) is delivered once."""
    first, again = (becomes("build.finished", {"ok": True}) for _ in range(2))
    assert events.encode(first) == events.encode(again)


def test_identities_differ_between_tenants_sources_and_ids() -> None:
    """Promise P10: no tenant can suppress another's event."""
    pairs = [("/ci", "e1"), ("/ci", "e2"), ("/cd", "e1"), ("/", "cie1"), ("/ci/e", "1")]
    found = {
        identity(tenant, CloudEvent(id=event_id, source=source, type="t"))
        for tenant in ("acme", "globex")
        for source, event_id in pairs
    }
    assert len(found) == 2 * len(pairs)
