"""Turn: what an agent may do while its turn runs. Everything it says is a fact; what is recorded is not done again.

Answers and tool calls are numbered in the order in which the agent makes them, and their ids are made from
message and number: a later attempt finds what an earlier one recorded, and streams an unfinished answer again.
"""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from agent_runner import decide
from agent_runner.model import Piece, Said
from agent_runner.outgoing import Kind, Outgoing
from agent_runner.state import State
from broker import telemetry
from broker.acts import Perform
from broker.connect import Unavailable
from broker.hold import Hold
from broker.read import read
from contracts import events, session
from contracts.depth import is_too_deep
from contracts.subjects import Lane

ROOM = 64 * 1024
"""Bytes of the largest event that are left for what is not the text; the last piece of an answer may use them too."""


class Interrupted(Exception):
    """The turn is not this holder's to continue: it was cancelled, taken over, or the process stops."""


class Turn:
    """One attempt at one turn. Raises Interrupted from whatever is awaited once the turn is to end."""

    def __init__(self, hold: Hold[State], holding: decide.Holding, agent: str) -> None:
        self.message = hold.state.session.turns[holding.message_id].message
        self.usage: dict[str, int] = {}
        self.broker = hold.broker
        self.topic = hold.topic
        self._hold = hold
        self._holding = holding
        self.agent = agent
        self._answers = 0
        self._closed = 0
        self._calls = 0

    @property
    def seq(self) -> int:
        """Up to where the session is folded."""
        return self._hold.seq

    async def answer(self, pieces: AsyncGenerator[Piece | Said], *, closes: bool = False) -> str:
        """Stream one answer and record it. Without any piece there is no answer.

        `closes`: a tool call follows. Returns the text, which an earlier attempt may have recorded. An answer that
        would exceed the largest event ends there, with `length`.
        """
        self._answers += 1
        answer_id = self._id("a", self._answers)
        recorded = self._state.answers.get(answer_id)
        if recorded and recorded.end:
            self._closed += 1
            return recorded.end.content
        said = Said("tool_call" if closes else "stop")
        async with Outgoing(self._append_delta, self._holding.session_id, answer_id) as outgoing, aclosing(pieces):
            async for piece in pieces:
                if isinstance(piece, Said):
                    said = piece
                    continue
                if answer_id not in self._state.answers:
                    await self._put(events.StreamStart(**self._reply, message_id=answer_id, agent=self.agent))
                elif recorded:
                    await self._put(self._reset(answer_id))
                    recorded = None
                await outgoing.push(piece.text, piece.kind)
                if outgoing.size > self.broker.max_event_bytes - ROOM:
                    said = Said("length")
                    break
        if answer_id not in self._state.answers:
            return ""
        end = events.StreamEnd(
            **self._reply,
            message_id=answer_id,
            content=outgoing.whole("text"),
            thinking=outgoing.whole("thinking") or None,
            finish_reason=said.finish_reason,
            usage=said.usage,
        )
        await self._put(end)
        self._closed += 1
        for name, count in (said.usage or {}).items():
            self.usage[name] = self.usage.get(name, 0) + count
        return end.content

    async def call(self, tool: str, arguments: dict[str, Any]) -> events.ToolResult:
        """Have a tool run, and wait for its result; an earlier attempt's call is found again, not repeated.

        Raises ValueError for arguments that are nested too deeply.
        """
        if is_too_deep(arguments):
            raise ValueError("arguments that are nested too deeply")
        self._calls += 1
        call_id = self._id("c", self._calls)
        if call_id not in self._state.calls:
            attributes = {"gen_ai.tool.name": tool, "gen_ai.tool.call.id": call_id}
            with telemetry.tracer.start_as_current_span("tool_call", attributes=attributes):
                call = events.ToolCall(**self._reply, tool_call_id=call_id, tool=tool, arguments=arguments)
                await self._put(call, telemetry.inject({}))
        if self._state.calls[call_id] is None:
            await self.status("waiting_tool", tool=tool)
        asked = False
        while (result := self._state.calls.get(call_id)) is None:
            call_state = self._hold.state.session.calls[call_id]
            if call_state.request and not call_state.decision and not asked:
                asked = True
                await self.status("waiting_approval", tool=tool)
                continue
            await self._hold.folded()
            self._check()
        return result

    async def progress(
        self, workflow_id: str, step: str, progress: float, *, completed: int | None = None, total: int | None = None
    ) -> None:
        """Report how far a workflow is. What an earlier attempt reported is not reported again."""
        last = self._state.workflows.get(workflow_id)
        if last and last.progress >= progress:
            return
        await self._put(
            events.WorkflowProgress(
                **self._base,
                workflow_id=workflow_id,
                step=step,
                progress=progress,
                completed=completed,
                total=total,
            ),
            lane="agent",
        )

    async def status(self, status: str, **details: object) -> None:
        """Tell what the agent is at."""
        event = events.AgentStatus(
            **self._base,
            reply_to=self._holding.message_id,
            status=status,  # type: ignore[arg-type]
            details=details or None,
        )
        await self._put(event)

    async def failed(self, code: str, text: str, *, retryable: bool) -> None:
        """Tell that the turn fails."""
        await self._put(events.Error(**self._base, code=code, error=text, message=text, retryable=retryable))

    async def boundary(self) -> bool:
        """Between two steps: take in the messages that steer this turn.

        Whether any were taken in here, also by an earlier attempt: then the agent has not answered them yet.
        """
        while put := decide.steer(self._hold.state.session, self._holding):
            await self._hold.append(put.event)
            self._check()
        return any(taken.after == self._closed for taken in self._state.steered.values())

    async def close(self, answer_id: str, reason: events.FinishReason) -> None:
        """End an open answer with what was streamed of it, also by an earlier attempt."""
        answer = self._state.answers[answer_id]
        texts: dict[Kind, list[str]] = {"text": [], "thinking": []}
        try:
            async for records in read(self._hold.broker, self._hold.topic.delta, answer.since):
                for record in records:
                    delta = events.decode(record.data)
                    if isinstance(delta, events.StreamDelta) and delta.message_id == answer_id:
                        texts[delta.kind].append(delta.delta)
        except (Unavailable, TimeoutError):
            return await self._hold.look()  # waits for the broker; then it is decided again
        end = events.StreamEnd(
            **self._reply,
            message_id=answer_id,
            content="".join(texts["text"]),
            thinking="".join(texts["thinking"]) or None,
            finish_reason=reason,
        )
        await self._hold.append(end)

    @property
    def _state(self) -> session.Turn:
        turn = self._hold.state.session.turns.get(self._holding.message_id)
        if turn is None:
            raise Interrupted
        return turn

    @property
    def _base(self) -> dict[str, Any]:
        return {
            "id": events.new_id(),
            "timestamp": events.timestamp(),
            "session_id": self._holding.session_id,
        }

    @property
    def _reply(self) -> dict[str, Any]:
        return {**self._base, "reply_to": self._holding.message_id}

    def _id(self, kind: str, number: int) -> str:
        made = f"{self._holding.session_id}/{self._holding.message_id}/{kind}/{number}"
        return f"{kind}_{hashlib.sha256(made.encode()).hexdigest()[:24]}"

    def _reset(self, answer_id: str) -> events.StreamReset:
        attempt = self._state.attempt
        return events.StreamReset(**self._base, message_id=answer_id, attempt=attempt, reason="a new attempt")

    def _check(self) -> None:
        if self._hold.stopping or not isinstance(decide.decide(self._hold.state.session, self._holding), Perform):
            raise Interrupted

    async def _put(
        self, event: events.AnyEvent, context: dict[str, str] | None = None, *, lane: Lane | None = None
    ) -> None:
        """Append a fact. Where something else came first, go on only if the turn still is to go on."""
        self._check()
        while await self._hold.append(event, lane, context) is None:
            self._check()

    async def _append_delta(self, delta: events.StreamDelta) -> None:
        self._check()
        while not await self._hold.append_delta(delta):
            self._check()
