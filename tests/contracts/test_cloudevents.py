"""CloudEvents over NATS: what is read from a message, and what is refused."""

import json
from base64 import b64encode
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import cloudevents, depth
from contracts.cloudevents import CloudEvent, InvalidEvent, decode
from contracts.errors import Code

ATTRIBUTES = {"specversion": "1.0", "id": "e1", "source": "/ci", "type": "build.finished"}
STRUCTURED = {"Content-Type": "application/cloudevents+json"}


def block(headers: dict[str, str]) -> bytes:
    """A raw header block."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"NATS/1.0\r\n{lines}\r\n".encode()


def binary(payload: bytes = b"", **attributes: str) -> CloudEvent:
    """What is read in binary mode; `ATTRIBUTES` unless others are given."""
    headers = {f"ce-{name}": quote(value) for name, value in (ATTRIBUTES | attributes).items()}
    return decode(block(headers), payload)


def structured(**members: Any) -> CloudEvent:
    """What is read in structured mode; `ATTRIBUTES` unless others are given."""
    return decode(block(STRUCTURED), json.dumps(ATTRIBUTES | members).encode())


def refusal(headers: bytes, payload: bytes) -> Code:
    """The code that a message is refused with."""
    with pytest.raises(InvalidEvent) as refused:
        decode(headers, payload)
    return refused.value.code


def test_a_binary_event_has_its_attributes_from_headers_and_its_data_from_the_payload() -> None:
    """Standard: CloudEvents NATS binding 3.1."""
    event = binary(b'{"ok": true}', sessionid="s1", datacontenttype="application/json")
    assert (event.id, event.source, event.type) == ("e1", "/ci", "build.finished")
    assert event.attributes["sessionid"] == "s1"
    assert event.data == {"ok": True}


def test_a_structured_event_is_whole_in_the_payload() -> None:
    """Standard: CloudEvents JSON format."""
    event = structured(sessionid="s1", data={"ok": True})
    assert (event.id, event.source, event.type) == ("e1", "/ci", "build.finished")
    assert event.attributes["sessionid"] == "s1"
    assert event.data == {"ok": True}


def test_a_message_without_any_header_is_read_as_structured() -> None:
    """Standard: the released NATS binding 1.0.2 knows no headers."""
    assert decode(b"", json.dumps(ATTRIBUTES).encode()) == structured()


def test_header_names_are_compared_without_regard_to_case() -> None:
    """Standard: NATS binding 3.1.3.1."""
    shouting = {f"CE-{name.upper()}": value for name, value in ATTRIBUTES.items()}
    assert decode(block(shouting), b"") == binary()
    lower = {"content-type": "APPLICATION/CloudEvents+JSON; charset=utf-8"}
    assert decode(block(lower), json.dumps(ATTRIBUTES).encode()) == structured()


@pytest.mark.parametrize(
    ("raw", "meant"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("%41%62c", "Abc"),
        ("100%", "100%"),
        ('"a \\"quoted\\" b"', 'a "quoted" b'),
        ("grüße", "grüße"),
    ],
)
def test_header_values_are_unquoted_and_percent_decoded_once(raw: str, meant: str) -> None:
    """Standard: NATS binding 3.1.3.2; raw UTF-8 is taken too (our choice)."""
    headers = {f"ce-{name}": value for name, value in ATTRIBUTES.items()}
    assert decode(block(headers | {"ce-subject": raw}), b"").attributes["subject"] == meant


@pytest.mark.parametrize(
    ("content_type", "payload", "data"),
    [
        ("application/json", b"[1, 2.5, null]", [1, 2.5, None]),
        ("application/problem+json; charset=utf-8", b'"x"', "x"),
        ("", b'{"a": 1}', {"a": 1}),
        ("text/plain", "grüße".encode(), "grüße"),
        ("TEXT/CSV; charset=UTF-8", b"a,b", "a,b"),
        ("application/xml", b"<a/>", "<a/>"),
        ("text/plain; charset=latin-1", b"\xfc", "/A=="),
        ("application/octet-stream", b"\x00\xff", "AP8="),
        ("image/png", b"", None),
    ],
)
def test_data_are_the_same_in_both_modes(content_type: str, payload: bytes, data: object) -> None:
    """Our choice: JSON becomes its value, text a string, anything else base64."""
    assert binary(payload, datacontenttype=content_type).data == data
    encoded = b64encode(payload).decode()
    named = content_type or "application/json"
    assert structured(datacontenttype=named, data_base64=encoded).data == data


def test_a_content_type_header_stands_in_for_a_missing_datacontenttype() -> None:
    """Our choice: what a publisher used to HTTP would send."""
    headers = {f"ce-{name}": value for name, value in ATTRIBUTES.items()}
    assert decode(block(headers | {"Content-Type": "text/plain"}), b"hi").data == "hi"


def test_bytes_without_a_type_stay_base64() -> None:
    """Our choice."""
    assert structured(data_base64="AP8=").data == "AP8="


def test_structured_text_data_is_the_string_itself() -> None:
    """Standard: JSON format 3.1."""
    assert structured(datacontenttype="text/plain", data="a").data == "a"


def test_extensions_have_their_canonical_strings() -> None:
    """Standard: CloudEvents type system; null is the empty string (our choice)."""
    event = structured(sequence=-7, urgent=True, traceparent=None)
    assert event.attributes["sequence"] == "-7"
    assert event.attributes["urgent"] == "true"
    assert event.attributes["traceparent"] == ""


@pytest.mark.parametrize("missing", ["specversion", "id", "source", "type"])
def test_an_event_without_a_required_attribute_is_refused(missing: str) -> None:
    """Standard: CloudEvents 1.0."""
    rest = {name: value for name, value in ATTRIBUTES.items() if name != missing}
    for members in (rest, rest | {missing: ""}, rest | {missing: None}):
        payload = json.dumps(members).encode()
        assert refusal(block(STRUCTURED), payload) == Code.INVALID_EVENT
    headers = {f"ce-{name}": value for name, value in rest.items()}
    assert refusal(block(headers), b"") == Code.INVALID_EVENT


@pytest.mark.parametrize(
    "members",
    [
        {"specversion": "0.3"},
        {"specversion": 1.0},
        {"id": 1.5},
        {"time": "yesterday"},
        {"time": "2026-01-01T00:00:00"},
        {"session_id": "s1"},
        {"sessionId": "s1"},
        {"extension": {"a": 1}},
        {"extension": 2**31},
        {"source": "a\nb"},
        {"source": "a\ufffeb"},
        {"data": 1, "data_base64": "AP8="},
        {"data_base64": "%%"},
        {"data_base64": 7},
        {"data_base64": "/w==", "datacontenttype": "text/plain"},
        {"data_base64": "/w==", "datacontenttype": "application/json"},
    ],
)
def test_a_malformed_attribute_or_data_is_refused(members: dict[str, Any]) -> None:
    """Standard: CloudEvents 1.0, JSON format."""
    payload = json.dumps(ATTRIBUTES | members).encode()
    assert refusal(block(STRUCTURED), payload) == Code.INVALID_EVENT


MALFORMED = {
    "not JSON": b"{",
    "nothing": b"",
    "not an object": b"[1]",
    "NaN": b"NaN",
    "out of range": b"1e999",
    "infinite": b"Infinity",
    "trailing": b"1 2",
    "a BOM": b"\xef\xbb\xbf{}",
    "not UTF-8": b'"\xff"',
    "overlong": b'"\xc0\x80"',
    "an encoded surrogate": b'"\xed\xa0\x80"',
    "a lone surrogate": b'"\\ud800"',
    "a lone surrogate in the middle": b'"\\ud800 and more text"',
    "a surrogate as a name": b'{"\\udc00": 1}',
    "a control character": b'"\x00"',
    "a repeated key": b'{"a": {"b": 1, "b": 2}}',
    "a repeated key, escaped": b'{"b": 1, "\\u0062": 2}',
    "a depth bomb": b"[" * 100_000,
    "a deep list": b"[" * 66 + b"]" * 66,
    "a deep object": b'{"a":' * 900 + b"1" + b"}" * 900,
    "a huge integer": b"1" * 100_000,
}


@pytest.mark.parametrize("payload", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_strict_json_is_refused(payload: bytes) -> None:
    """Standard: RFC 8259, with the freedoms that it leaves taken away (our choice)."""
    assert refusal(block(STRUCTURED), payload) == Code.INVALID_EVENT
    if payload not in (b"", b"[1]"):  # those are fine as data
        headers = block({f"ce-{name}": value for name, value in ATTRIBUTES.items()})
        assert refusal(headers, payload) == Code.INVALID_EVENT


def test_an_attribute_that_is_given_twice_is_refused() -> None:
    """Our choice: two readers could take different ones."""
    twice = block({f"ce-{name}": value for name, value in ATTRIBUTES.items()})
    twice = twice.replace(b"\r\n\r\n", b"\r\nce-sessionid: a\r\nCe-SessionId: b\r\n\r\n")
    assert refusal(twice, b"") == Code.INVALID_EVENT
    members = json.dumps(ATTRIBUTES)[:-1] + ', "sessionid": "a", "sessionid": "b"}'
    assert refusal(block(STRUCTURED), members.encode()) == Code.INVALID_EVENT


@pytest.mark.parametrize("raw", [b"%FF", b"%C0%A0", b"\xff", b"%ED%A0%80"])
def test_a_header_value_that_is_not_utf8_is_refused(raw: bytes) -> None:
    """Standard: NATS binding 3.1.3.2."""
    headers = block({f"ce-{name}": value for name, value in ATTRIBUTES.items()})
    headers = headers.replace(b"\r\n\r\n", b"\r\nce-subject: " + raw + b"\r\n\r\n")
    assert refusal(headers, b"") == Code.INVALID_EVENT


@pytest.mark.parametrize("suffix", ["+xml", "-batch+json"])
def test_other_formats_and_batches_are_refused(suffix: str) -> None:
    """Standard: the NATS binding defines no batch; JSON is the one format here (our choice)."""
    headers = block({"Content-Type": f"application/cloudevents{suffix}"})
    assert refusal(headers, json.dumps(ATTRIBUTES).encode()) == Code.INVALID_EVENT


def test_data_of_the_largest_size_are_taken_and_one_byte_more_is_too_large() -> None:
    """Our choice: 256 KiB as encoded JSON."""
    text = b"x" * (cloudevents.MAX_DATA - 2)
    assert binary(text, datacontenttype="text/plain").data == text.decode()
    headers = {f"ce-{name}": value for name, value in ATTRIBUTES.items()}
    headers["ce-datacontenttype"] = "text/plain"
    assert refusal(block(headers), text + b"x") == Code.TOO_LARGE
    assert refusal(block(headers), b"x" * (cloudevents.MAX_PAYLOAD + 1)) == Code.TOO_LARGE
    assert refusal(block(headers | {"ce-subject": "x" * 2049}), b"") == Code.TOO_LARGE
    assert refusal(block(headers | {"other": "x" * 65_536}), b"") == Code.TOO_LARGE


def test_data_of_the_greatest_depth_are_taken() -> None:
    """Our choice: 64."""
    deep = "[" * depth.MOST + "]" * depth.MOST
    assert json.dumps(binary(deep.encode()).data) == deep


NAMES = st.sampled_from(["ce-id", "CE-Source", "ce-type", "ce-specversion", "Content-Type", "ce-time"])
VALUES = st.sampled_from([b"1.0", b"application/cloudevents+json", b"%ff", b'"', b'"\\', b"text/x"])
HEADERS = st.one_of(
    st.binary(),
    st.lists(st.tuples(NAMES | st.text(max_size=5), VALUES | st.binary(max_size=20)), max_size=8).map(
        lambda pairs: (
            b"NATS/1.0\r\n" + b"".join(n.encode(errors="replace") + b": " + v + b"\r\n" for n, v in pairs) + b"\r\n"
        )
    ),
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
PAYLOADS = st.one_of(
    st.binary(),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from([*ATTRIBUTES, "data", "data_base64", "time", "x"]), JSON).map(
        lambda members: json.dumps(ATTRIBUTES | members).encode()
    ),
)


@given(headers=HEADERS, payload=PAYLOADS)
def test_nothing_but_a_refusal_is_ever_raised(headers: bytes, payload: bytes) -> None:
    """Our choice: what comes from outside never crashes the service."""
    with suppress(InvalidEvent):
        event = decode(headers, payload)
        assert "" not in (event.id, event.source, event.type)


@given(
    event_id=st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn"]), min_size=1, max_size=50),
    data=JSON,
)
def test_both_modes_carry_the_same_event(event_id: str, data: Any) -> None:
    """Standard: the modes are two spellings of one event."""
    payload = json.dumps(data).encode()
    try:
        expected = binary(payload, id=event_id)
    except InvalidEvent:  # NaN, surrogates
        with pytest.raises(InvalidEvent):
            structured(id=event_id, data=data)
    else:
        assert structured(id=event_id, data=data) == expected
        assert expected.id == event_id
