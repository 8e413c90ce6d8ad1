"""LLM: `/api/v1/sse/llm`: the text of answers in chunks, each named by the question that it answers.

`offset` says where in its answer (`message_id`) a chunk belongs, and `reset` that whatever came of that answer before
is void: an answer that streams again is never taken for more of it. `turn_end` gives the one `is_final`.

A delta does not name its question; `stream_start` and the snapshot do. Where neither was seen, because the client
resumed in mid-answer, the answer comes whole when it ends.
"""

from typing import Any

from contracts.frames import AnyClientFrame
from contracts.subjects import Kind
from edge.dialects.dialect import PASSED_ON, Frame, pick, sign_of_life

REMEMBERED = 1024
"""Answers whose question is known; the one that was spoken of longest ago gives way.

They are not forgotten when their turn ends: what could not be written yet is given here once more.
"""


class Llm:
    """Needs the topics of the sessions. `request_id`: only what answers that question."""

    name = "llm"
    topics: tuple[Kind, ...] = ("session",)
    shared = False

    def __init__(self, request_id: str | None = None) -> None:
        self._wanted = request_id
        self._questions: dict[str, str] = {}

    def seed(self, message_id: str, reply_to: str) -> None:
        """An answer and its question."""
        self._questions.pop(message_id, None)
        self._questions[message_id] = reply_to
        if len(self._questions) > REMEMBERED:
            del self._questions[next(iter(self._questions))]

    def frames(self, event: Frame) -> list[Frame]:
        """One chunk, or nothing."""
        about = pick(event, "id", "timestamp", "session_id")
        match event:
            case {"type": "stream_start", "message_id": answer, "reply_to": question}:
                self.seed(answer, question)
            case {"type": "stream_delta", "kind": "thinking"}:
                pass
            case {"type": "stream_delta", "message_id": answer, "delta": delta, "offset": offset}:
                return self._chunk(about, answer, delta, offset=offset)
            case {"type": "stream_reset", "message_id": answer}:
                return self._chunk(about, answer, "", reset=True)
            case {"type": "stream_end", "message_id": answer, "reply_to": question, "content": content}:
                if answer not in self._questions:
                    return self._chunk(about, answer, content, question, reset=True)
            case {"type": "turn_end", "reply_to": question}:
                return self._final(about, question, pick(event, "status", "error"))
        return []

    def own(self, frame: Frame) -> list[Frame]:
        """A snapshot becomes what was said so far to the question that is asked for, or whose turn runs."""
        if frame["type"] != "snapshot":
            return [frame] if frame["type"] in PASSED_ON else []
        about, active = pick(frame, "session_id"), frame["active"]
        question = self._wanted or frame["running"]
        answers = [said for said in frame["messages"] if said["role"] == "assistant" and said["reply_to"] == question]
        if active:
            answers.append(active)
        for answer in answers:
            self.seed(answer["message_id"], answer["reply_to"])
        said = [
            chunk
            for answer in answers
            for chunk in self._chunk(about, answer["message_id"], answer["content"], reset=True)
        ]
        if self._wanted and self._is_over(frame):
            said += self._final(about, self._wanted, {})
        return said

    def command(self, data: str | bytes) -> AnyClientFrame:
        """Only signs of life may be sent. Raises MillraceError."""
        return sign_of_life(data)

    def heartbeat(self, timestamp: str) -> Frame | None:
        """A comment has to do."""
        return None

    def _is_over(self, snapshot: Frame) -> bool:
        """Whether the turn of the question that is asked for ended before the client came."""
        asked = any(said["message_id"] == self._wanted for said in snapshot["messages"])
        return asked and self._wanted not in (snapshot["running"], *snapshot["queue"])

    def _chunk(self, about: Frame, answer: str, chunk: str, question: str | None = None, **more: Any) -> list[Frame]:
        question = question or self._questions.get(answer)
        if question is None or self._wanted not in (None, question):
            return []
        offset = {"offset": 0, **more}
        return [{"type": "stream_chunk", **about, "request_id": question, "message_id": answer,
                 "chunk": chunk, **offset, "is_final": False}]  # fmt: skip

    def _final(self, about: Frame, question: str, outcome: Frame) -> list[Frame]:
        if self._wanted not in (None, question):
            return []
        return [{"type": "stream_chunk", **about, "request_id": question, "chunk": "", "is_final": True, **outcome}]
