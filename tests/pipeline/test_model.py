"""An agent with `model = "openai:…"` streams text from any OpenAI-compatible server."""

from collections.abc import AsyncIterator

import pytest

from tests.harness.client import joined, new_session
from tests.harness.openai_server import OpenAIServer, Step, answer, broken, openai_server, refusal
from tests.harness.system import System, system

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def model() -> AsyncIterator[OpenAIServer]:
    """The server of the model."""
    async with openai_server() as server:
        yield server


@pytest.fixture(scope="module")
async def talking(model: OpenAIServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """A system whose agent `writer` asks that server."""
    config = f"""
[agents.writer]
model = "openai:test"
base_url = "{model.base_url}"
instructions = "Be brief."
tries = 1
"""
    services = ("edge", "agent_runner")
    async with system(tmp_path_factory.mktemp("talking"), services=services, config=config) as running:
        yield running


async def test_a_model_answers_and_is_shown_the_conversation(talking: System, model: OpenAIServer) -> None:
    """Text and usage travel; the second request holds the first exchange."""
    token = talking.token()
    session_id = await new_session(talking.edge, token, agent="writer")
    async with joined(talking.edge, session_id, token) as client:
        model.script(answer("Hel", "lo"), answer("Good", "bye"))
        await client.say("one")
        assert (await client.until("turn_end"))["status"] == "completed"
        await client.say("two")
        end = await client.until("turn_end")
        first, second = client.of("stream_end")
        assert (first["content"], second["content"]) == ("Hello", "Goodbye")
        assert first["finish_reason"] == "stop"
        assert end["usage"]["input_tokens"] > 0
        assert {start["agent"] for start in client.of("stream_start")} == {"writer"}
        assert "thinking" in [status["status"] for status in client.of("agent_status")]
        shown = [("system", "Be brief."), ("user", "one"), ("assistant", "Hello"), ("user", "two")]
        assert list(model.requests[-1].messages) == shown


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        pytest.param(refusal(401, "invalid_api_key", "no"), "agent_failed", id="401"),
        pytest.param(refusal(429, "rate_limit_exceeded", "slow", retry_after="3"), "model_rate_limited", id="429"),
        pytest.param(refusal(500, "server_error", "oops"), "model_unavailable", id="500"),
        pytest.param(refusal(400, "context_length_exceeded", "too long"), "context_too_long", id="context"),
    ],
)
async def test_a_model_that_refuses_fails_the_turn_with_a_code(
    talking: System, model: OpenAIServer, reply: object, code: str
) -> None:
    """The turn ends with the catalogue's code, and the session goes on."""
    token = talking.token()
    session_id = await new_session(talking.edge, token, agent="writer")
    async with joined(talking.edge, session_id, token) as client:
        model.script(reply, answer("fine"))  # type: ignore[arg-type]
        await client.say("hello")
        end = await client.until("turn_end")
        assert (end["status"], end["error"]["code"]) == ("failed", code)
        assert client.of("error")[0]["code"] == code
        await client.say("again")
        assert (await client.until("turn_end"))["status"] == "completed"


async def test_a_stream_that_is_cut_keeps_what_came_and_fails_the_turn(talking: System, model: OpenAIServer) -> None:
    """The open answer ends with its partial content before `turn_end`."""
    token = talking.token()
    session_id = await new_session(talking.edge, token, agent="writer")
    async with joined(talking.edge, session_id, token) as client:
        model.script(broken(Step.CUT))
        await client.say("hello")
        end = await client.until("turn_end")
        assert (end["status"], end["error"]["code"]) == ("failed", "model_unavailable")
        closed = client.of("stream_end")[0]
        assert (closed["content"], closed["finish_reason"]) == ("Hel", "error")
