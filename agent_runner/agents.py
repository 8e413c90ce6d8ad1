"""Agents: which one answers a session, by name, as millrace.toml has them."""

import asyncio
from collections.abc import Awaitable, Callable

from agent_runner import script
from agent_runner.conversation import Conversation
from agent_runner.model import Model, open_model
from agent_runner.turn import Turn
from broker.read import read
from contracts import events
from contracts.config import Agent, Config, ConfigError
from contracts.errors import Code, MillraceError
from contracts.session import Session

Run = Callable[[Turn], Awaitable[None]]


class Agents:
    """The agents of one process. A model is opened when its agent is first used, off the event loop."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._models: dict[str, asyncio.Future[Model]] = {}

    def name_of(self, session: Session) -> str:
        """The agent that a session was created with."""
        return (session.about and session.about.agent) or self._config.default_agent

    async def run(self, name: str, turn: Turn) -> None:
        """Run the agent of that name. Raises MillraceError where there is none, or it cannot be opened."""
        agent = self._config.agents.get(name)
        if agent is None:
            raise MillraceError(Code.AGENT_FAILED, f"there is no agent {name}")
        if agent.model == "script":
            await script.run(turn)
        elif agent.model:
            await _converse(turn, agent, await self._model(name, agent))
        else:
            raise MillraceError(Code.AGENT_FAILED, f"agent {name}: Python agents are not supported yet")

    async def _model(self, name: str, agent: Agent) -> Model:
        opening = self._models.get(name)
        if opening is None:
            opening = self._models[name] = asyncio.ensure_future(asyncio.to_thread(open_model, agent))
        try:
            return await asyncio.shield(opening)
        except ConfigError as error:
            self._models.pop(name, None)
            raise MillraceError(Code.AGENT_FAILED, str(error)) from None

    async def aclose(self) -> None:
        """Close the models' connections."""
        for opening in self._models.values():
            if opening.done() and not opening.cancelled() and not opening.exception():
                await opening.result().aclose()


async def _converse(turn: Turn, agent: Agent, model: Model) -> None:
    """Ask the model, and again where somebody steered the turn meanwhile."""
    while True:
        await turn.status("thinking")
        conversation = Conversation()
        async for records in read(turn.broker, turn.topic.facts, 0, turn.seq):
            for record in records:
                event = events.decode(record.data)
                if event is not None:
                    conversation.apply(record.seq, event)
        await turn.answer(model.stream(conversation.entries(agent.instructions, turn.message.message_id)))
        if not await turn.boundary():
            return
