"""Dialect: what every spelling of the log offers, and what they share.

A dialect may be given an event again, after frames that were not written: what it remembers is therefore only what
the log says, and the same event gives the same frames however often it comes.
"""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from contracts.errors import Code, MillraceError
from contracts.frames import AnyClientFrame, client_decoder
from contracts.subjects import Kind

Frame = dict[str, Any]


class Dialect(Protocol):
    """One spelling of the log, for one connection.

    `topics`: the kinds of topics whose events it spells. `shared`: every connection is sent the same for an event.
    """

    name: str
    topics: tuple[Kind, ...]
    shared: bool

    def frames(self, event: Frame) -> list[Frame]:
        """What a log event becomes: no frame, or some."""

    def own(self, frame: Frame) -> list[Frame]:
        """What a frame of the edge's own becomes, the snapshot above all."""

    def command(self, data: str | bytes) -> AnyClientFrame:
        """What a client's frame asks for. Raises MillraceError `bad_request` or `unknown_type`."""

    def heartbeat(self, timestamp: str) -> Frame | None:
        """What shows that the connection is alive; None where the transport's own sign has to do."""


PASSED_ON = frozenset({"error", "pong", "reconnect", "resume_gap"})
"""Frames of the edge's own that every dialect spells as the session socket does."""


def pick(frame: Frame, *names: str) -> Frame:
    """Those fields of a frame that it has."""
    return {name: frame[name] for name in names if name in frame}


_tagged = msgspec.json.Decoder(dict[str, Any])


def tag_of(data: str | bytes) -> str | None:
    """The `type` of a client's frame; None where it has none that can be read."""
    try:
        tag = _tagged.decode(data).get("type")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return tag if isinstance(tag, str) else None


def sign_of_life(data: str | bytes) -> AnyClientFrame:
    """A `ping` or `pong`. Raises MillraceError for what else a client sends."""
    tag = tag_of(data)
    if tag is None:
        raise MillraceError(Code.BAD_REQUEST, "a frame is a JSON object with a type")
    if tag not in ("ping", "pong"):
        raise MillraceError(Code.UNKNOWN_TYPE, f"{tag!r:.80} may not be sent here")
    try:
        frame: AnyClientFrame = client_decoder.decode(data)
    except msgspec.DecodeError as error:
        raise MillraceError(Code.BAD_REQUEST, str(error)) from None
    return frame


def progress(event: Frame) -> Frame:
    """A `workflow_progress` as a `progress_update`; where it has no counts, in hundredths."""
    completed, total = event.get("completed"), event.get("total")
    if completed is None or total is None:
        completed, total = round(event["progress"] * 100), 100
    data = {"workflow_id": event["workflow_id"], "stage": event["step"], "completed": completed, "total": total}
    return {
        "type": "progress_update",
        **pick(event, "id", "timestamp", "session_id", "project_id", "user_id", "tenant"),
        "data": data,
    }


Write = Callable[[bytes, bytes | None], bytes]
"""How a frame is written: its JSON, and the cursor from which the client may resume after it."""


class Spelled:
    """A dialect as what a connection writes (edge/spelling.py). The last frame of an event carries the cursor."""

    def __init__(self, dialect: Dialect, write: Write) -> None:
        self.dialect = dialect
        self.key = f"{dialect.name}/{getattr(write, '__name__', '')}" if dialect.shared else None
        self._write = write

    def event(self, stored: bytes, cursor: bytes) -> bytes:
        """What is written for a log event; empty where the dialect has no frame for it."""
        return self._all(self.dialect.frames(msgspec.json.decode(stored)), cursor)

    def own(self, payload: bytes, cursor: str | None = None) -> bytes:
        """What is written for a frame of the edge's own; likewise."""
        return self._all(self.dialect.own(msgspec.json.decode(payload)), cursor.encode() if cursor else None)

    def _all(self, frames: list[Frame], cursor: bytes | None) -> bytes:
        last = len(frames) - 1
        return b"".join(
            self._write(msgspec.json.encode(frame), cursor if place == last else None)
            for place, frame in enumerate(frames)
        )
