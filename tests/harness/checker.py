"""The checker: what the clients saw and what the log holds, against what Millrace promises (FACTS 3.2).

The log's own order is the order that everything is compared with, so every rule is one scan. What comes back is a list
of sentences, `rule: what`; an empty one means that no promise was broken.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from msgspec import Struct

from tests.harness.call_rules import NEVER_RAN
from tests.harness.history import Connection, Frame, History, Record
from tests.harness.log_rules import SessionLog
from tests.harness.script_rules import check_script

INTERNAL = frozenset({"cancel", "session_listed", "turn_release", "step", "tool_started"})
FROM_THE_START = -1
"""The connection that `after` names where a client asks for all that the log holds."""

MISSING = "events are missing before it"

Positions = dict[str, int]


def check(history: History, asks: Callable[[str], bool] = lambda tool: tool == "demo.note") -> list[str]:
    """Every violation. `asks`: the tools that run only after a person's consent, and at most once."""
    sessions: dict[str, SessionLog] = {}
    for record in history.log:
        if record.topic.split(".")[1] == "session":
            session = sessions.setdefault(
                record.topic, SessionLog(history.faults, asks, replicated=history.replicas > 1)
            )
            session.take(record)
    violations: list[str] = []
    for topic, session in sessions.items():
        session.over()
        violations += [f"{text} of {topic}" for text in session.violations]
        violations += [f"{text} of {topic}" for text in check_script(list(history.of_session(topic)))]
    violations += _messages(history)
    violations += _effects(history, sessions)
    violations += _external(history)
    violations += _canaries(history)
    return violations + list(Delivered(history).violations())


def _messages(history: History) -> Iterator[str]:
    stored = Counter(str(r.event["message_id"]) for r in history.log if r.type == "message")
    by_client_id: dict[tuple[str, str], str] = {
        (str(r.event["session_id"]), str(r.event["client_message_id"])): str(r.event["message_id"])
        for r in history.log
        if r.type == "message"
    }
    for sent in history.sent:
        known = by_client_id.pop((sent.session_id, sent.client_message_id), None)
        if len(set(sent.message_ids)) > 1:
            yield f"two ids: {sent.client_message_id} was accepted as {sent.message_ids}"
        if sent.outcome == "accepted" and (known is None or known not in sent.message_ids):
            yield f"lost: {sent.client_message_id} was accepted as {sent.message_ids} and is not stored"
        if sent.outcome == "refused" and known:
            yield f"refused and stored: {sent.client_message_id}"
        if known and stored[known] > 1:
            yield f"stored twice: {sent.client_message_id}"
    for _, client_message_id in by_client_id:
        yield f"never sent: {client_message_id}"


def _effects(history: History, sessions: dict[str, SessionLog]) -> Iterator[str]:
    notes = Counter(history.notes)
    for session in sessions.values():
        for call_id, call in session.calls.calls.items():
            if call.call["tool"] != "demo.note":
                continue
            times = notes.pop(call.call["arguments"]["text"], 0)
            status = call.result and call.result["status"]
            if times > 1:
                yield f"ran twice: {call_id}"
            if times and not call.approved:
                yield f"ran without approval: {call_id}"
            if times and status in NEVER_RAN:
                yield f"ran all the same: {call_id} is told to be {status}"
            if not times and status == "completed":
                yield f"never ran: {call_id} is told to be completed"
    for text in notes:
        yield f"ran without a call: {text!r}"


def _external(history: History) -> Iterator[str]:
    stored = Counter(
        (record.topic.split(".")[0], record.event["source"], record.event["event_id"])
        for record in history.log
        if record.type == "external_event"
    )
    for published in {(p.tenant, p.source, p.event_id) for p in history.published}:
        if stored[published] != 1:
            yield f"external event: {published} is stored {stored[published]} times"


def _canaries(history: History) -> Iterator[str]:
    seen = [(record.topic.split(".")[0], json.dumps(record.event), f"record {record.seq}") for record in history.log]
    for connection in history.connections:
        place = f"connection {connection.number}"
        seen += [(connection.tenant, json.dumps(frame), place) for frame in connection.frames]
    for tenant, text, place in seen:
        for other, canary in history.canaries.items():
            if other != tenant and canary in text:
                yield f"leak: something of {other} in {place}"


def _untold(texts: list[str]) -> list[str]:
    """Without what a client missed and was then told that it had missed."""
    kept: list[str] = []
    for text in texts:
        missing = [each for each in kept if each.endswith(MISSING)]
        if text == "resume_gap: lost" and missing:
            kept = [each for each in kept if each not in missing]
        else:
            kept.append(text)
    return kept


class _Topic(Struct):
    """What clients may see of a topic, in order, and where each event stands."""

    events: list[Record] = []
    index: dict[str, int] = {}


class Delivered:
    """Every connection against the log: contiguous from its cursor, in order, each event once and unchanged.

    Where the log is replicated, a new leader may tell nobody of what it stored just before it led: then the client is
    told so (`resume_gap`), and gets a snapshot.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._topics: defaultdict[str, _Topic] = defaultdict(lambda: _Topic([], {}))
        self._topic_of: dict[str, str] = {}
        for record in history.log:
            if record.type not in INTERNAL:
                topic = self._topics[record.topic]
                topic.index[str(record.event["id"])] = len(topic.events)
                topic.events.append(record)
                self._topic_of[str(record.event["id"])] = record.topic
        self._wanted = {connection.after for connection in history.connections}
        self._places: dict[tuple[int, int], Positions] = {}

    def violations(self) -> Iterator[str]:
        """What breaks a rule."""
        for connection in self._history.connections:
            texts = list(self._follow(connection))
            for text in _untold(texts) if self._history.replicas > 1 else texts:
                yield f"{text} on connection {connection.number}"

    def _start(self, connection: Connection) -> Positions:
        if connection.after is None:
            return {}
        if connection.after[0] == FROM_THE_START:
            return dict.fromkeys(self._topics, -1)
        return dict(self._places.get(connection.after, {}))

    def _follow(self, connection: Connection) -> Iterator[str]:
        positions = self._start(connection)
        replayed: Counter[bool] = Counter()  # on a socket for many: a session's, and what is no session's
        session = f"{connection.tenant}.session.{connection.session_id}"
        for number, frame in enumerate(connection.frames):
            part = connection.transport == "many" and "session_id" not in frame
            match frame["type"]:
                case "snapshot":
                    positions[session] = self._topics[session].index.get(frame["last"], -1)
                    yield from self._snapshot(session, positions[session], frame)
                case "replay_complete" if frame["replayed"] != replayed[part]:
                    yield f"replay_complete: {frame['replayed']} were told, {replayed[part]} came"
                case "resume_gap":
                    replayed[part] = 0
                    yield f"resume_gap: {frame['reason']}"
                case _ if "id" in frame and "cursor" in frame:
                    replayed[part] += 1
                    yield from self._event(connection, session, positions, frame)
            if (connection.number, number) in self._wanted:
                self._places[connection.number, number] = dict(positions)
        if connection.is_last and positions.get(session) != len(self._topics[session].events) - 1:
            yield "behind: the log has more than was delivered at the end"

    def _event(self, connection: Connection, session: str, positions: Positions, frame: Frame) -> Iterator[str]:
        name = self._topic_of.get(frame["id"])
        if name is None:
            yield f"phantom: {frame['type']} {frame['id']} is not in the log"
            return
        tenant, kind, _ = name.split(".")
        if tenant != connection.tenant or (kind == "session" and name != session):
            yield f"leak: {frame['type']} of {name}"
            return
        topic = self._topics[name]
        at, before = topic.index[frame["id"]], positions.get(name)
        if before is not None and at <= before and kind != "session" and self._came_from_many(connection):
            return
        if before is not None and at != before + 1:
            fault = "again" if at <= before else f"{at - before - 1} {MISSING}"
            yield f"order: {frame['type']} {topic.events[at].seq} of {name}: {fault}"
        if {key: value for key, value in frame.items() if key != "cursor"} != topic.events[at].event:
            yield f"changed: {frame['type']} {frame['id']} is not what is stored"
        positions[name] = at

    def _came_from_many(self, connection: Connection) -> bool:
        """Whether its cursor is of a socket for many, where what is no session's may be told again."""
        after = connection.after
        return bool(after) and after[0] >= 0 and self._history.connections[after[0]].transport == "many"  # type: ignore[index]

    def _snapshot(self, session: str, upto: int, frame: Frame) -> Iterator[str]:
        shown, text, reset = frame["active"], "", None
        if shown is None:
            return
        for record in self._topics[session].events[: upto + 1]:
            if record.event.get("message_id") != shown["message_id"]:
                continue
            if record.type in ("stream_start", "stream_reset"):
                text, reset = "", record
            elif record.type == "stream_delta" and record.event.get("kind", "text") == "text":
                text += record.event["delta"]
        if reset is None or shown["content"] != text:
            yield f"snapshot: {shown['message_id']} is shown with another text than was streamed"
