"""Turns of an agent that is a model: tools, retries, limits, and what no later attempt does again."""

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from millrace.datadir import DataDir
from tests.harness.client import Client, joined, new_session
from tests.harness.model_server import Reply, Step
from tests.harness.nats_server import known_at
from tests.harness.openai_server import OpenAIServer, answer, broken, end, openai_server, refusal
from tests.harness.program import program
from tests.harness.system import System, system
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

ADD = ("demo__add", '{"a": 1, "b": 2}')
NOTE = ("demo__note", '{"text": "x"}')


def configured(base_url: str) -> str:
    """Agents that ask the server of the test."""
    common = f'model = "openai:test"\nbase_url = "{base_url}"\n'
    return f"""
[[tools.rules]]
tool = "demo.note"
decision = "ask"
expires = 60

[agents.helper]
{common}
instructions = "Be brief."
tools = ["demo.*"]
max_requests = 4
context_tokens = 3000
idle_seconds = 0.5

[agents.toolless]
{common}
tries = 2

[agents.unreachable]
model = "openai:test"
base_url = "http://127.0.0.1:1/v1"
tries = 2
"""


@pytest.fixture(scope="module")
async def model() -> AsyncIterator[OpenAIServer]:
    """The server of the model."""
    async with openai_server() as server:
        yield server


def started(directory: Path, model: OpenAIServer) -> AbstractAsyncContextManager[System]:
    """A system whose agents ask that server."""
    services = ("edge", "agent_runner", "tool_runner")
    return system(directory, services=services, config=configured(model.base_url))


@pytest.fixture(scope="module")
async def talking(model: OpenAIServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """A system that tests share which leave it whole."""
    async with started(tmp_path_factory.mktemp("talking"), model) as running:
        yield running


@pytest.fixture(scope="module")
async def crashing(model: OpenAIServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """Likewise, shared by tests that kill a runner and start it again."""
    async with started(tmp_path_factory.mktemp("crashing"), model) as running:
        yield running


async def session(running: System, agent: str = "helper") -> tuple[str, str]:
    """A new session: its id and a token."""
    token = running.token()
    return await new_session(running.edge, token, agent=agent), token


async def millrace(running: System, *arguments: str) -> list[str]:
    """What a command prints."""
    data = DataDir.at(str(running.directory / "nats"))
    known_at(data, running.nats)
    async with program("millrace", *arguments, "--data", str(data.path), env={}, cwd=running.directory) as started:
        assert await started.exit() == 0, started.errors
        return started.output


def asked(model: OpenAIServer, before: int) -> list[list[tuple[str, Any]]]:
    """What the model was shown since then, request by request."""
    return [request.messages for request in model.requests[before:]]


def said(client: Client) -> list[tuple[str, str]]:
    """The answers and how each ended."""
    return [(frame["content"], frame["finish_reason"]) for frame in client.of("stream_end")]


async def test_a_model_calls_tools_side_by_side_and_goes_on_with_their_results(
    talking: System, model: OpenAIServer
) -> None:
    """Text, thinking and calls in one response; the next request holds each call with its result."""
    session_id, token = await session(talking)
    async with joined(talking.edge, session_id, token) as client:
        before = len(model.requests)
        model.script(answer("Let me see.", thinking=("hm",), use=(ADD, ADD)), answer("Three."))
        await client.say("add")
        turn_end = await client.until("turn_end")
        assert turn_end["status"] == "completed"
        assert said(client) == [("Let me see.", "tool_call"), ("Three.", "stop")]
        assert client.of("stream_end")[0]["thinking"] == "hm"
        assert [frame["kind"] for frame in client.of("stream_delta") if "kind" in frame] == ["thinking"]
        order = [frame["type"] for frame in client.of("tool_call", "tool_result")]
        assert order == ["tool_call", "tool_call", "tool_result", "tool_result"]
        first, second = asked(model, before)
        assert first == [("system", "Be brief."), ("user", "add")]
        assert [role for role, _ in second] == ["system", "user", "assistant", "tool", "tool"]
        assert all("3" in str(content) for role, content in second if role == "tool")
        offered = {tool["function"]["name"] for tool in model.requests[before].body["tools"]}
        assert {"demo__add", "demo__note", "demo__slow", "demo__fail"} <= offered
        assert turn_end["usage"]["input_tokens"] == 14


@pytest.mark.parametrize(
    ("use", "told"),
    [
        pytest.param(("demo__add", '{"a": 1'), "not a JSON object", id="broken JSON"),
        pytest.param(("demo__nothing", "{}"), "no tool of that name", id="no such tool"),
    ],
)
async def test_a_call_that_cannot_be_made_is_told_to_the_model(
    talking: System, model: OpenAIServer, use: tuple[str, str], told: str
) -> None:
    """Our choice: the model may correct itself; clients see no call."""
    session_id, token = await session(talking)
    async with joined(talking.edge, session_id, token) as client:
        before = len(model.requests)
        model.script(answer(use=(use,)), answer("Sorry."))
        await client.say("go")
        assert (await client.until("turn_end"))["status"] == "completed"
        assert not client.of("tool_call")
        assert told in str(asked(model, before)[1][-1])


async def test_a_model_that_calls_tools_without_end_is_ended_by_a_limit(talking: System, model: OpenAIServer) -> None:
    """Our choice: `max_requests` of the agent."""
    session_id, token = await session(talking)
    async with joined(talking.edge, session_id, token) as client:
        model.script(*[answer(use=(ADD,))] * 4)
        await client.say("loop")
        end_ = await client.until("turn_end")
        assert (end_["status"], end_["error"]["code"]) == ("failed", "turn_limit")
        assert len(client.of("tool_result")) == 4


async def test_what_a_person_changed_is_told_to_the_model(talking: System, model: OpenAIServer) -> None:
    """Promise P6: it ran with those arguments, and the model knows."""
    session_id, token = await session(talking)
    async with joined(talking.edge, session_id, token) as client:
        before = len(model.requests)
        model.script(answer(use=(NOTE,)), answer("Done."))
        await client.say("note")
        request = await client.until("tool_approval_request")
        call_id = request["tool_call_id"]
        await client.send("tool_approval", tool_call_id=call_id, approved=True, arguments={"text": "y"})
        assert (await client.until("turn_end"))["status"] == "completed"
        assert 'changed the arguments to {"text":"y"}' in str(asked(model, before)[1][-1])
        assert talking.notes[-1] == "y"


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(refusal(429, "rate_limit_exceeded", "slow", retry_after="1"), id="429"),
        pytest.param(refusal(500, "server_error", "oops"), id="500"),
        pytest.param(Reply((Step.CUT,)), id="cut before the first piece"),
    ],
)
async def test_a_failure_before_the_first_piece_is_tried_again_silently(
    talking: System, model: OpenAIServer, first: Reply
) -> None:
    """Our choice: where the catalogue says retryable; no client notices."""
    session_id, token = await session(talking, "toolless")
    async with joined(talking.edge, session_id, token) as client:
        model.script(first, answer("fine"))
        await client.say("go")
        assert (await client.until("turn_end"))["status"] == "completed"
        assert said(client) == [("fine", "stop")]
        assert not client.of("stream_reset", "error")


@pytest.mark.parametrize(
    "first", [pytest.param(broken(Step.CUT), id="cut"), pytest.param(broken(Step.STALL), id="stalled")]
)
async def test_a_failure_in_mid_answer_makes_void_what_was_streamed(
    talking: System, model: OpenAIServer, first: Reply
) -> None:
    """WIRE: `stream_reset`; the same answer streams again without a new `stream_start`."""
    session_id, token = await session(talking)
    async with joined(talking.edge, session_id, token) as client:
        model.script(first, answer("whole"))
        await client.say("go")
        assert (await client.until("turn_end"))["status"] == "completed"
        assert said(client) == [("whole", "stop")]
        assert [frame["reason"] for frame in client.of("stream_reset")] == ["model_unavailable"]
        assert len(client.of("stream_start")) == 1


@pytest.mark.parametrize(
    ("agent", "code", "requests"),
    [("toolless", "model_unavailable", 2), ("unreachable", "model_unavailable", 0)],
)
async def test_a_model_that_keeps_failing_fails_the_turn_and_its_message_is_kept(
    talking: System, model: OpenAIServer, agent: str, code: str, requests: int
) -> None:
    """Our choice: after `tries`; the session goes on."""
    session_id, token = await session(talking, agent)
    async with joined(talking.edge, session_id, token) as client:
        before = len(model.requests)
        model.script(*[refusal(500, "server_error", "oops")] * requests)
        await client.say("go")
        end_ = await client.until("turn_end")
        assert (end_["status"], end_["error"]["code"], end_["error"]["retryable"]) == ("failed", code, True)
        assert len(model.requests) - before == requests


async def test_a_message_whose_turn_failed_is_redriven_and_answered(talking: System, model: OpenAIServer) -> None:
    """`millrace dead redrive`, once the model is there again: said once more, and answered."""
    session_id, token = await session(talking, "toolless")
    async with joined(talking.edge, session_id, token) as client:
        model.script(*[refusal(500, "server_error", "oops")] * 2)
        await client.say("go")
        failed = (await client.until("turn_end"))["reply_to"]
        letters = [json.loads(line) for line in await millrace(talking, "dead", "list")]
        (sequence,) = (letter["sequence"] for letter in letters if letter.get("message_id") == failed)
        model.script(answer("fine"))
        (message_id,) = await millrace(talking, "dead", "redrive", str(sequence))
        ended = await client.until("turn_end", lambda frame: frame["reply_to"] == message_id)
        assert ended["status"] == "completed"
        assert [frame["metadata"]["redrive_of"] for frame in client.of("message") if frame.get("metadata")] == [failed]
        assert said(client) == [("fine", "stop")]


async def test_a_refusal_for_good_is_not_tried_again(talking: System, model: OpenAIServer) -> None:
    """The catalogue: not retryable."""
    session_id, token = await session(talking)
    async with joined(talking.edge, session_id, token) as client:
        before = len(model.requests)
        model.script(refusal(401, "invalid_api_key", "no"))
        await client.say("go")
        assert (await client.until("turn_end"))["error"]["code"] == "agent_failed"
        assert len(model.requests) == before + 1


async def test_a_message_longer_than_the_context_is_refused_without_asking(
    talking: System, model: OpenAIServer
) -> None:
    """`context_tokens` of the agent."""
    session_id, token = await session(talking)
    async with joined(talking.edge, session_id, token) as client:
        before = len(model.requests)
        await client.say("x" * 20_000)
        assert (await client.until("turn_end"))["error"]["code"] == "context_too_long"
        assert len(model.requests) == before


async def test_a_message_that_steers_is_in_the_next_request(talking: System, model: OpenAIServer) -> None:
    """WIRE: taken in at the next boundary; here after the response that ran."""
    session_id, token = await session(talking)
    async with joined(talking.edge, session_id, token) as client:
        before = len(model.requests)
        model.script(broken(Step.STALL, *end()), answer("Left it is."))
        await client.say("go")
        await client.until("stream_delta")
        await client.say("to the left", policy="steer")
        await client.until("message_accepted", lambda frame: True)
        await until(lambda: len(client.of("message_accepted")) == 2)
        model.requests[-1].resume.set()
        await client.until("turn_end", lambda frame: frame["status"] == "completed")
        assert [content for role, content in asked(model, before)[1] if role == "user"] == ["go", "to the left"]
        assert len(client.of("steer_applied")) == 1


POINTS = (
    "append:turn_start:after:1",
    "append:stream_delta:after:1",
    "append:step:before:1",
    "append:step:after:1",
    "append:stream_end:before:1",
    "append:stream_end:after:1",
    "append:tool_call:after:1",
    "append:tool_call:after:2",
    "append:stream_end:after:2",
    "append:turn_end:before:1",
)


@pytest.mark.parametrize("point", POINTS)
async def test_a_response_that_is_recorded_is_not_asked_for_again(
    crashing: System, model: OpenAIServer, point: str
) -> None:
    """The recovery points of a model's turn: kill -9 right there, and another process goes on."""
    armed = await crashing.armed("agent_runner", f"{point}:kill")
    session_id, token = await session(crashing)
    async with joined(crashing.edge, session_id, token) as client:
        before = len(model.requests)
        asks_again = point in ("append:stream_delta:after:1", "append:step:before:1")
        first = answer("Let me see.", use=(ADD, ADD))
        model.script(*[first] * (2 if asks_again else 1), answer("Three."))
        await client.say("add")
        await until(lambda: armed.process.returncode is not None)
        await crashing["agent_runner"].start()
        assert (await client.until("turn_end"))["status"] == "completed"
        assert said(client) == [("Let me see.", "tool_call"), ("Three.", "stop")]
        assert len(client.of("tool_call")) == len(client.of("tool_result")) == 2
        assert len(model.requests) - before == (3 if asks_again else 2)
