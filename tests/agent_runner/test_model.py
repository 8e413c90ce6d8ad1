"""A request to a model that answers, over real sockets: read to its end, or given up. With every provider."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agent_runner.model import Model, Piece, Said
from agent_runner.models.openai import OpenAI
from agent_runner.prompt import Assistant, Prompt, Result, Tool, Use, User
from contracts.config import Agent
from contracts.errors import Code
from tests.agent_runner.conftest import ASKED, WITHIN, Protocol, failure, opened, said
from tests.harness.model_server import ModelServer, Reply, Step
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


async def test_a_response_is_its_pieces_and_then_its_end(protocol: Protocol, server: ModelServer, model: Model) -> None:
    """Promise: no text is lost, the first fragment neither, and every piece comes by itself."""
    server.script(protocol.answer("Hel", "lo"))
    assert await said(model) == [
        Piece("Hel"),
        Piece("lo"),
        Said("stop", {"input_tokens": 7, "output_tokens": 5}),
    ]


async def test_an_agent_limits_its_model(protocol: Protocol, server: ModelServer) -> None:
    """Promise: `max_output_tokens` and `temperature`, by the name that every server knows."""
    async with aclosing(opened(protocol, server, max_output_tokens=12, temperature=0.5)) as model:
        await said(model)
    body = server.requests[0].body
    assert (body["model"], body["stream"], body["max_tokens"], body["temperature"]) == ("fake", True, 12, 0.5)


async def test_halves_of_a_character_are_replaced(protocol: Protocol, server: ModelServer, model: Model) -> None:
    """Our choice: what JSON can spell and UTF-8 cannot does not reach the log, which would refuse it."""
    server.script(protocol.answer("a\ud83d", "b"))
    assert (await said(model))[:2] == [Piece("a\ufffd"), Piece("b")]


async def test_a_model_whose_reader_is_slow_is_not_silent(
    protocol: Protocol, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: a model that is ahead waits. The clock is another request, which falls silent."""
    monkeypatch.setattr("agent_runner.models.stream.AHEAD", 1)
    server.script(
        Reply((*protocol.part("a", "b", "c"), Step.STALL, *protocol.rest("d"))),
        protocol.broken(Step.STALL),
    )
    async with aclosing(opened(protocol, server, idle_seconds=0.1)) as model:
        pieces = model.stream(ASKED)
        texts = [(await anext(pieces))]
        assert (await failure(model)).code == Code.MODEL_UNAVAILABLE
        server.requests[0].resume.set()
        texts += [piece async for piece in pieces]
    assert texts[:4] == [Piece("a"), Piece("b"), Piece("c"), Piece("d")]


async def test_a_model_that_goes_on_after_a_pause_is_heard(
    protocol: Protocol, server: ModelServer, model: Model
) -> None:
    """Promise: a piece is delivered when it comes, not when the response ends."""
    server.script(Reply((*protocol.part("Hel"), Step.STALL, *protocol.rest("lo"))))
    pieces = []
    async for piece in model.stream(ASKED):
        pieces.append(piece)
        server.requests[0].resume.set()
    assert pieces[:2] == [Piece("Hel"), Piece("lo")]


async def test_cancelling_the_task_that_waits_for_a_piece_closes_the_connection(
    server: ModelServer, model: Model
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
    protocol: Protocol, server: ModelServer, model: Model
) -> None:
    """Promise: also while it does something else, and though nobody closes the iterator."""
    server.script(protocol.broken(Step.STALL))
    read = asyncio.Event()
    pieces = model.stream(ASKED)
    task = asyncio.create_task(read_first(pieces, read))
    await until(read.is_set)
    task.cancel()
    await until(lambda: server.requests[0].closed_early)
    assert task.cancelled()
    await pieces.aclose()


async def test_closing_the_iterator_closes_the_connection(
    protocol: Protocol, server: ModelServer, model: Model
) -> None:
    """Promise: whichever tasks have read, or close it."""
    server.script(Reply((*protocol.part("Hel"), Step.STALL, protocol.rest("lo")[0], Step.STALL)))
    pieces = model.stream(ASKED)
    assert await asyncio.wait_for(anext(pieces), WITHIN) == Piece("Hel")
    server.requests[0].resume.set()
    assert await asyncio.wait_for(anext(pieces), WITHIN) == Piece("lo")
    await pieces.aclose()
    await until(lambda: server.requests[0].closed_early)


async def test_requests_run_side_by_side(protocol: Protocol, server: ModelServer, model: Model) -> None:
    """Promise: one that stalls holds up no other."""
    server.script(protocol.broken(Step.STALL))
    read = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        stalled = group.create_task(read_first(model.stream(ASKED), read))
        await until(read.is_set)
        assert (await said(model))[:1] == [Piece("Hello")]
        stalled.cancel()


async def test_a_request_is_a_span_of_the_trace_without_content(
    protocol: Protocol, server: ModelServer, model: Model, spans: InMemorySpanExporter
) -> None:
    """Standard: OTel GenAI. Promise: no prompt, answer, argument, result or error's body is traced; tools are."""
    used = Use("demo.add", {"private": 1}, tool_call_id="c_1")
    prompt = Prompt(
        "private",
        (User("private"), Assistant("private", calls=(used,)), Result("c_1", "demo.add", "private")),
        (Tool("demo.add", "Add.", {"type": "object"}),),
    )
    called = protocol.answer("very private", use=[("demo__add", '{"private": 2}')])
    server.script(called, protocol.refusal(400, "invalid", "refused: private"))
    with trace.get_tracer(__name__).start_as_current_span("turn") as turn:
        async for _ in model.stream(prompt):
            assert trace.get_current_span() is turn
        await failure(model)
        assert trace.get_current_span() is turn
    finished = [span for span in spans.get_finished_spans() if span.name != "turn"]
    assert [span.name for span in finished] == ["chat fake", "chat fake"]
    for span in finished:
        assert span.parent
        assert span.parent.span_id == turn.get_span_context().span_id
        assert "private" not in span.to_json()
    assert (finished[0].attributes or {})["gen_ai.usage.input_tokens"] == 7


def test_importing_the_package_imports_no_provider() -> None:
    """Promise: a process without a model does not pay for the libraries."""
    modules = (
        "agent_runner.model, agent_runner.models.stream, agent_runner.models.openai, agent_runner.models.anthropic"
    )
    program = f"import sys, {modules}; sys.exit(bool({{'pydantic_ai', 'openai', 'anthropic'}} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_thinking_does_not_go_to_openai_itself() -> None:
    """Our choice: its API shows no thinking and refuses fields that it does not know."""
    assert OpenAI(Agent(model="openai:gpt"), "gpt", "key").thinking(Assistant("x", "hmm")) == []
