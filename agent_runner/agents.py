"""Agents: which one answers a session, by name, as millrace.toml has them."""

import asyncio
from collections.abc import Iterable

from agent_runner import script
from agent_runner.converse import Offer, converse
from agent_runner.journal import Journal
from agent_runner.load import Function, load
from agent_runner.model import Model, check, open_model
from agent_runner.turn import Turn
from contracts.config import Agent, Config, ConfigError
from contracts.errors import Code, MillraceError
from contracts.session import Session


class Agents:
    """The agents of one process. A model is opened when its agent is first used, off the event loop."""

    def __init__(self, config: Config, offer: Offer) -> None:
        self._config = config
        self._offer = offer
        self._functions: dict[str, Function] = {}
        self._models: dict[str, asyncio.Future[Model]] = {}

    def load(self, groups: Iterable[str]) -> None:
        """Import the agents in Python of those groups, and check their models' settings. Raises ConfigError."""
        wanted = frozenset(groups)
        for name, agent in self._config.agents.items():
            if agent.group not in wanted or agent.model == "script":
                continue
            if agent.run:
                self._functions[name] = load(name, agent)
                continue
            try:
                check(agent)
            except ConfigError as error:
                raise ConfigError(f"agents.{name}: {error}") from None

    def name_of(self, session: Session) -> str:
        """The agent that a session was created with."""
        return (session.about and session.about.agent) or self._config.default_agent

    def of(self, name: str) -> Agent:
        """The agent of that name, for its settings."""
        return self._config.agent(name)

    async def run(self, journal: Journal) -> None:
        """Run a turn. Raises MillraceError where there is no such agent, or it cannot be opened, or fails."""
        name, turn = journal.name, Turn(journal)
        agent = self._config.agents.get(name)
        if agent is None:
            raise MillraceError(Code.AGENT_FAILED, f"there is no agent {name}")
        if agent.model == "script":
            await script.run(turn)
        elif agent.model:
            await converse(turn, journal, await self._model(name, agent), self._offer)
        else:
            await (await self._function(name, agent))(turn)
        journal.finish()

    async def _function(self, name: str, agent: Agent) -> Function:
        """One of another group is loaded when it is needed: a message may wait here that came before it was moved."""
        if name not in self._functions:
            try:
                self._functions[name] = await asyncio.to_thread(load, name, agent)
            except ConfigError as error:
                raise MillraceError(Code.AGENT_FAILED, str(error)) from None
        return self._functions[name]

    async def _model(self, name: str, agent: Agent) -> Model:
        opening = self._models.get(name)
        if opening is None:
            opening = self._models[name] = asyncio.ensure_future(asyncio.to_thread(open_model, agent))
        try:
            return await asyncio.shield(opening)
        except Exception as error:
            self._models.pop(name, None)
            if isinstance(error, ConfigError):
                raise MillraceError(Code.AGENT_FAILED, str(error)) from None
            raise

    async def aclose(self) -> None:
        """Close the models' connections."""
        for opening in self._models.values():
            if opening.done() and not opening.cancelled() and not opening.exception():
                await opening.result().aclose()
