"""A model on a server of the test's own, and requests to it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from agent_runner.conversation import Entry
from agent_runner.model import Model, ModelFailure, Piece, Said, open_model
from contracts.config import Agent
from tests.harness.openai_server import OpenAIServer, openai_server

SECRET = "sk-secret"
WITHIN = 5.0
ASKED = [Entry("user", "question")]


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    """A server that speaks OpenAI's chat completions."""
    async with openai_server() as running:
        yield running


@pytest.fixture
async def model(server: OpenAIServer) -> AsyncIterator[Model]:
    """A model on that server, with a key."""
    agent = Agent(model="openai:fake", base_url=server.base_url, api_key_env="KEY")
    async with aclosing(open_model(agent, env={"KEY": f"{SECRET}\n"})) as opened:
        yield opened


async def said(model: Model, conversation: list[Entry] = ASKED) -> list[Piece | Said]:
    """The whole response."""
    async with asyncio.timeout(WITHIN):
        return [piece async for piece in model.stream(conversation)]


async def failure(model: Model) -> ModelFailure:
    """How a request fails."""
    with pytest.raises(ModelFailure) as caught:
        await said(model)
    return caught.value
