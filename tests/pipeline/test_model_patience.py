"""An agent that waits for its model as long as may be: only a cancel, or what the server asks for, ends a request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.harness.client import Client, joined, new_session
from tests.harness.model_server import Reply, Step
from tests.harness.openai_server import OpenAIServer, answer, broken, openai_server, refusal
from tests.harness.system import System, system
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

CONFIG = """
[agents.patient]
model = "openai:test"
base_url = "{base_url}"
first_seconds = 3600
idle_seconds = 3600
request_seconds = 3600

[agents.pressed]
model = "openai:test"
base_url = "{base_url}"
turn_seconds = 3
"""


@pytest.fixture(scope="module")
async def model() -> AsyncIterator[OpenAIServer]:
    """The server of the model."""
    async with openai_server() as server:
        yield server


@pytest.fixture(scope="module")
async def talking(model: OpenAIServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """A system whose agents ask that server."""
    config = CONFIG.format(base_url=model.base_url)
    services = ("edge", "agent_runner")
    async with system(tmp_path_factory.mktemp("talking"), services=services, config=config) as running:
        yield running


@asynccontextmanager
async def session(running: System, agent: str) -> AsyncIterator[tuple[Client, Client]]:
    """Two clients of a new session, of the same user."""
    token = running.token()
    session_id = await new_session(running.edge, token, agent=agent)
    async with joined(running.edge, session_id, token) as one, joined(running.edge, session_id, token) as two:
        yield one, two


async def test_nothing_but_a_cancel_closes_the_connection_of_a_model_that_stalls(
    talking: System, model: OpenAIServer
) -> None:
    """Promise P8, from any device: the model is told later that its answer was stopped."""
    async with session(talking, "patient") as (client, other):
        model.script(broken(Step.STALL), answer("fine"))
        await client.say("long")
        await client.until("stream_delta")
        request = model.requests[-1]
        assert not request.closed_early
        await other.send("cancel")
        await until(lambda: request.closed_early)
        assert (await client.until("turn_end"))["status"] == "cancelled"
        stopped = [(frame["content"], frame["finish_reason"]) for frame in client.of("stream_end")]
        assert stopped == [("Hel", "cancelled")]
        await client.say("again")
        assert (await client.until("turn_end"))["status"] == "completed"
        assert model.requests[-2] is request
        shown = str(model.requests[-1].messages[1][1]).replace("\\n", "\n")
        assert "Hel\n\n[This answer was stopped" in shown


async def test_a_cancel_also_reaches_a_model_that_has_not_begun_to_answer(talking: System, model: OpenAIServer) -> None:
    """Promise P8: nothing was said, so there is no answer; the request is not made again."""
    async with session(talking, "patient") as (client, _):
        before = len(model.requests)
        model.script(Reply((Step.STALL,)))
        await client.say("long")
        await until(lambda: len(model.requests) > before)
        await client.send("cancel")
        await until(lambda: model.requests[-1].closed_early)
        assert (await client.until("turn_end"))["status"] == "cancelled"
        assert not client.of("stream_start", "error")
        assert len(model.requests) == before + 1


async def test_a_server_is_given_the_time_that_it_asks_for(talking: System, model: OpenAIServer) -> None:
    """`Retry-After`: the turn's own deadline comes first, so the request is never made again."""
    async with session(talking, "pressed") as (client, _):
        before = len(model.requests)
        model.script(refusal(429, "rate_limit_exceeded", "slow", retry_after="100"))
        await client.say("go")
        end = await client.until("turn_end")
        assert (end["status"], end["error"]["code"]) == ("failed", "turn_timeout")
        assert len(model.requests) == before + 1


async def test_a_server_that_asks_for_too_much_time_fails_the_turn_at_once(
    talking: System, model: OpenAIServer
) -> None:
    """Our choice: more than two minutes of `Retry-After` are not waited for, whatever `tries` says."""
    async with session(talking, "patient") as (client, _):
        before = len(model.requests)
        model.script(refusal(429, "rate_limit_exceeded", "slow", retry_after="3600"))
        await client.say("go")
        end = await client.until("turn_end")
        assert (end["status"], end["error"]["code"]) == ("failed", "model_rate_limited")
        assert len(model.requests) == before + 1
