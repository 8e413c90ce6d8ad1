"""CloudEvents 1.0 as they come over NATS: a message becomes one event, or is refused. Pure.

    binary       headers `ce-…`, percent-encoded; the payload is the data
    structured   `Content-Type: application/cloudevents+json`; the payload is the whole event,
                 also where a message has neither a content type nor any `ce-` header

What the data becomes depends on `datacontenttype` alone, and is the same in both modes: JSON (also
where no type is named) its value; `text/*` and XML in UTF-8 a string; anything else, and
`data_base64` without a type, its base64 text. No payload is no data: None.

What two readers could understand differently is refused, not guessed: an attribute or a key that is
given twice, an attribute name with other characters than `a-z0-9` (`session_id` would otherwise be
ignored, and the event reach a whole tenant), NaN, numbers out of range, text that is not UTF-8.
"""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Meta, Struct

from contracts.depth import MOST, is_too_deep
from contracts.errors import Code, MillraceError

MAX_DATA = 256 * 1024
"""The largest data, as encoded JSON."""

MAX_PAYLOAD = 2 * MAX_DATA
"""The largest payload that is looked into: the data may be indented, escaped or in base64."""

MAX_HEADERS = 64 * 1024
MAX_ATTRIBUTE = 2048
STRUCTURED = "application/cloudevents"
BINARY = "application/octet-stream"

_NAME = re.compile(r"[a-z0-9]+")
_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef"
    + "".join(chr(plane + end) for plane in range(0, 0x110000, 0x10000) for end in (0xFFFE, 0xFFFF))
    + "]"
)
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^\s";]+)', re.IGNORECASE)
_Time = Annotated[datetime, Meta(tz=True)]


class InvalidEvent(MillraceError):
    """The event cannot be accepted. The text is one sentence and quotes no data."""


class CloudEvent(Struct, frozen=True, kw_only=True):
    """An event. `attributes` are the others, as canonical strings; null is the empty string."""

    id: str
    source: str
    type: str
    data: Any = None
    attributes: dict[str, str] = {}


def decode(headers: bytes, payload: bytes) -> CloudEvent:
    """The event that a message carries; `headers` is its raw header block.

    Raises InvalidEvent (`invalid_event` or `too_large`) and nothing else, whatever the bytes are.
    """
    if len(payload) > MAX_PAYLOAD or len(headers) > MAX_HEADERS:
        raise InvalidEvent(Code.TOO_LARGE, f"the message is larger than {MAX_PAYLOAD} bytes")
    content_type, attributes = _from_headers(headers)
    media_type = _media_type(content_type)
    if media_type.startswith(STRUCTURED) or not (media_type or attributes):
        if media_type not in ("", STRUCTURED, f"{STRUCTURED}+json"):
            raise _invalid(f"the content type {media_type:.80} is not supported")
        attributes, data = _structured(payload)
    else:
        data = _data(payload, attributes.get("datacontenttype", content_type))
    if is_too_deep(data):
        raise _invalid(f"the data is nested deeper than {MOST}")
    if len(msgspec.json.encode(data)) > MAX_DATA:
        raise InvalidEvent(Code.TOO_LARGE, f"the data is larger than {MAX_DATA} bytes")
    return _event(attributes, data)


def header_lines(block: bytes) -> Iterator[tuple[str, bytes]]:
    """The name and value of each header of a raw block (`NATS/1.0…`), in its order."""
    for line in block.split(b"\r\n")[1:]:
        if line:
            name, _, value = line.partition(b":")
            yield name.strip().decode(errors="replace"), value.strip()


def _invalid(text: str) -> InvalidEvent:
    return InvalidEvent(Code.INVALID_EVENT, text)


def _event(attributes: dict[str, str], data: Any) -> CloudEvent:
    """The event with its attributes checked."""
    for name, value in attributes.items():
        if not _NAME.fullmatch(name):
            raise _invalid(f"attribute names are lower-case letters and digits, not {name!r:.80}")
        if len(value) > MAX_ATTRIBUTE:
            raise InvalidEvent(Code.TOO_LARGE, f"{name:.80} is longer than {MAX_ATTRIBUTE}")
        if _FORBIDDEN.search(value):
            raise _invalid(f"{name:.80} holds a control character")
    for name in ("specversion", "id", "source", "type"):
        if not attributes.get(name):
            raise _invalid(f"the attribute {name} is missing or empty")
    if attributes["specversion"] != "1.0":
        raise _invalid("only CloudEvents 1.0 is supported")
    if attributes.get("time"):
        try:
            msgspec.convert(attributes["time"], _Time)
        except msgspec.ValidationError:
            raise _invalid("time is not an RFC 3339 timestamp") from None
    return CloudEvent(
        id=attributes.pop("id"),
        source=attributes.pop("source"),
        type=attributes.pop("type"),
        data=data,
        attributes=attributes,
    )


def _from_headers(block: bytes) -> tuple[str, dict[str, str]]:
    """The content type, and the attributes of the `ce-` headers."""
    found: dict[str, str] = {}
    for spelling, value in header_lines(block):
        name = spelling.lower()
        if name != "content-type" and not name.startswith("ce-"):
            continue
        if name in found:
            raise _invalid(f"the header {name!r:.80} is given twice")
        found[name] = _header_value(name, value)
    content_type = found.pop("content-type", "")
    return content_type, {name.removeprefix("ce-"): value for name, value in found.items()}


def _header_value(name: str, raw: bytes) -> str:
    """The value without quotes (older publishers) and percent-encoding."""
    if len(raw) > 1 and raw[:1] == raw[-1:] == b'"':
        raw = re.sub(rb"\\(.)", rb"\1", raw[1:-1])
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise _invalid(f"the header {name!r:.80} is not UTF-8") from None


def _structured(payload: bytes) -> tuple[dict[str, str], Any]:
    """The attributes and the data of an event in the JSON format."""
    envelope = _json(payload, "the payload")
    if not isinstance(envelope, dict):
        raise _invalid("the payload is not a CloudEvent: neither ce- headers nor a JSON object")
    data, encoded = envelope.pop("data", None), envelope.pop("data_base64", None)
    attributes = {name: _canonical(name, value) for name, value in envelope.items()}
    if encoded is None:
        return attributes, data
    if data is not None:
        raise _invalid("data and data_base64 exclude each other")
    try:
        content = b64decode(encoded, validate=True)
    except (TypeError, ValueError):
        raise _invalid("data_base64 is not base64") from None
    return attributes, _data(content, attributes.get("datacontenttype") or BINARY)


def _canonical(name: str, value: object) -> str:
    """An attribute's value as the string that a header would carry."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case str():
            return value
        case int() if -(2**31) <= value < 2**31:
            return str(value)
    raise _invalid(f"{name!r:.80} is not a string, a boolean or a 32-bit integer")


def _data(content: bytes, content_type: str) -> Any:
    """What bytes of that type become."""
    if not content:
        return None
    media_type = _media_type(content_type) or "application/json"
    if media_type in ("application/json", "text/json") or media_type.endswith("+json"):
        return _json(content, "the data")
    charset = _CHARSET.search(content_type)
    is_text = media_type.startswith("text/") or media_type.endswith(("/xml", "+xml"))
    if is_text and (charset is None or charset[1].lower() in ("utf-8", "utf8", "us-ascii")):
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise _invalid("the data is not UTF-8") from None
    return b64encode(content).decode()


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _json(content: bytes, what: str) -> Any:
    """The value of strict JSON that names no key twice."""
    try:
        value = msgspec.json.decode(content)
        json.loads(content, object_pairs_hook=_refuse_repeated)  # msgspec does not tell
    except RecursionError:
        raise _invalid(f"{what} is nested deeper than {MOST}") from None
    except (msgspec.DecodeError, ValueError):
        raise _invalid(f"{what} is not JSON") from None
    return value


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise _invalid("a JSON object names a key twice")
