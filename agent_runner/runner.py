"""The holder of one message: claims its turn, runs the agent, ends the turn."""

import contextlib
import logging

from agent_runner import decide
from agent_runner.agents import Agents
from agent_runner.decide import CloseAnswer, Outcome
from agent_runner.script import ScriptFailed
from agent_runner.state import State
from agent_runner.turn import Interrupted, Turn
from broker import metrics, telemetry
from broker.acts import Act, Perform, Put
from broker.connect import Broker
from broker.consume import Delivery
from broker.hold import Folded, Hold, holding, settle, work_while
from contracts import events
from contracts.errors import Code, MillraceError
from contracts.events import Failure

logger = logging.getLogger(__name__)


class MessageHolder:
    """What an agent runner does with the message that it holds."""

    def __init__(self, hold: Hold[State], message: events.Message, agents: Agents) -> None:
        self.hold = hold
        self.holding = decide.Holding(hold.topic.id, message.message_id, hold.delivery.seq)
        self._agents = agents
        self._closing: CloseAnswer | None = None
        decide.first_look(hold.state.session, self.holding)

    @property
    def is_done(self) -> bool:
        """Whether the turn has its outcome, and only its end is to be told."""
        return self.holding.outcome is not None

    def decide(self) -> Act:
        """The next act. An answer that is still open is closed by `perform`, before its turn ends."""
        act = decide.decide(self.hold.state.session, self.holding)
        self._closing = act if isinstance(act, CloseAnswer) else None
        return Perform() if isinstance(act, CloseAnswer) else act

    def stored(self, put: Put, seq: int) -> None:
        """The turn is this holder's, or it has ended."""
        if put.claim:
            self.holding.claim = seq
        if isinstance(put.event, events.TurnEnd):
            self._count(put.event)

    def _count(self, end: events.TurnEnd) -> None:
        agent = self._agents.name_of(self.hold.state.session)
        took = self.hold.broker.now() - self.hold.delivery.stored_at
        metrics.RESPONSE_TIME.labels(agent, end.status).observe(took)
        for name, kind in (("input_tokens", "input"), ("output_tokens", "output")):
            if end.usage and name in end.usage:
                metrics.TOKEN_USAGE.labels(agent, kind).observe(end.usage[name])

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
        """Run the agent until it is done or the log says that it is to stop."""
        turn = Turn(self.hold, self.holding, self._agents.name_of(self.hold.state.session))
        if self._closing:
            await turn.close(self._closing.message_id, self._closing.finish_reason)
            return
        with contextlib.suppress(Interrupted):
            self.holding.outcome = await work_while(self.hold, self._run(turn), self._is_wanted)

    def _is_wanted(self) -> bool:
        return not self.hold.stopping and isinstance(decide.decide(self.hold.state.session, self.holding), Perform)

    async def _run(self, turn: Turn) -> Outcome:
        code, text, retryable = Code.AGENT_FAILED, "", False
        try:
            await self._agents.run(turn.agent, turn)
            return Outcome("completed", usage=turn.usage or None)
        except Interrupted:
            raise
        except MillraceError as failure:
            code, text, retryable = failure.code, str(failure), failure.entry.retryable
        except ScriptFailed as failure:
            text = str(failure)
        except Exception:
            logger.exception("an agent failed", extra={"session_id": self.hold.topic.id})
            text = "the agent raised an exception"
        await turn.failed(code, text, retryable=retryable)
        metrics.ERRORS.labels(code).inc()
        return Outcome("failed", Failure(code, text, retryable))


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
