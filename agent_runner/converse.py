"""Conversing: an agent that is a model. It is asked, its calls are made, and it is asked again, until it only answers.

A response is one step: it is recorded whole before its first call is made, so no later attempt asks for it again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from agent_runner import retry
from agent_runner.answer import Answer, json_bytes
from agent_runner.journal import ROOM, Journal
from agent_runner.model import Model, ModelFailure, Said
from agent_runner.prompt import RESPONSE, Prompt, Response, Tool, Use
from agent_runner.turn import Turn
from contracts import events
from contracts.depth import is_too_deep
from contracts.errors import Code, MillraceError

logger = logging.getLogger(__name__)

Offer = Callable[[tuple[str, ...]], Awaitable[tuple[Tool, ...]]]


async def converse(turn: Turn, journal: Journal, model: Model, offer: Offer) -> None:
    """Run the turn. Raises MillraceError."""
    while True:
        response = await _respond(journal, model, offer)
        await turn.results([call_id for use in response.calls if (call_id := await turn.begin(use))])
        steered = await turn.boundary()
        if not (response.calls or steered):
            return


async def _respond(journal: Journal, model: Model, offer: Offer) -> Response:
    """The model's response at this place: the recorded one, or a new one."""
    place = await journal.next("a model response")
    journal.spend("requests")
    answer = Answer(journal, place)
    if step := journal.turn.steps.get(place):
        journal.seen += 1
        response = Response.of(step.result)
        journal.spend("bytes", json_bytes(response.content, response.thinking))
    elif recorded := answer.recorded:
        journal.spend("bytes", json_bytes(recorded.content, recorded.thinking))
        journal.seen += 1
        journal.used(recorded.usage)
        return Response(recorded.content, answer.id, finish_reason=recorded.finish_reason)
    else:
        response = await _ask(journal, model, offer, place, answer)
    journal.used(response.usage)
    if response.answer_id:
        if not answer.recorded:
            said = Said(response.finish_reason, response.usage)
            await answer.end(said, response.content, response.thinking)
        journal.seen += 1
    return response


async def _ask(journal: Journal, model: Model, offer: Offer, place: int, answer: Answer) -> Response:
    await journal.status("thinking")
    tools = await offer(journal.agent.tools) if journal.agent.tools else ()
    said = await _try(journal, model, tools, answer)
    calls = tuple(_use(journal, tools, use, place + n) for n, use in enumerate(said.calls, 1))
    response = Response(
        answer.text,
        answer.id if answer.is_open else None,
        answer.thinking,
        said.signature,
        calls,
        "tool_call" if calls else said.finish_reason,
        said.usage,
    )
    if calls or not answer.is_open:
        await _record(journal, place, response)
    return response


async def _record(journal: Journal, place: int, response: Response) -> None:
    result = msgspec.to_builtins(response)
    if len(msgspec.json.encode(result)) > journal.hold.broker.max_event_bytes - ROOM:
        raise MillraceError(Code.TURN_LIMIT, "the model's response is larger than an event may be")
    await journal.put(events.Step(**journal.reply, name=RESPONSE, place=place, result=result))
    journal.seen += 1


def _use(journal: Journal, tools: tuple[Tool, ...], use: Use, place: int) -> Use:
    """The call with an id of ours, or with why it is not made: then the model is told."""
    refused = None
    if use.raw is not None:
        refused = "The arguments were not a JSON object; the tool was not called."
    elif is_too_deep(use.arguments):
        refused, use = "The arguments were nested too deeply; the tool was not called.", Use(use.tool, {})
    elif not any(use.tool == tool.name for tool in tools):
        refused = f"There is no tool of that name. There are: {', '.join(tool.name for tool in tools) or 'none'}."
    return msgspec.structs.replace(use, tool_call_id=journal.id("c", place), refused=refused)


async def _try(journal: Journal, model: Model, tools: tuple[Tool, ...], answer: Answer) -> Said:
    """Ask until there is a whole response, with growing pauses. What a failed try streamed is void."""
    agent, failures = journal.agent, 0
    while True:
        try:
            return await answer.stream(model.stream(_prompt(journal, tools)))
        except ModelFailure as failure:
            failures += 1
            wait = retry.pause(failures, failure.retry_after) if failure.retryable else None
            if wait is None or failures >= agent.tries:
                raise
            logger.warning(
                "asking the model again",
                extra={"agent": journal.name, "code": failure.code, "failures": failures, "seconds": round(wait, 1)},
            )
            await answer.reset(str(failure.code))
            await asyncio.sleep(wait)


def _prompt(journal: Journal, tools: tuple[Tool, ...]) -> Prompt:
    agent, conversation = journal.agent, journal.hold.state.conversation
    return conversation.prompt(journal.holding.message_id, agent.instructions, agent.context_tokens, tools)
