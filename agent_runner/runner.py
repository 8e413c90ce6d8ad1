"""The holder of one message: claims its turn, runs the agent, ends the turn."""

import asyncio
import contextlib
import logging
from math import inf

from agent_runner import answer, decide
from agent_runner.agents import Agents
from agent_runner.decide import CloseAnswer, Outcome
from agent_runner.journal import Interrupted, Journal
from agent_runner.state import State
from broker import dead, metrics, telemetry
from broker.acts import Act, Perform, Put
from broker.connect import Broker
from broker.delivery import Delivery
from broker.folded import Folded, holding
from broker.hold import Hold
from broker.settle import settle, work_while
from contracts import events
from contracts.errors import Code, MillraceError
from contracts.events import Failure

logger = logging.getLogger(__name__)


LONGEST_TEXT = 4096
"""Characters of a failure that are told."""


class MessageHolder:
    """What an agent runner does with the message that it holds."""

    def __init__(self, hold: Hold[State], message: events.Message, agents: Agents) -> None:
        self.hold = hold
        self._agents = agents
        self._name = agents.name_of(hold.state.session)
        self._agent = agents.of(self._name)
        self.holding = decide.Holding(
            hold.topic.id,
            message.message_id,
            hold.delivery.seq,
            limit=self._agent.attempts,
            seconds=self._agent.turn_seconds,
        )
        self._closing: CloseAnswer | None = None
        self._burying: Failure | None = None
        self._buried = False
        decide.first_look(hold.state.session, self.holding)

    @property
    def is_done(self) -> bool:
        """Whether the turn has its outcome, and only its end is to be told."""
        return self.holding.outcome is not None

    def decide(self) -> Act:
        """The next act. What must be done before a turn ends is done by `perform`: its open answer, its letter."""
        act = decide.decide(self.hold.state.session, self.holding, self.hold.broker.now())
        self._closing = self._burying = None
        match act:
            case CloseAnswer():
                self._closing = act
                return Perform()
            case Put(event=events.TurnEnd(error=Failure(retryable=True) as failure)) if not self._buried:
                self._burying = failure
                return Perform()
        return act

    def stored(self, put: Put, seq: int) -> None:
        """The turn is this holder's, or it has ended."""
        if put.claim:
            self.holding.claim = seq
        if isinstance(put.event, events.TurnEnd):
            self._count(put.event)

    def _count(self, end: events.TurnEnd) -> None:
        took = self.hold.broker.now() - self.hold.delivery.stored_at
        metrics.RESPONSE_TIME.labels(self._name, end.status).observe(took)
        if end.error:
            metrics.ERRORS.labels(end.error.code).inc()
        for name, kind in (("input_tokens", "input"), ("output_tokens", "output")):
            if end.usage and name in end.usage:
                metrics.TOKEN_USAGE.labels(self._name, kind).observe(end.usage[name])

    async def release(self) -> bool:
        """Give the claim back, so that the next attempt is not counted as one after a failure."""
        if not self.holding.claim:
            return True
        while put := decide.release(self.hold.state.session, self.holding):
            if await self.hold.append(put.event) is not None:
                return True
        return False

    def context(self, _event: events.AnyEvent) -> dict[str, str] | None:
        """Only tool calls carry a trace on; `Turn` puts those."""
        return None

    async def perform(self) -> None:
        """Run the agent until it is done or the log says that it is to stop; or do what comes before the end."""
        turn = self.hold.state.session.turns[self.holding.message_id]
        if self._closing:
            opened = turn.answers[self._closing.message_id]
            return await answer.close(self.hold, decide.reply(self.holding), opened, self._closing.finish_reason)
        if self._burying:
            return await self._bury(self._burying)
        journal = Journal(self.hold, self.holding, self._name, self._agent)
        until = decide.deadline(turn, self.holding)
        left = None if until == inf else max(0.0, until - self.hold.broker.now())
        try:
            with contextlib.suppress(Interrupted, TimeoutError):
                async with asyncio.timeout(left):
                    running = self._run(journal)
                    outcome = await work_while(self.hold, running, lambda: journal.wanted, journal.interrupt)
                    if journal.ending and not outcome:  # the agent would have gone on
                        outcome = await self._failed(journal, journal.ending)
                    self.holding.outcome = outcome
        finally:
            journal.closed = True

    async def _bury(self, failure: Failure) -> None:
        """Keep the message for somebody to look at, and to redrive: doing it again may succeed."""
        hold = self.hold
        letter = dead.letter(
            hold.topic.tenant,
            hold.delivery,
            failure.code,
            failure.error,
            log_sequence=hold.delivery.seq,
            session_id=hold.topic.id,
            message_id=self.holding.message_id,
        )
        await dead.send(hold.broker, letter)
        self._buried = True

    async def _run(self, journal: Journal) -> Outcome:
        try:
            await self._agents.run(journal)
        except GeneratorExit:
            raise
        except BaseException as error:  # also what would end the process, and every other turn with it
            if journal.interrupted:
                raise Interrupted from error
            return await self._failed(journal, journal.ending or self._told(error))
        return Outcome("completed")

    def _told(self, error: BaseException) -> MillraceError:
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if isinstance(error, MillraceError):
            return error
        logger.error("an agent failed", exc_info=error, extra={"session_id": self.hold.topic.id, "agent": self._name})
        return MillraceError(Code.AGENT_FAILED, f"the agent raised {type(error).__name__}")

    async def _failed(self, journal: Journal, error: MillraceError) -> Outcome:
        text = str(error)[:LONGEST_TEXT].encode(errors="replace").decode()  # of an agent's own, perhaps a file's name
        failure = Failure(error.code, text, error.entry.retryable)
        await journal.fail(failure)
        return Outcome("failed", failure)


async def hold_message(broker: Broker, delivery: Delivery, folded: Folded[State], agents: Agents) -> None:
    """Hold a message until its turn has ended, or is somebody else's."""
    message = events.decode(delivery.data)
    if not isinstance(message, events.Message):
        logger.error("not a message", extra={"sequence": delivery.seq})
        return await delivery.ack()
    attributes = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.conversation.id": message.session_id or "",
        "messaging.message.id": message.message_id,
    }
    with telemetry.tracer.start_as_current_span("turn", telemetry.extract(delivery.headers), attributes=attributes):
        async with holding(broker, delivery, folded) as hold:
            await settle(hold, MessageHolder(hold, message, agents))
    logger.info(
        "turn finished",
        extra={
            "session_id": message.session_id,
            "message_id": message.message_id,
            "status": hold.state.session.ended.get(message.message_id, "let go"),
        },
    )
