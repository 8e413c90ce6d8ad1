"""The catalogue of tools: what tool runners tell and agent runners read."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agent_runner.catalogue import Tools
from agent_runner.prompt import Tool as Offered
from broker.connect import REPLY_WITHIN, Broker
from contracts import catalogue
from contracts.catalogue import Catalogue, Listed
from tests.broker.conftest import Connect
from tests.harness.nats_server import NatsServer
from tests.harness.wait import until
from tests.tool_runner.conftest import OVER_STDIO, STARTING, Web, running
from tool_runner.listing import Lister
from tool_runner.servers import Servers, Tool

pytestmark = pytest.mark.anyio

ADD = Tool("demo.add", "Adds.", {"type": "object"}, read_only=True)
NOTE = Tool("demo.note", "Notes.", {"type": "object"})


@pytest.fixture
async def teller(service: Connect) -> AsyncIterator[Broker]:
    """A tool runner's connection."""
    async with service("tool_runner") as broker:
        yield broker


@pytest.fixture
async def writing(teller: Broker) -> AsyncIterator[Lister]:
    """What writes the catalogue in a tool runner."""
    lister = Lister(teller)
    task = asyncio.create_task(lister.run())
    yield lister
    task.cancel()


async def test_what_a_tool_runner_tells_an_agent_is_offered(
    writing: Lister, agent: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The globs of an agent choose; a changed list replaces the one before it."""
    monkeypatch.setattr("agent_runner.catalogue.FRESH", 0.0)
    tools = Tools(agent, ["demo"])
    writing.told("demo", {"demo.add": ADD, "demo.note": NOTE})
    assert await tools.offered(("demo.a*",)) == (Offered("demo.add", "Adds.", {"type": "object"}),)
    assert [tool.name for tool in await tools.offered(("*",))] == ["demo.add", "demo.note"]
    assert await tools.offered(()) == ()
    writing.told("demo", {"demo.note": NOTE})

    async def changed() -> bool:
        return [tool.name for tool in await tools.offered(("*",))] == ["demo.note"]

    await until(changed)


async def test_what_a_real_server_lists_is_offered_when_it_has_connected(
    writing: Lister, agent: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our choice: over stdio and over HTTP alike, without a call."""
    monkeypatch.setattr("agent_runner.catalogue.FRESH", 0.0)
    tools = Tools(agent, ["probe", "web"], patience=0.0)
    async with running(Web()) as web, Servers({"probe": OVER_STDIO, "web": web.config}, told=writing.told):
        await until(lambda: _offered(tools, "probe.fail", "web.fail"), within=STARTING)
        (fail,) = await tools.offered(("probe.fail",))
        assert fail.parameters["required"] == ["text"]


async def test_what_a_real_server_gets_later_is_offered_too(
    writing: Lister, agent: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our choice: it is asked now and then, as not every server tells that its list changed."""
    monkeypatch.setattr("agent_runner.catalogue.FRESH", 0.0)
    monkeypatch.setattr("tool_runner.servers.LISTED_EVERY", 0.05)
    tools = Tools(agent, ["web"], patience=0.0)
    async with running(Web()) as web, Servers({"web": web.config}, told=writing.told):
        await until(lambda: _offered(tools, "web.fail"), within=STARTING)
        web.mcp.add_tool(lambda: "here", name="late")
        await until(lambda: _offered(tools, "web.fail", "web.late"))


async def _offered(tools: Tools, *names: str) -> bool:
    return [tool.name for tool in await tools.offered(("*.fail", "*.late"))] == sorted(names)


async def test_what_is_stored_of_a_server_that_is_not_configured_is_not_offered(teller: Broker, agent: Broker) -> None:
    """Our choice: nobody has to delete the entry of a server that was removed."""
    for server in ("gone", "demo"):
        entry = Catalogue(server, (Listed(f"{server}.add", "Adds.", {}),))
        await teller.request(f"tools.{server}", catalogue.encode(entry))
    assert [tool.name for tool in await Tools(agent, ["demo"]).offered(("*",))] == ["demo.add"]


async def test_a_broker_that_hangs_holds_up_no_agent(
    teller: Broker, agent: Broker, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our choice: what was read is offered after a moment."""
    monkeypatch.setattr("agent_runner.catalogue.FRESH", 0.0)
    monkeypatch.setattr("agent_runner.catalogue.ANSWER_WITHIN", 0.05)
    await teller.request("tools.demo", catalogue.encode(Catalogue("demo", (Listed("demo.add", "Adds.", {}),))))
    tools = Tools(agent, ["demo", *(f"absent{number}" for number in range(20))], patience=0.0)
    assert len(await tools.offered(("*",))) == 1
    nats.pause()
    try:
        async with asyncio.timeout(REPLY_WITHIN):
            assert len(await tools.offered(("*",))) == 1
    finally:
        nats.resume()


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
