"""A request to a model, over real sockets."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, suppress

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agent_runner.conversation import Entry
from agent_runner.model import Model, ModelFailure, Piece, Said, Timeouts, open_model
from broker.ports import free_port
from contracts.config import Agent, ConfigError
from contracts.errors import Code
from tests.harness.openai_server import (
    DONE,
    MALFORMED,
    OpenAIServer,
    Reply,
    Step,
    answer,
    broken,
    openai_server,
    part,
    refusal,
    sse,
)
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

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


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """What the process's tracer provider exports from here on."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield exporter
    exporter.shutdown()


async def said(model: Model, conversation: list[Entry] = ASKED) -> list[Piece | Said]:
    """The whole response."""
    async with asyncio.timeout(WITHIN):
        return [piece async for piece in model.stream(conversation)]


async def failure(model: Model) -> ModelFailure:
    """How a request fails."""
    with pytest.raises(ModelFailure) as caught:
        await said(model)
    return caught.value


async def read_first(pieces: AsyncIterator[Piece | Said], read: asyncio.Event) -> None:
    """Read a response slowly: one piece, and then nothing more."""
    async for _ in pieces:
        read.set()
        await asyncio.Event().wait()


async def test_a_response_is_its_pieces_and_then_its_end(
    server: OpenAIServer, model: Model
) -> None:
    """Promise: no text is lost, the first fragment neither, and every piece comes by itself."""
    server.script(answer("Hel", "lo", thinking=("h", "mm")))
    assert await said(model) == [
        Piece("h", "thinking"),
        Piece("mm", "thinking"),
        Piece("Hel"),
        Piece("lo"),
        Said("stop", {"input_tokens": 7, "output_tokens": 5}),
    ]


async def test_the_model_is_shown_the_conversation(server: OpenAIServer, model: Model) -> None:
    """Standard: OpenAI chat completions; the key goes to the server, as its SDK sends it."""
    conversation = [
        Entry("system", "Be brief."),
        Entry("user", "one"),
        Entry("assistant", "two"),
        Entry("user", "three"),
        Entry("user", "four"),
    ]
    await said(model, conversation)
    (request,) = server.requests
    assert request.messages == [(entry.role, entry.content) for entry in conversation]
    assert (request.body["model"], request.body["stream"]) == ("fake", True)
    assert request.headers["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("stop", "stop"), ("length", "length"), ("tool_calls", "tool_call"), ("eos", "stop")],
)
async def test_the_reason_to_finish_is_in_our_words(
    server: OpenAIServer, model: Model, reason: str, finish: str
) -> None:
    """Our choice: a server's own reason is an end like any other."""
    server.script(answer("x", reason=reason, usage=None))
    assert (await said(model))[-1] == Said(finish, None)  # type: ignore[arg-type]


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
        pytest.param(
            refusal(400, "context_length_exceeded"), Code.CONTEXT_TOO_LONG, False, id="long-code"
        ),
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


async def test_pieces_that_came_before_a_failure_are_delivered(
    server: OpenAIServer, model: Model
) -> None:
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


async def test_a_model_whose_reader_is_slow_is_not_silent(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: a model that is ahead waits. The clock is another request, which falls silent."""
    monkeypatch.setattr("agent_runner.model.AHEAD", 1)
    rest = answer("d").body
    server.script(Reply((*part("a", "b", "c"), Step.STALL, *rest)), broken(Step.STALL))
    agent = Agent(model="openai:fake", base_url=server.base_url)
    async with aclosing(open_model(agent, timeouts=Timeouts(idle=0.1))) as model:
        pieces = model.stream(ASKED)
        texts = [(await anext(pieces))]
        assert (await failure(model)).code == Code.MODEL_UNAVAILABLE
        server.requests[0].resume.set()
        texts += [piece async for piece in pieces]
    assert texts[:4] == [Piece("a"), Piece("b"), Piece("c"), Piece("d")]


async def test_a_model_that_goes_on_after_a_pause_is_heard(
    server: OpenAIServer, model: Model
) -> None:
    """Promise: a piece is delivered when it comes, not when the response ends."""
    server.script(Reply((*part("Hel"), Step.STALL, *answer("lo").body)))
    pieces = []
    async for piece in model.stream(ASKED):
        pieces.append(piece)
        server.requests[0].resume.set()
    assert pieces[:2] == [Piece("Hel"), Piece("lo")]


async def test_cancelling_the_task_that_waits_for_a_piece_closes_the_connection(
    server: OpenAIServer, model: Model
) -> None:
    """Promise: cancelling reaches the model."""
    server.script(Reply((Step.STALL,)))
    task = asyncio.create_task(said(model))
    await until(lambda: server.requests)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: server.requests[0].closed_early)


async def test_cancelling_the_task_that_reads_closes_the_connection(
    server: OpenAIServer, model: Model
) -> None:
    """Promise: also while it does something else, and though nobody closes the iterator."""
    server.script(broken(Step.STALL))
    read = asyncio.Event()
    pieces = model.stream(ASKED)
    task = asyncio.create_task(read_first(pieces, read))
    await until(read.is_set)
    task.cancel()
    await until(lambda: server.requests[0].closed_early)
    assert task.cancelled()
    await pieces.aclose()  # type: ignore[attr-defined]


async def test_closing_the_iterator_closes_the_connection(
    server: OpenAIServer, model: Model
) -> None:
    """Promise: whichever tasks have read, or close it."""
    server.script(Reply((*part("Hel"), Step.STALL, *part("lo"), Step.STALL)))
    pieces = model.stream(ASKED)
    assert await asyncio.wait_for(anext(pieces), WITHIN) == Piece("Hel")
    server.requests[0].resume.set()
    assert await asyncio.wait_for(anext(pieces), WITHIN) == Piece("lo")
    await pieces.aclose()  # type: ignore[attr-defined]
    await until(lambda: server.requests[0].closed_early)


async def test_requests_run_side_by_side(server: OpenAIServer, model: Model) -> None:
    """Promise: one that stalls holds up no other."""
    server.script(broken(Step.STALL))
    read = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        stalled = group.create_task(read_first(model.stream(ASKED), read))
        await until(read.is_set)
        assert (await said(model))[:1] == [Piece("Hello")]
        stalled.cancel()


def attributes_of(span: ReadableSpan) -> str:
    """Everything that a span tells."""
    return str(span.to_json())


async def test_a_request_is_a_span_of_the_trace_without_content(
    server: OpenAIServer, model: Model, spans: InMemorySpanExporter
) -> None:
    """Standard: OTel GenAI. Promise: neither prompts nor answers nor errors' bodies are traced."""
    server.script(answer("very private"), refusal(400, None, "question refused: private"))
    with trace.get_tracer(__name__).start_as_current_span("turn") as turn:
        async for _ in model.stream(ASKED):
            assert trace.get_current_span() is turn
        await failure(model)
        assert trace.get_current_span() is turn
    chats = [span for span in spans.get_finished_spans() if span.name == "chat fake"]
    assert len(chats) == 2
    for chat in chats:
        assert chat.parent
        assert chat.parent.span_id == turn.get_span_context().span_id
        assert "private" not in attributes_of(chat)
        assert "question" not in attributes_of(chat)
    assert (chats[0].attributes or {})["gen_ai.usage.input_tokens"] == 7


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
async def test_what_the_server_says_is_in_no_failure(
    server: OpenAIServer, model: Model, status: int
) -> None:
    """Promise: a client is told no key and no content, even if the server echoes them."""
    server.script(refusal(status, None, f"bad key {SECRET} for question"))
    caught = await failure(model)
    assert SECRET not in str(caught)
    assert "question" not in caught.text


async def test_a_refused_key_is_named_by_its_variable(server: OpenAIServer, model: Model) -> None:
    """Promise: the operator learns what to look at."""
    server.script(refusal(401))
    assert "KEY" in (await failure(model)).text


async def test_a_server_of_ones_own_needs_no_key(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
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
def test_a_configuration_that_cannot_work_is_refused(
    agent: Agent, env: dict[str, str], named: str
) -> None:
    """Promise: the error names what to correct, and never a key."""
    with pytest.raises(ConfigError, match=named) as caught:
        open_model(agent, env=env)
    assert SECRET not in str(caught.value)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a missing extra is an error of the configuration."""
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ConfigError, match=r"millrace\[openai\]"):
        open_model(Agent(model="openai:gpt", base_url="http://x/v1"))


def test_importing_the_module_imports_no_provider() -> None:
    """Promise: a process without a model does not pay for the libraries."""
    program = (
        "import sys, agent_runner.model; sys.exit(bool({'pydantic_ai', 'openai'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
