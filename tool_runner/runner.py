"""The holder of one tool call: asks where a person is to be asked, runs it once, reports."""

import asyncio
import logging
import time

import msgspec

from broker import metrics, points, telemetry
from broker.acts import Act, Perform, Put, Wait
from broker.connect import Broker
from broker.delivery import Delivery
from broker.folded import Folded, holding
from broker.hold import Hold
from broker.settle import settle, work_while
from contracts import events
from contracts.config import Config
from contracts.errors import Code
from contracts.session import Session
from tool_runner import decide, rules
from tool_runner.decide import Outcome, Permit
from tool_runner.outcome import Lost, NotSent
from tool_runner.servers import Servers, Tool

logger = logging.getLogger(__name__)

CALL_TIMEOUT = 600.0
"""Seconds that one execution may take."""

RETRY_PAUSE = 0.5


class Tools(msgspec.Struct, frozen=True):
    """What a tool runner runs calls with."""

    config: Config
    servers: Servers
    folded: Folded[Session]
    ack_wait: float


class CallHolder:
    """What a tool runner does with the tool call that it holds."""

    def __init__(self, hold: Hold[Session], call: events.ToolCall, holding: decide.Holding, tools: Tools) -> None:
        self.hold = hold
        self.holding = holding
        self._tools = tools
        self._tool = call.tool
        self._claiming = 0.0
        self._pending = False

    @property
    def is_done(self) -> bool:
        """Whether the call is this holder's to the end: nobody else could know that its tool did not run."""
        return bool(self.holding.claim)

    def decide(self) -> Act:
        """The next act."""
        if not self.holding.claim:
            self._claiming = time.monotonic()
        act = decide.decide(self.hold.state, self.holding, self.hold.broker.now())
        self._count_pending(isinstance(act, Wait))
        return act

    def _count_pending(self, pending: bool) -> None:
        if pending != self._pending:
            self._pending = pending
            metrics.PENDING_APPROVALS.inc(1 if pending else -1)

    def stored(self, put: Put, seq: int) -> None:
        """The call is this holder's to execute, or it has its result."""
        if put.claim:
            self.holding.claim = seq
        if isinstance(put.event, events.ToolResult):
            metrics.TOOL_CALLS.labels(self._tool, put.event.status).inc()
            if put.event.status == "expired":
                metrics.APPROVALS.labels("expired").inc()

    async def release(self) -> bool:
        """Told to stop: a call that was not started is anybody's."""
        self._count_pending(False)
        return True

    def context(self, _event: events.AnyEvent) -> dict[str, str] | None:
        """The call's trace goes on with its result."""
        return telemetry.inject({})

    async def perform(self) -> None:
        """Execute within `ack_wait` of the start, or not at all: later, somebody else may hold the call."""
        await self.hold.look()
        if not isinstance(self.decide(), Perform):
            return
        if time.monotonic() - self._claiming > self._tools.ack_wait:
            self.holding.late = True
            return
        outcome = await work_while(self.hold, self._execute(), lambda: isinstance(self.decide(), Perform))
        if outcome is None:
            repeatable = self.holding.permit.repeatable
            outcome = Outcome("cancelled") if repeatable else Outcome("unknown", error="cancelled while it ran")
        self.holding.outcome = outcome

    async def _execute(self) -> Outcome:
        call = self.hold.state.calls[self.holding.call_id]
        arguments = call.decision.arguments if call.decision and call.decision.arguments is not None else None
        began = time.monotonic()
        with telemetry.tracer.start_as_current_span("execute_tool", attributes={"gen_ai.tool.name": call.call.tool}):
            outcome = await self._call(call.call.tool, call.call.arguments if arguments is None else arguments)
        metrics.TOOL_EXECUTION_TIME.labels(call.call.tool, outcome.status).observe(time.monotonic() - began)
        return outcome

    async def _call(self, tool: str, arguments: dict[str, object]) -> Outcome:
        executions = 0
        while True:
            executions += 1
            try:
                points.reach("call", "before")
                done = await self._tools.servers.call(
                    tool,
                    arguments,
                    timeout=CALL_TIMEOUT,
                    progress=self._report,
                    idempotency_key=self.holding.call_id,
                    meta=telemetry.inject({}),
                )
                points.reach("call", "after")
                return Outcome(done.status, done.result, done.error, done.code)
            except NotSent as error:
                return Outcome("failed", error=str(error), code=Code.TOOL_ERROR)
            except Lost as error:
                if not self.holding.permit.repeatable:
                    return Outcome("unknown", error=str(error))
                if executions >= self.holding.limit:  # it may be what ends its server
                    return decide.too_often(executions)
                await asyncio.sleep(RETRY_PAUSE)

    async def _report(self, progress: float, total: float | None, message: str | None) -> None:
        """Append a report. One that something else came before is left out; a newer one follows.

        Who woke up after a takeover may have folded it by now, so that the condition alone would hold.
        """
        if not isinstance(self.decide(), Perform):
            return
        await self.hold.append(
            events.ToolProgress(
                id=events.new_id(),
                timestamp=events.timestamp(),
                session_id=self.holding.session_id,
                tool_call_id=self.holding.call_id,
                progress=progress,
                total=total,
                message=message,
            )
        )


async def permit_of(call: events.ToolCall, tenant: str, user: str, tools: Tools) -> Permit:
    """What the rules and the tool's own hints say of a call; without hints where its server is away."""
    problem: str | None = None
    tool: Tool | None = None
    try:
        tool = await tools.servers.tool(call.tool)
    except NotSent as error:
        problem = str(error)
    if tool is None and problem is None:
        return Permit("deny", problem=f"there is no tool {call.tool}", code=Code.TOOL_NOT_FOUND)
    server = tools.config.servers.get(call.tool.partition(".")[0])
    trusted = bool(server and server.trusted)
    read_only = bool(tool and tool.read_only)
    decision = rules.decide(tools.config.rules, call.tool, tenant, user, read_only=read_only, trusted=trusted)
    if problem and decision.action != "deny":
        return Permit(decision.action, decision.expires, problem=problem, code=Code.TOOL_ERROR)
    repeatable = bool(tool and trusted and (tool.read_only or tool.idempotent))
    return Permit(decision.action, decision.expires, repeatable=repeatable)


async def hold_call(broker: Broker, delivery: Delivery, tools: Tools) -> None:
    """Hold a tool call until it has its result, or is somebody else's."""
    call = events.decode(delivery.data)
    if not isinstance(call, events.ToolCall):
        logger.error("not a tool call", extra={"sequence": delivery.seq})
        return await delivery.ack()
    attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": call.tool}
    with telemetry.tracer.start_as_current_span("tool", telemetry.extract(delivery.headers), attributes=attributes):
        async with holding(broker, delivery, tools.folded) as hold:
            held = decide.Holding(hold.topic.id, call.tool_call_id)
            decide.first_look(hold.state, held)  # before anything is waited for: others fold more into the state
            turn = hold.state.turns.get(call.reply_to)
            user = turn.message.user_id if turn else ""
            held.permit = await permit_of(call, hold.topic.tenant, user, tools)
            await settle(hold, CallHolder(hold, call, held, tools))
    result = hold.state.calls.get(call.tool_call_id)
    logger.info(
        "tool call let go",
        extra={
            "session_id": call.session_id,
            "tool_call_id": call.tool_call_id,
            "status": result.result.status if result and result.result else "settled",
        },
    )
