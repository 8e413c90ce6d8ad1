"""Failures of a model: of its server, of the connection, of the configuration. With every provider."""

import sys
from contextlib import aclosing, suppress

import pytest

import agent_runner.model as model_module
from agent_runner.model import Model, ModelFailure, Piece, Said, check, open_model
from broker.ports import free_port
from contracts.config import Agent, ConfigError
from contracts.errors import Code
from tests.agent_runner.conftest import ASKED, SECRET, Protocol, failure, opened, said
from tests.harness.model_server import ModelServer, Reply, Step
from tests.harness.wait import until

pytestmark = pytest.mark.anyio


async def test_pieces_that_came_before_a_failure_are_delivered(
    protocol: Protocol, server: ModelServer, model: Model
) -> None:
    """Promise: a cancelled or failed turn keeps what was streamed."""
    server.script(protocol.broken(Step.CUT))
    pieces: list[Piece | Said] = []
    with suppress(ModelFailure):
        async for piece in model.stream(ASKED):
            pieces.append(piece)
    assert pieces == [Piece("Hel")]


@pytest.mark.parametrize("status", [429, 503, 529])
async def test_a_failure_says_when_the_server_wants_to_be_asked_again(
    protocol: Protocol, server: ModelServer, model: Model, status: int
) -> None:
    """Standard: RFC 9110, `Retry-After`."""
    server.script(protocol.refusal(status, retry_after="3"))
    assert (await failure(model)).retry_after == 3.0


async def test_a_server_that_is_not_there_is_unavailable(protocol: Protocol) -> None:
    """Promise: a refused connection is a failure like any other."""
    agent = Agent(model=f"{protocol.provider}:fake", base_url=f"http://127.0.0.1:{free_port('127.0.0.1')}/v1")
    async with aclosing(open_model(agent)) as model:
        assert (await failure(model)).code == Code.MODEL_UNAVAILABLE


@pytest.mark.parametrize(
    ("begins", "seconds", "code"),
    [
        (None, {"first_seconds": 0.02}, Code.MODEL_UNAVAILABLE),
        ((), {"first_seconds": 0.02}, Code.MODEL_UNAVAILABLE),
        (("Hel",), {"idle_seconds": 0.02}, Code.MODEL_UNAVAILABLE),
        (("Hel",), {"request_seconds": 0.02}, Code.TURN_TIMEOUT),
        (None, {"request_seconds": 0.02}, Code.TURN_TIMEOUT),
    ],
    ids=["no-headers", "no-first-piece", "no-next-piece", "total", "total-without-headers"],
)
async def test_a_model_that_takes_too_long_is_given_up(
    protocol: Protocol, server: ModelServer, begins: tuple[str, ...] | None, seconds: dict[str, float], code: Code
) -> None:
    """Promise: every wait has a limit, and the connection is closed when it is reached."""
    server.script(Reply((*(() if begins is None else protocol.part(*begins)), Step.STALL)))
    async with aclosing(opened(protocol, server, **seconds)) as model:
        assert (await failure(model)).code == code
    await until(lambda: all(request.closed_early for request in server.requests))


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
async def test_what_the_server_says_is_in_no_failure(
    protocol: Protocol, server: ModelServer, model: Model, status: int
) -> None:
    """Promise: a client is told no key and no content, even if the server echoes them."""
    server.script(protocol.refusal(status, "error", f"bad key {SECRET} for question"))
    caught = await failure(model)
    assert SECRET not in str(caught)
    assert "question" not in caught.text


async def test_a_refused_key_is_named_by_its_variable(protocol: Protocol, server: ModelServer, model: Model) -> None:
    """Promise: the operator learns what to look at."""
    server.script(protocol.refusal(401))
    assert "KEY" in (await failure(model)).text


async def test_a_server_of_ones_own_needs_no_key(
    protocol: Protocol, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: without `api_key_env` no key of the environment goes to another server."""
    for variable in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.setenv(variable, SECRET)
    async with aclosing(opened(protocol, server)) as model:
        await said(model)
    assert SECRET not in str(server.requests[0].headers)


@pytest.mark.parametrize(
    ("agent", "env", "named"),
    [
        (Agent(model="openai:gpt"), {}, "OPENAI_API_KEY"),
        (Agent(model="anthropic:claude"), {"OPENAI_API_KEY": SECRET}, "ANTHROPIC_API_KEY"),
        (Agent(model="openai:gpt", api_key_env="MINE"), {"MINE": " "}, "MINE"),
        (Agent(model="openai:gpt", api_key_env="MINE"), {"MINE": "a\nsk-secret"}, "MINE"),
        (Agent(model="openai:gpt", base_url="http://x/v1", api_key_env="MINE"), {}, "MINE"),
        (Agent(model="openai:gpt", base_url="localhost:80"), {}, "base_url"),
        (Agent(model="openai:gpt", base_url="http://"), {}, "base_url"),
        (Agent(model="openai:gpt", base_url="http://[::1/v1"), {}, "base_url"),
        (Agent(model="openai:gpt", base_url="http://h:port/v1"), {}, "base_url"),
        (Agent(model="openai:gpt", base_url="http://h:0/v1"), {}, "base_url"),
        (Agent(model="openai:gpt", base_url=f"http://user:{SECRET}@h/v1"), {}, "api_key_env"),
        (Agent(model="openai:gpt", base_url=f"http://h/v1?key={SECRET}"), {}, "api_key_env"),
        (Agent(model="other:gpt"), {}, "other:gpt"),
        (Agent(model="other:gpt"), {}, "`anthropic:`, `openai:`"),
        (Agent(model="script"), {}, "script"),
        (Agent(run="agents:run"), {}, "openai:"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(agent: Agent, env: dict[str, str], named: str) -> None:
    """Promise: the error names what to correct, and never a key."""
    for refuse in (open_model, check):
        with pytest.raises(ConfigError, match=named) as caught:
            refuse(agent, env=env)
        assert SECRET not in str(caught.value)


def test_without_the_extra_the_error_says_what_to_install(protocol: Protocol, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a missing extra is an error of the configuration."""
    agent = Agent(model=f"{protocol.provider}:fake", base_url="http://x/v1")
    monkeypatch.setitem(sys.modules, protocol.provider, None)
    with pytest.raises(ConfigError, match=rf"millrace\[{protocol.provider}\]"):
        check(agent)
    monkeypatch.delitem(sys.modules, "agent_runner.models.chunks", raising=False)
    monkeypatch.setattr(model_module, "find_spec", lambda name: name)  # it seems to be there, and is not whole
    with pytest.raises(ConfigError, match=rf"millrace\[{protocol.provider}\]"):
        open_model(agent)
