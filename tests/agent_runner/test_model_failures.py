"""Failures of a model: of its server, of the connection, of the configuration."""

import sys
from contextlib import aclosing, suppress

import pytest

from agent_runner.model import Model, ModelFailure, Piece, Said, Timeouts, open_model
from broker.ports import free_port
from contracts.config import Agent, ConfigError
from contracts.errors import Code
from tests.agent_runner.conftest import ASKED, SECRET, failure, said
from tests.harness.openai_server import (
    DONE,
    MALFORMED,
    OpenAIServer,
    Reply,
    Step,
    answer,
    broken,
    part,
    refusal,
    sse,
)
from tests.harness.wait import until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("reply", "code", "retryable"),
    [
        pytest.param(refusal(400), Code.AGENT_FAILED, False, id="400"),
        pytest.param(refusal(401), Code.AGENT_FAILED, False, id="401"),
        pytest.param(refusal(403), Code.AGENT_FAILED, False, id="403"),
        pytest.param(refusal(404), Code.AGENT_FAILED, False, id="404"),
        pytest.param(refusal(408), Code.MODEL_UNAVAILABLE, True, id="408"),
        pytest.param(refusal(429), Code.MODEL_RATE_LIMITED, True, id="429"),
        pytest.param(refusal(429, "insufficient_quota"), Code.AGENT_FAILED, False, id="429-quota"),
        pytest.param(refusal(500), Code.MODEL_UNAVAILABLE, True, id="500"),
        pytest.param(refusal(503), Code.MODEL_UNAVAILABLE, True, id="503"),
        pytest.param(refusal(400, "context_length_exceeded"), Code.CONTEXT_TOO_LONG, False, id="long-code"),
        pytest.param(
            refusal(400, None, "This model's maximum context length is 8 tokens"),
            Code.CONTEXT_TOO_LONG,
            False,
            id="long-vllm",
        ),
        pytest.param(
            refusal(400, None, "the request exceeds the available context size"),
            Code.CONTEXT_TOO_LONG,
            False,
            id="long-llama.cpp",
        ),
        pytest.param(Reply((Step.CUT,)), Code.MODEL_UNAVAILABLE, True, id="cut-at-once"),
        pytest.param(broken(Step.CUT), Code.MODEL_UNAVAILABLE, True, id="cut"),
        pytest.param(broken(Step.END), Code.MODEL_UNAVAILABLE, True, id="ended-by-a-proxy"),
        pytest.param(broken(DONE), Code.MODEL_UNAVAILABLE, True, id="no-reason-to-finish"),
        pytest.param(Reply((DONE,)), Code.MODEL_UNAVAILABLE, True, id="empty"),
        pytest.param(broken(MALFORMED), Code.MODEL_UNAVAILABLE, True, id="malformed"),
        pytest.param(broken(b"data: \xff\n\n"), Code.MODEL_UNAVAILABLE, True, id="no-utf8"),
        pytest.param(broken(sse(42), DONE), Code.MODEL_UNAVAILABLE, True, id="no-object"),
        pytest.param(
            broken(sse({"choices": [{"delta": "x"}]}), DONE),
            Code.MODEL_UNAVAILABLE,
            True,
            id="wrong-shape",
        ),
        pytest.param(
            Reply((b"<html></html>",), content_type="text/html"),
            Code.MODEL_UNAVAILABLE,
            True,
            id="a-web-page",
        ),
        pytest.param(
            broken(sse({"error": {"message": "overloaded"}})),
            Code.MODEL_UNAVAILABLE,
            True,
            id="error-in-the-stream",
        ),
        pytest.param(
            broken(sse({"error": {"message": "no", "code": "context_length_exceeded"}})),
            Code.CONTEXT_TOO_LONG,
            False,
            id="long-in-the-stream",
        ),
        pytest.param(answer("x", reason="content_filter"), Code.AGENT_FAILED, False, id="withheld"),
        pytest.param(answer("x", reason="error"), Code.MODEL_UNAVAILABLE, True, id="own-error"),
    ],
)
async def test_a_failure_has_a_code_and_is_tried_once(
    server: OpenAIServer, model: Model, reply: Reply, code: Code, retryable: bool
) -> None:
    """Promise: no answer that is not whole passes for one; redelivery is the only retry."""
    server.script(reply)
    caught = await failure(model)
    assert (caught.code, caught.retryable) == (code, retryable)
    assert len(server.requests) == 1


async def test_pieces_that_came_before_a_failure_are_delivered(server: OpenAIServer, model: Model) -> None:
    """Promise: a cancelled or failed turn keeps what was streamed."""
    server.script(broken(Step.CUT))
    pieces: list[Piece | Said] = []
    with suppress(ModelFailure):
        async for piece in model.stream(ASKED):
            pieces.append(piece)
    assert pieces == [Piece("Hel")]


@pytest.mark.parametrize("status", [429, 503])
async def test_a_failure_says_when_the_server_wants_to_be_asked_again(
    server: OpenAIServer, model: Model, status: int
) -> None:
    """Standard: RFC 9110, `Retry-After`."""
    server.script(refusal(status, retry_after="3"))
    assert (await failure(model)).retry_after == 3.0


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    """Promise: a refused connection is a failure like any other."""
    agent = Agent(model="openai:fake", base_url=f"http://127.0.0.1:{free_port('127.0.0.1')}/v1")
    async with aclosing(open_model(agent)) as model:
        assert (await failure(model)).code == Code.MODEL_UNAVAILABLE


@pytest.mark.parametrize(
    ("reply", "timeouts", "code"),
    [
        (Reply((Step.STALL,)), Timeouts(first=0.02), Code.MODEL_UNAVAILABLE),
        (Reply((*part(), Step.STALL)), Timeouts(first=0.02), Code.MODEL_UNAVAILABLE),
        (broken(Step.STALL), Timeouts(idle=0.02), Code.MODEL_UNAVAILABLE),
        (broken(Step.STALL), Timeouts(total=0.02), Code.TURN_TIMEOUT),
        (Reply((Step.STALL,)), Timeouts(total=0.02), Code.TURN_TIMEOUT),
    ],
    ids=["no-headers", "no-first-piece", "no-next-piece", "total", "total-without-headers"],
)
async def test_a_model_that_takes_too_long_is_given_up(
    server: OpenAIServer, reply: Reply, timeouts: Timeouts, code: Code
) -> None:
    """Promise: every wait has a limit, and the connection is closed when it is reached."""
    server.script(reply)
    agent = Agent(model="openai:fake", base_url=server.base_url)
    async with aclosing(open_model(agent, timeouts=timeouts)) as model:
        assert (await failure(model)).code == code
    await until(lambda: all(request.closed_early for request in server.requests))


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
async def test_what_the_server_says_is_in_no_failure(server: OpenAIServer, model: Model, status: int) -> None:
    """Promise: a client is told no key and no content, even if the server echoes them."""
    server.script(refusal(status, None, f"bad key {SECRET} for question"))
    caught = await failure(model)
    assert SECRET not in str(caught)
    assert "question" not in caught.text


async def test_a_refused_key_is_named_by_its_variable(server: OpenAIServer, model: Model) -> None:
    """Promise: the operator learns what to look at."""
    server.script(refusal(401))
    assert "KEY" in (await failure(model)).text


async def test_a_server_of_ones_own_needs_no_key(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: without `api_key_env` no key of the environment goes to another server."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    agent = Agent(model="openai:fake", base_url=server.base_url)
    async with aclosing(open_model(agent)) as model:
        await said(model)
    assert SECRET not in server.requests[0].headers["authorization"]


@pytest.mark.parametrize(
    ("agent", "env", "named"),
    [
        (Agent(model="openai:gpt"), {}, "OPENAI_API_KEY"),
        (Agent(model="openai:gpt", api_key_env="MINE"), {"MINE": " "}, "MINE"),
        (Agent(model="openai:gpt", api_key_env="MINE"), {"MINE": "a\nsk-secret"}, "MINE"),
        (Agent(model="openai:gpt", base_url="http://x/v1", api_key_env="MINE"), {}, "MINE"),
        (Agent(model="openai:gpt", base_url="localhost:80"), {}, "base_url"),
        (Agent(model="other:gpt"), {}, "other:gpt"),
        (Agent(model="script"), {}, "script"),
        (Agent(run="agents:run"), {}, "openai:"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(agent: Agent, env: dict[str, str], named: str) -> None:
    """Promise: the error names what to correct, and never a key."""
    with pytest.raises(ConfigError, match=named) as caught:
        open_model(agent, env=env)
    assert SECRET not in str(caught.value)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a missing extra is an error of the configuration."""
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigError, match=r"millrace\[openai\]"):
        open_model(Agent(model="openai:gpt", base_url="http://x/v1"))
