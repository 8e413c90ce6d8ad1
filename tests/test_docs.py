"""What is generated of the documents is what the code is, and other people's tools can read it."""

import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import openapi_spec_validator
import pytest

from contracts import streams
from contracts.config import load
from contracts.errors import CATALOGUE
from contracts.events import EVENT_TYPES, INTERNAL
from contracts.frames import CLIENT_FRAMES, SERVER_FRAMES
from contracts.subjects import Topic
from edge import app
from scripts import asyncapi, docs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the validator's own models
    from asyncapi3 import AsyncAPI3  # type: ignore[import-untyped]

WIRE = (docs.DOCS / "wire.md").read_text()


@pytest.fixture(scope="module")
def described() -> Any:
    """The AsyncAPI document, as it was committed."""
    return msgspec.json.decode((docs.DOCS / "asyncapi.json").read_bytes())


@pytest.fixture(scope="module")
def operations() -> dict[str, Any]:
    """Every REST operation of the edge, by method and path, from its OpenAPI document."""
    desk: Any = SimpleNamespace(config=load(None))
    document: dict[str, Any] = app.create(desk, dict).openapi_schema.to_schema()
    openapi_spec_validator.validate(document)
    return {
        f"{method.upper()} {path.removeprefix('/api/v1')}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


@pytest.mark.parametrize("path", docs.generated(), ids=lambda path: path.name)
def test_what_is_generated_is_up_to_date(path: Path) -> None:
    """`make docs` writes it anew."""
    assert path.read_text() == docs.generated()[path]


def test_a_document_without_its_markers_is_told() -> None:
    """Else a table would silently stay as it is."""
    with pytest.raises(ValueError, match="generated: closes"):
        docs.filled(WIRE.replace("<!-- generated: closes -->", ""))


def test_the_asyncapi_document_is_valid(described: Any) -> None:
    """By somebody else's reading of the specification, references included."""
    AsyncAPI3.model_validate(described)
    references = re.findall(r'"\$ref": ?"#/([^"]+)"', msgspec.json.encode(described).decode())
    assert len(references) > 500
    for reference in set(references):
        found = described
        for part in reference.split("/"):
            found = found[part]


def test_the_asyncapi_document_has_every_frame_and_event(described: Any) -> None:
    """Of the sockets, and on the NATS side also those that no client is shown."""
    socket = set(described["channels"]["multiplex"]["messages"])
    assert {asyncapi.name("client", kind) for kind in CLIENT_FRAMES} <= socket
    assert {asyncapi.name("server", kind) for kind in SERVER_FRAMES} <= socket
    told = {key.removeprefix("told_") for key in socket if key.startswith("told_")}
    assert told == {str(kind.__struct_config__.tag) for kind in EVENT_TYPES} - INTERNAL
    written = {key for channel in described["channels"].values() for key in channel["messages"]}
    assert {asyncapi.name("event", kind) for kind in EVENT_TYPES} <= written


def test_the_asyncapi_document_says_who_writes_each_lane(described: Any) -> None:
    """As the broker's permissions have it: a lane has one writer."""
    topic = Topic.session("acme", "s1")
    for lane, service in (
        ("message", "edge"),
        ("tool", "tool_runner"),
        ("event", "event_ingest"),
        ("call", "agent_runner"),
    ):
        subject = topic.fact(lane).replace("acme", "{tenant}").replace("s1", "{session_id}")  # type: ignore[arg-type]
        subjects = {subject, subject.replace(".session.{session_id}", ".{kind}.{topic_id}")}
        channels = [key for key, channel in described["channels"].items() if channel["address"] in subjects]
        senders = {
            name.partition("_sends_")[0]
            for name, operation in described["operations"].items()
            if operation["action"] == "send" and operation["channel"]["$ref"].rpartition("/")[2] in channels
        }
        assert senders == {service}
    assert set(streams.SERVICES) <= {name.partition("_sends_")[0] for name in described["operations"]}


def test_every_operation_is_in_the_wire_document(operations: dict[str, Any]) -> None:
    """And that names none that does not exist."""
    named = set()
    for method, path in re.findall(r"\b(GET|POST|PATCH|DELETE) (?:/api/v1)?(/[\w/{}]+)", WIRE):
        named.add(f"{method} {path}".replace("{id}", "{session_id}"))
    sockets = {name for name in named if re.search(r"/ws\b", name)}
    assert named - sockets == set(operations)


def test_every_operation_tells_how_it_may_be_refused(operations: dict[str, Any]) -> None:
    """With a code of the catalogue, in the one form that errors have."""
    for operation in operations.values():
        refused = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert {"400", "401", "403", "429", "500", "503"} <= set(refused)
        for status, answer in refused.items():
            codes = re.findall(r"`(\w+)`:", answer["description"])
            assert codes
            assert {str(CATALOGUE[code].status) for code in codes} == {status}
            schema = answer["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorBody"}
