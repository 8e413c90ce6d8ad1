"""A request to a model that answers, over real sockets: read to its end, or given up."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agent_runner.conversation import Entry
from agent_runner.model import Model, Piece, Said, Timeouts, open_model
from contracts.config import Agent
from contracts.errors import Code
from tests.agent_runner.conftest import ASKED, SECRET, WITHIN, failure, said
from tests.harness.openai_server import OpenAIServer, Reply, Step, answer, broken, part, refusal
from tests.harness.wait import until

pytestmark = pytest.mark.anyio


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


async def read_first(pieces: AsyncIterator[Piece | Said], read: asyncio.Event) -> None:
    """Read a response slowly: one piece, and then nothing more."""
    async for _ in pieces:
        read.set()
        await asyncio.Event().wait()


async def test_a_response_is_its_pieces_and_then_its_end(server: OpenAIServer, model: Model) -> None:
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


async def test_a_model_whose_reader_is_slow_is_not_silent(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: a model that is ahead waits. The clock is another request, which falls silent."""
    monkeypatch.setattr("agent_runner.openai_model.AHEAD", 1)
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


async def test_a_model_that_goes_on_after_a_pause_is_heard(server: OpenAIServer, model: Model) -> None:
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


async def test_cancelling_the_task_that_reads_closes_the_connection(server: OpenAIServer, model: Model) -> None:
    """Promise: also while it does something else, and though nobody closes the iterator."""
    server.script(broken(Step.STALL))
    read = asyncio.Event()
    pieces = model.stream(ASKED)
    task = asyncio.create_task(read_first(pieces, read))
    await until(read.is_set)
    task.cancel()
    await until(lambda: server.requests[0].closed_early)
    assert task.cancelled()
    await pieces.aclose()


async def test_closing_the_iterator_closes_the_connection(server: OpenAIServer, model: Model) -> None:
    """Promise: whichever tasks have read, or close it."""
    server.script(Reply((*part("Hel"), Step.STALL, *part("lo"), Step.STALL)))
    pieces = model.stream(ASKED)
    assert await asyncio.wait_for(anext(pieces), WITHIN) == Piece("Hel")
    server.requests[0].resume.set()
    assert await asyncio.wait_for(anext(pieces), WITHIN) == Piece("lo")
    await pieces.aclose()
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


def test_importing_the_module_imports_no_provider() -> None:
    """Promise: a process without a model does not pay for the libraries."""
    program = "import sys, agent_runner.model; sys.exit(bool({'pydantic_ai', 'openai'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
