"""Tool servers that die, are away or come back: what becomes of the calls to them."""

import asyncio
import os
import signal

import pytest

from contracts.config import ToolServer
from tests.harness.wait import until
from tests.tool_runner.conftest import OVER_STDIO, STARTING, Reports, Web, call, hanging, running
from tool_runner.outcome import Lost, NotSent
from tool_runner.servers import Servers

pytestmark = pytest.mark.anyio

MISSING = ToolServer(command=("/nonexistent/server",))


async def test_a_server_process_sees_only_the_environment_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    config = ToolServer(command=OVER_STDIO.command, env={"GIVEN": "1"})
    async with Servers({"probe": config}, patience=STARTING) as servers:
        seen = (await call(servers, "probe.environment")).result["result"]
    assert "GIVEN" in seen
    assert "OPENAI_API_KEY" not in seen


async def test_a_call_is_lost_when_its_server_is_killed_and_the_next_one_works(
    stdio: Servers,
) -> None:
    killed = (await call(stdio, "probe.pid")).result["result"]
    async with hanging(stdio) as task:
        os.kill(killed, signal.SIGKILL)
        with pytest.raises(Lost):
            await task
    assert (await call(stdio, "probe.pid")).result["result"] != killed


async def test_an_idle_server_that_dies_is_started_again(stdio: Servers) -> None:
    os.kill((await call(stdio, "probe.pid")).result["result"], signal.SIGKILL)
    await until(lambda: not stdio.ready("probe"))
    await until(lambda: stdio.ready("probe"), within=STARTING)


async def test_a_server_that_cannot_start_is_not_sent_to_and_disturbs_no_other(web: Web) -> None:
    async with Servers({"missing": MISSING, "probe": web.config}, patience=1.0) as servers:
        with pytest.raises(NotSent):
            await call(servers, "missing.tool")
        with pytest.raises(NotSent):
            await servers.tool("missing.tool")
        assert (await call(servers, "probe.pid")).status == "completed"


async def test_a_call_that_finds_nobody_is_not_sent_and_leaves_the_others_alone(web: Web) -> None:
    async with Servers({"probe": web.config}) as servers, hanging(servers) as task:
        web.listen_no_more()
        with pytest.raises(NotSent):
            await call(servers, "probe.pid")
        assert not task.done()


async def test_a_call_is_lost_when_its_http_connection_drops(web: Web) -> None:
    async with Servers({"probe": web.config}) as servers:
        async with hanging(servers) as task:
            web.drop_connections()
            with pytest.raises(Lost):
                await task
        assert (await call(servers, "probe.pid")).status == "completed"


@pytest.mark.parametrize("sessions", [False, True])
async def test_a_web_server_that_was_away_is_used_again(sessions: bool) -> None:
    async with running(Web(sessions=sessions)) as web, Servers({"probe": web.config}) as servers:
        assert (await call(servers, "probe.pid")).status == "completed"
        await web.stop()
        with pytest.raises(NotSent):
            await call(servers, "probe.pid")
        await web.start()
        assert (await call(servers, "probe.pid")).status == "completed"


async def test_a_call_that_a_restarted_server_refuses_for_its_session_is_not_sent() -> None:
    """Streamable HTTP up to 2025-11-25: 404 for an MCP session that the server does not know."""
    async with running(Web(sessions=True)) as web, Servers({"probe": web.config}) as servers:
        assert (await call(servers, "probe.pid")).status == "completed"
        await web.stop()
        await web.start()
        with pytest.raises(NotSent):
            await call(servers, "probe.pid")
        assert (await call(servers, "probe.pid")).status == "completed"


async def test_leaving_the_scope_ends_the_process_and_loses_the_calls() -> None:
    """A server whose input ends answers what it has in hand with an error: that is no outcome."""
    async with Servers({"probe": OVER_STDIO}, patience=STARTING) as servers:
        pid = (await call(servers, "probe.pid")).result["result"]
        reports = Reports()
        task = asyncio.create_task(call(servers, "probe.hang", progress=reports))
        await until(lambda: reports.values)
    with pytest.raises(Lost):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
