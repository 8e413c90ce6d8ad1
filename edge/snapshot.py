"""Snapshot: what a joiner is shown of a session at one place in the log, a fold over its facts and deltas."""

from collections import deque
from typing import Any

import msgspec

from broker.connect import Broker
from broker.read import last, read
from contracts import events
from contracts.events import AnyEvent
from contracts.frames import Active, Snapshot
from contracts.session import Session
from contracts.subjects import Topic

MESSAGES = 50


class View:
    """The fold: the session's open turns, its last messages, and what is shown beside them."""

    def __init__(self) -> None:
        self.session = Session()
        self.last: str | None = None
        self._last_seq = 0
        self._messages: deque[tuple[int, dict[str, Any]]] = deque(maxlen=MESSAGES + 1)
        self._known: set[str] = set()
        self._agents: dict[str, str] = {}
        self._requests: dict[str, bytes] = {}
        self._workflows: dict[str, bytes] = {}

    def apply(self, seq: int, event: AnyEvent, stored: bytes) -> None:
        """Take in the fact at `seq`."""
        self.session.apply(seq, event)
        if events.type_of(stored) not in events.INTERNAL:
            self.saw(seq, event.id)
        match event:
            case events.Message(message_id=message_id) if message_id not in self._known:
                self._known.add(message_id)
                self._messages.append((seq, msgspec.json.decode(stored)))
            case events.StreamStart(message_id=message_id, agent=agent):
                self._agents[message_id] = agent
            case events.StreamEnd(message_id=message_id):
                self._messages.append((seq, _answer(event)))
            case events.ToolApprovalRequest(tool_call_id=call_id):
                self._requests[call_id] = stored
            case events.ToolApproval(tool_call_id=call_id) | events.ToolResult(tool_call_id=call_id):
                self._requests.pop(call_id, None)
            case events.WorkflowProgress(workflow_id=workflow_id):
                self._workflows[workflow_id] = stored
            case events.TurnEnd() if not self.session.turns:
                self._agents.clear()

    def saw(self, seq: int, event_id: str) -> None:
        """An event that clients receive stands at `seq`."""
        if seq > self._last_seq:
            self._last_seq, self.last = seq, event_id

    def frame(self, topic: Topic, cursor: str, active: Active | None) -> Snapshot:
        """The frame for this state."""
        messages = list(self._messages)[-MESSAGES:]
        first = self.session.first
        running = first if first and self.session.turns[first].claim else None
        return Snapshot(
            session_id=topic.id,
            cursor=cursor,
            last=self.last,
            messages=[message for _, message in messages],
            before=str(messages[0][0]) if len(self._messages) > MESSAGES else None,
            active=active,
            running=running,
            queue=[message_id for message_id in self.session.turns if message_id != running],
            approvals=[msgspec.json.decode(stored) for stored in self._requests.values()],
            workflows=[msgspec.json.decode(stored) for stored in self._workflows.values()],
        )

    def open_answer(self) -> tuple[Active, int] | None:
        """The answer that is being streamed, still without its text, and where its deltas begin."""
        for message_id, turn in self.session.turns.items():
            if answer := turn.open_answer:
                agent = self._agents.get(answer.message_id, "")
                active = Active(
                    message_id=answer.message_id,
                    reply_to=message_id,
                    agent=agent,
                    content="",
                    thinking="",
                    attempt=turn.attempt,
                )
                return active, answer.since
        return None


def _answer(event: events.StreamEnd) -> dict[str, Any]:
    return {
        "message_id": event.message_id,
        "role": "assistant",
        "content": event.content,
        "reply_to": event.reply_to,
        "finish_reason": event.finish_reason,
        "timestamp": event.timestamp,
        **({"thinking": event.thinking} if event.thinking else {}),
    }


async def take(broker: Broker, topic: Topic) -> tuple[View, Active | None, int]:
    """The session's view, its open answer with the text so far, and the sequence up to which both hold."""
    upto = await last(broker, topic.all)
    view = View()
    async for records in read(broker, topic.facts, 0, upto):
        for record in records:
            event = events.decode(record.data) if record.seq <= upto else None
            if event is not None:
                view.apply(record.seq, event, record.data)
    opened = view.open_answer()
    if opened is None:
        return view, None, upto
    active, since = opened
    texts: dict[str, list[str]] = {"text": [], "thinking": []}
    async for records in read(broker, topic.delta, since, upto):
        for record in records:
            delta = events.decode(record.data) if record.seq <= upto else None
            if isinstance(delta, events.StreamDelta) and delta.message_id == active.message_id:
                texts[delta.kind].append(delta.delta)
                view.saw(record.seq, delta.id)
    text, thinking = "".join(texts["text"]), "".join(texts["thinking"])
    return view, msgspec.structs.replace(active, content=text, thinking=thinking), upto
