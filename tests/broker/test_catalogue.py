"""The catalogue of tools: what tool runners tell and agent runners read."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agent_runner.catalogue import Tools
from agent_runner.prompt import Tool as Offered
from broker.connect import Broker
from contracts import catalogue
from contracts.catalogue import Catalogue, Listed
from tests.broker.conftest import Connect
from tests.harness.nats_server import NatsServer
from tests.harness.wait import until
from tool_runner.listing import Lister
from tool_runner.servers import Tool

pytestmark = pytest.mark.anyio

ADD = Tool("demo.add", "Adds.", {"type": "object"}, read_only=True)
NOTE = Tool("demo.note", "Notes.", {"type": "object"})


@pytest.fixture
async def teller(service: Connect) -> AsyncIterator[Broker]:
    """A tool runner's connection."""
    async with service("tool_runner") as broker:
        yield broker


async def test_what_a_tool_runner_tells_an_agent_is_offered(
    teller: Broker, agent: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The globs of an agent choose; a changed list replaces the one before it."""
    monkeypatch.setattr("agent_runner.catalogue.FRESH", 0.0)
    lister = Lister(teller)
    writing = asyncio.create_task(lister.run())
    tools = Tools(agent, ["demo"])
    try:
        lister.told("demo", {"demo.add": ADD, "demo.note": NOTE})
        assert await tools.offered(("demo.a*",)) == (Offered("demo.add", "Adds.", {"type": "object"}),)
        assert [tool.name for tool in await tools.offered(("*",))] == ["demo.add", "demo.note"]
        assert await tools.offered(()) == ()
        lister.told("demo", {"demo.note": NOTE})

        async def changed() -> bool:
            return [tool.name for tool in await tools.offered(("*",))] == ["demo.note"]

        await until(changed)
    finally:
        writing.cancel()


async def test_an_agent_does_without_a_server_that_nobody_lists(agent: Broker) -> None:
    """Our choice: a moment of patience, once; then the model is asked without its tools."""
    tools = Tools(agent, ["absent"], patience=0.0)
    assert await tools.offered(("*",)) == ()


async def test_while_the_broker_is_away_the_tools_that_were_read_are_offered(
    teller: Broker, agent: Broker, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our choice: a tool that is gone meanwhile fails when it is called."""
    monkeypatch.setattr("agent_runner.catalogue.FRESH", 0.0)
    await teller.request("tools.demo", catalogue.encode(Catalogue("demo", (Listed("demo.add", "Adds.", {}),))))
    tools = Tools(agent, ["demo"])
    assert len(await tools.offered(("*",))) == 1
    await nats.kill()
    await until(lambda: not agent.connected)
    assert len(await tools.offered(("*",))) == 1
