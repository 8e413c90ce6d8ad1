"""A model on a server of the test's own, whichever protocol it speaks, and requests to it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import Struct

from agent_runner import answer
from agent_runner.model import Model, ModelFailure, Piece, Said, open_model
from agent_runner.prompt import Prompt, User
from contracts import events
from contracts.config import Agent
from tests.harness import anthropic_server, openai_server
from tests.harness.attempts import Log
from tests.harness.model_server import ModelServer, Reply

SECRET = "sk-secret"
WITHIN = 5.0
ASKED = Prompt("", (User("question"),))


class Protocol(Struct, frozen=True):
    """What a server speaks, and how it says the same."""

    provider: str
    server: Callable[[], AbstractAsyncContextManager[ModelServer]]
    answer: Callable[..., Reply]
    broken: Callable[..., Reply]
    refusal: Callable[..., Reply]
    part: Callable[..., tuple[bytes, ...]]
    rest: Callable[..., tuple[bytes, ...]]


def _protocol(provider: str, module: Any) -> Protocol:
    server = getattr(module, f"{provider}_server")
    return Protocol(provider, server, module.answer, module.broken, module.refusal, module.part, module.rest)


PROTOCOLS = {"openai": _protocol("openai", openai_server), "anthropic": _protocol("anthropic", anthropic_server)}

OPENAI = pytest.mark.parametrize("protocol", ["openai"], indirect=True)
ANTHROPIC = pytest.mark.parametrize("protocol", ["anthropic"], indirect=True)


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    """Each protocol in turn."""
    return PROTOCOLS[request.param]


@pytest.fixture
async def server(protocol: Protocol) -> AsyncIterator[ModelServer]:
    """A server that speaks it."""
    async with protocol.server() as running:
        yield running


@pytest.fixture
async def model(protocol: Protocol, server: ModelServer) -> AsyncIterator[Model]:
    """A model on that server, with a key."""
    async with aclosing(opened(protocol, server, api_key_env="KEY")) as running:
        yield running


def opened(protocol: Protocol, server: ModelServer, **fields: Any) -> Model:
    """A model of an agent with those fields."""
    agent = Agent(model=f"{protocol.provider}:fake", base_url=server.base_url, **fields)
    return open_model(agent, env={"KEY": f"{SECRET}\n"})


async def said(model: Model, prompt: Prompt = ASKED) -> list[Piece | Said]:
    """The whole response."""
    async with asyncio.timeout(WITHIN):
        return [piece async for piece in model.stream(prompt)]


async def end_of(model: Model, prompt: Prompt = ASKED) -> Said:
    """How a response ends."""
    *pieces, end = await said(model, prompt)
    assert isinstance(end, Said)
    assert not any(isinstance(piece, Said) for piece in pieces)
    return end


async def failure(model: Model, prompt: Prompt = ASKED) -> ModelFailure:
    """How a request fails."""
    with pytest.raises(ModelFailure) as caught:
        await said(model, prompt)
    return caught.value


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    """A log in memory, whose deltas are read where an answer is closed."""
    log = Log()
    log.topic.delta = ""

    async def read(*_: object) -> AsyncIterator[list[Any]]:
        await asyncio.sleep(0)
        yield [SimpleNamespace(data=events.encode(delta)) for delta in log.said]

    monkeypatch.setattr(answer, "read", read)
    return log
