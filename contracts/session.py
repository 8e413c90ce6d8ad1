"""Session: the open turns and tool calls of a session, a fold over its facts. Pure; no I/O.

Folding a prefix and then the rest gives what folding everything gives. A message is its first fact; a turn leaves the
state when it ends, a call when it has its result and its turn has ended: what stays is small.
"""

import copy
from typing import Self

from msgspec import Struct, field

from contracts import events
from contracts.events import AnyEvent

CallEvent = events.ToolCall | events.ToolApprovalRequest | events.ToolApproval | events.ToolStarted | events.ToolResult


WORKFLOWS = 1024
"""Workflows of a turn of which the last report is known."""

BROKEN_OFF = ("cancelled", "error")
"""How an answer ends only because its turn is about to: it is no step that an attempt has finished."""


class Answer(Struct):
    """One answer of a turn. `since`: the stream_start or the last stream_reset, where what is streamed begins."""

    message_id: str
    since: int
    end: events.StreamEnd | None = None


class Steer(Struct):
    """A message that a turn took in, when `after` things were recorded of it. `told`: `steer_applied` is there."""

    message: events.Message
    after: int
    told: bool = False


class Turn(Struct):
    """A message without `turn_end`. `claim` is the sequence of its last `turn_start`, 0 if there is none.

    `attempt` numbers the attempts; `failures` counts the claims since the last recorded step, or since the turn came to
    wait: while it is `waiting`, nobody's death is its own doing, and no claim is counted. `began` is when the first one
    claimed it, in the broker's time. `aim` is the turn that a steering message was for, until it is told
    (`steer_missed`) that it missed it. `failure` is what its agent failed with: no later attempt runs it again.
    """

    message: events.Message
    seq: int
    claim: int = 0
    began: str = ""
    aim: str | None = None
    attempt: int = 0
    failures: int = 0
    waiting: bool = False
    failure: events.Failure | None = None
    stopping: bool = False
    answers: dict[str, Answer] = field(default_factory=dict)
    calls: dict[str, events.ToolResult | None] = field(default_factory=dict)
    workflows: dict[str, events.WorkflowProgress] = field(default_factory=dict)
    steps: dict[int, events.Step] = field(default_factory=dict)
    steered: dict[str, Steer] = field(default_factory=dict)

    @property
    def recorded(self) -> int:
        """How much of it no later attempt does again: answers that have ended, calls, steps."""
        return sum(answer.end is not None for answer in self.answers.values()) + len(self.calls) + len(self.steps)

    @property
    def open_answer(self) -> Answer | None:
        """The answer that is being streamed, if any."""
        return next((answer for answer in self.answers.values() if answer.end is None), None)


class Call(Struct):
    """A tool call. `started` is the sequence of its last `tool_started`, 0 if there is none."""

    call: events.ToolCall
    request: events.ToolApprovalRequest | None = None
    decision: events.ToolApproval | None = None
    started: int = 0
    starts: int = 0
    result: events.ToolResult | None = None


class Session(Struct):
    """What a session's facts amount to, so far as somebody still has to act on them."""

    about: events.SessionUpdated | None = None
    turns: dict[str, Turn] = field(default_factory=dict)
    ended: dict[str, events.TurnStatus] = field(default_factory=dict)
    calls: dict[str, Call] = field(default_factory=dict)

    def copy(self) -> Self:
        """A state of its own."""
        return copy.deepcopy(self)

    @property
    def weight(self) -> int:
        """Bytes of memory, roughly (by measurement); what an open turn has recorded is its holder's and not counted."""
        return 1024 + 100 * len(self.ended) + 4096 * (len(self.turns) + len(self.calls))

    @property
    def first(self) -> str | None:
        """The first message without `turn_end`: the one whose turn runs or is next."""
        return next(iter(self.turns), None)

    def over(self, call: Call) -> bool:
        """Whether the call's turn has ended or is to be stopped: nothing may be started for it any more."""
        turn = self.turns.get(call.call.reply_to)
        return turn is None or turn.stopping

    def turn_of(self, message_id: str) -> Turn | None:
        """The open turn of a question, or of an answer to it."""
        if turn := self.turns.get(message_id):
            return turn
        return next((turn for turn in self.turns.values() if message_id in turn.answers), None)

    def apply(self, seq: int, event: AnyEvent) -> None:  # noqa: C901, PLR0912 - one case a type
        """Take in the fact at `seq`."""
        match event:
            case events.Message(message_id=message_id, policy=policy):
                if message_id not in self.turns and message_id not in self.ended:
                    if policy == "interrupt":
                        for turn in self.turns.values():
                            turn.stopping = True
                    self.turns[message_id] = Turn(event, seq, aim=self.first if policy == "steer" else None)
            case events.Cancel(message_id=message_id):
                named = self.first if message_id is None else message_id
                if named and (open_turn := self.turn_of(named)):
                    open_turn.stopping = True
            case events.SessionUpdated():
                self.about = event
            case events.TurnEnd(reply_to=reply_to, status=status):
                self._end(reply_to, status)
            case events.SteerApplied(message_id=message_id, reply_to=reply_to):
                if (steered := self.turns.get(reply_to)) and message_id in steered.steered:
                    steered.steered[message_id].told = True
            case events.SteerMissed(message_id=message_id):
                if missed := self.turns.get(message_id):
                    missed.aim = None
            case (
                events.ToolCall()
                | events.ToolApprovalRequest()
                | events.ToolApproval()
                | events.ToolStarted()
                | events.ToolResult()
            ):
                self._apply_call(seq, event)
            case (
                events.TurnStart(reply_to=reply_to)
                | events.TurnRelease(reply_to=reply_to)
                | events.StreamStart(reply_to=reply_to)
                | events.StreamEnd(reply_to=reply_to)
                | events.Step(reply_to=reply_to)
            ):
                if stepping := self.turns.get(reply_to):
                    _apply_step(stepping, seq, event)
            case events.AgentStatus(reply_to=str(reply_to), status=told):
                if at_it := self.turns.get(reply_to):
                    _apply_status(at_it, told in ("waiting_tool", "waiting_approval"))
            case events.StreamReset(message_id=message_id):
                if (answering := self.turn_of(message_id)) and message_id in answering.answers:
                    answering.answers[message_id].since = seq
            case events.WorkflowProgress() | events.Error():
                if self.first and (running := self.turns[self.first]).claim:
                    _apply_report(running, event)
            case _:
                pass  # for display, or an internal index: nobody acts on it

    def _end(self, reply_to: str, status: events.TurnStatus) -> None:
        if turn := self.turns.pop(reply_to, None):
            self.ended[reply_to] = status
            if status == "steered" and self.first:
                running = self.turns[self.first]
                running.steered[reply_to] = Steer(turn.message, running.recorded)
            for call_id, result in turn.calls.items():
                if result is not None:
                    self.calls.pop(call_id, None)

    def _apply_call(
        self,
        seq: int,
        event: CallEvent,
    ) -> None:
        if isinstance(event, events.ToolCall):
            if event.tool_call_id not in self.calls:
                self.calls[event.tool_call_id] = Call(event)
                if turn := self.turns.get(event.reply_to):
                    turn.calls[event.tool_call_id], turn.waiting = None, False
            return
        call = self.calls.get(event.tool_call_id)
        if call is None:
            return
        match event:
            case events.ToolApprovalRequest():
                call.request = event
            case events.ToolApproval():
                call.decision = call.decision or event
            case events.ToolStarted():
                call.started, call.starts = seq, call.starts + 1
            case events.ToolResult():
                call.result = event
                if turn := self.turns.get(call.call.reply_to):
                    turn.calls[event.tool_call_id] = event
                    turn.failures = min(turn.failures, 1)
                    turn.waiting = turn.waiting and None in turn.calls.values()
                else:
                    del self.calls[event.tool_call_id]


def _apply_status(turn: Turn, waits: bool) -> None:
    """Each attempt that comes to wait tells so. An answer that is open beside it may be what kills its process."""
    turn.waiting = waits and turn.open_answer is None
    if turn.waiting:
        turn.failures = 0


def _apply_report(running: Turn, event: events.WorkflowProgress | events.Error) -> None:
    """What the agent of the running turn tells beside its answers."""
    if isinstance(event, events.Error):
        running.failure = events.Failure(event.code, event.error, event.retryable)
    else:
        running.workflows[event.workflow_id] = event
        if len(running.workflows) > WORKFLOWS:  # other systems report, too
            del running.workflows[next(iter(running.workflows))]


def _apply_step(
    turn: Turn,
    seq: int,
    event: events.TurnStart | events.TurnRelease | events.StreamStart | events.StreamEnd | events.Step,
) -> None:
    match event:
        case events.TurnStart(timestamp=at):
            turn.claim, turn.attempt, turn.failures = seq, turn.attempt + 1, turn.failures + (not turn.waiting)
            turn.began = turn.began or at
        case events.TurnRelease():
            turn.attempt, turn.failures = turn.attempt - 1, max(0, turn.failures - 1)
        case events.StreamStart(message_id=message_id):
            turn.answers[message_id] = Answer(message_id, seq)
            turn.waiting = False
        case events.StreamEnd(message_id=message_id, finish_reason=reason):
            turn.answers[message_id] = Answer(message_id, seq, event)
            turn.waiting = False
            if reason not in BROKEN_OFF:
                turn.failures = min(turn.failures, 1)
        case events.Step(place=place):
            turn.steps[place] = event
            turn.failures, turn.waiting = min(turn.failures, 1), False
