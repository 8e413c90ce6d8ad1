"""What only servers that speak Anthropic's messages are told, and tell."""

import asyncio
from contextlib import aclosing

import pytest
from msgspec.structs import replace

from agent_runner.model import Model, Piece, Said
from agent_runner.prompt import Assistant, Prompt, Result, Tool, Use, User
from contracts.errors import Code
from tests.agent_runner.conftest import ANTHROPIC, ASKED, SECRET, Protocol, end_of, failure, opened, said
from tests.harness.anthropic_server import (
    PING,
    answer,
    broken,
    call,
    closed,
    delta,
    end,
    event,
    part,
    rest,
    start,
    text,
    thinking,
)
from tests.harness.anthropic_server import opened as block
from tests.harness.model_server import ModelServer, Reply, Step
from tests.harness.wait import until

pytestmark = [pytest.mark.anyio, ANTHROPIC]

TOOLS = (Tool("demo.add", "", {"type": "object"}),)
CALL = Use("demo.add", {"a": 1}, tool_call_id="c_1")
RESULT = Result("c_1", "demo.add", "3")


def shown(*contents: str) -> list[dict[str, object]]:
    """Blocks of text."""
    return [{"type": "text", "text": content} for content in contents]


async def test_the_model_is_shown_the_conversation(server: ModelServer, model: Model) -> None:
    """Standard: Anthropic messages; the key goes to the server, as its SDK sends it."""
    await said(model, Prompt("Be brief.", (User("one"), Assistant("two"), User("three"), User(" "))))
    (request,) = server.requests
    assert request.messages == [
        ("user", shown("one")),
        ("assistant", shown("two")),
        ("user", shown("three", "(empty)")),
    ]
    assert request.body["system"] == shown("Be brief.")
    assert request.path.partition("?")[0] == "/v1/messages"
    assert request.headers["authorization"] == f"Bearer {SECRET}"


async def test_the_base_url_may_do_without_the_version(protocol: Protocol, server: ModelServer) -> None:
    """Our choice: its SDK wants it without, OpenAI's with."""
    server.base_url = server.base_url.removesuffix("v1")
    await said(opened(protocol, server))
    assert server.requests[0].path.partition("?")[0] == "/v1/messages"


async def test_the_model_is_shown_its_calls_and_their_results(server: ModelServer, model: Model) -> None:
    """Standard: the results of all calls stand in one message, before what the user says."""
    calls = (CALL, Use("no such", {}, raw="{x", tool_call_id="c_2", refused="no"))
    results = (RESULT, Result("c_2", "no such", "There is none.", failed=True))
    await said(model, Prompt("", (User("one"), Assistant("Wait.", calls=calls), *results, User("steer")), TOOLS))
    _, (_, response), (role, answers) = server.requests[0].messages
    assert response == [
        *shown("Wait."),
        {"type": "tool_use", "id": "c_1", "name": "demo__add", "input": {"a": 1}},
        {"type": "tool_use", "id": "c_2", "name": "no_such", "input": {"INVALID_JSON": "{x"}},
    ]
    assert role == "user"
    assert answers == [
        {"type": "tool_result", "tool_use_id": "c_1", "content": shown("3"), "is_error": False},
        {"type": "tool_result", "tool_use_id": "c_2", "content": shown("There is none."), "is_error": True},
        *shown("steer"),
    ]


async def test_blank_text_is_not_sent(server: ModelServer, model: Model) -> None:
    """Standard: Anthropic refuses it, and tools return it."""
    await said(model, Prompt("", (User("one"), Assistant("\n", calls=(CALL,)), replace(RESULT, content="")), TOOLS))
    _, (_, response), (_, answers) = server.requests[0].messages
    assert [part["type"] for part in response] == ["tool_use"]
    assert answers[0]["content"] == shown("(empty)")


async def test_calls_of_tools_that_are_gone_can_be_shown(server: ModelServer, model: Model) -> None:
    """Standard: Anthropic refuses calls in a conversation without tools."""
    await said(model, Prompt("", (User("one"), Assistant("", calls=(CALL,)), RESULT)))
    assert [tool["name"] for tool in server.requests[0].body["tools"]] == ["demo__add"]


async def test_signed_thinking_goes_back_as_it_came(server: ModelServer, model: Model) -> None:
    """Standard: extended thinking with tools. Promise: several blocks, also those that are encrypted."""
    blocks = (
        *thinking(0, "h", "mm", signature="s1"),
        block(1, "redacted_thinking", data="secret"),
        closed(1),
        *thinking(2, "so", signature="s2"),
        *text(3, "x"),
        *call(4, "demo__add", '{"a":', " 1}"),
    )
    server.script(Reply((start(), PING, *blocks, *end("tool_use"))))
    *pieces, last = await said(model, Prompt("", (User("one"),), TOOLS))
    assert pieces == [Piece("h", "thinking"), Piece("mm", "thinking"), Piece("so", "thinking"), Piece("x")]
    assert isinstance(last, Said)
    assert last.calls == (Use("demo.add", {"a": 1}),)
    thought = Assistant("x", "hmmso", last.signature, (CALL,))
    await said(model, Prompt("", (User("one"), thought, RESULT), TOOLS))
    assert server.requests[1].messages[1][1] == [
        {"type": "thinking", "thinking": "hmm", "signature": "s1"},
        {"type": "redacted_thinking", "data": "secret"},
        {"type": "thinking", "thinking": "so", "signature": "s2"},
        *shown("x"),
        {"type": "tool_use", "id": "c_1", "name": "demo__add", "input": {"a": 1}},
    ]


async def test_thinking_that_is_not_shown_goes_back_too(server: ModelServer, model: Model) -> None:
    """Standard: newer models sign thinking whose text they omit."""
    server.script(Reply((start(), *thinking(0, signature="s1"), *text(1, "x"), *end())))
    last = await end_of(model)
    await said(model, Prompt("", (User("one"), Assistant("x", None, last.signature), User("two"))))
    sent = server.requests[1].messages[1][1]
    assert sent == [{"type": "thinking", "thinking": "", "signature": "s1"}, *shown("x")]


async def test_a_model_that_thinks_silently_is_not_given_up(protocol: Protocol, server: ModelServer) -> None:
    """Promise: it has `first_seconds`, also in mid-response. The clock is another request, which falls silent."""
    begins, *goes_on = thinking(1)
    body: tuple[bytes | Step, ...] = (start(), *text(0, "x"), begins, Step.STALL, *goes_on, *text(2, "y"), *end())
    server.script(Reply(body), broken(Step.STALL))
    async with aclosing(opened(protocol, server, idle_seconds=0.1)) as model:
        thinks = asyncio.create_task(said(model))
        await until(lambda: server.requests)
        assert (await failure(model)).code == Code.MODEL_UNAVAILABLE
        server.requests[0].resume.set()
        assert (await thinks)[:2] == [Piece("x"), Piece("y")]


@pytest.mark.parametrize(
    ("thought", "signature"),
    [
        ("hmm", None),
        ("hmm", '{"type":"anthropic","blocks":[[3,"",false]]}'),
        ("hmm", "another provider's"),
        ("hmm", '{"type":"other","blocks":[[3,"s1",false]]}'),
        ("hm", '{"type":"anthropic","blocks":[[3,"s1",false]]}'),
        ("hmm", "\ud800"),
    ],
    ids=["unsigned", "an-unsigned-block", "nonsense", "another", "not-the-text", "half-a-character"],
)
async def test_thinking_without_a_signature_that_fits_is_not_sent(
    server: ModelServer, model: Model, thought: str, signature: str | None
) -> None:
    """Standard: Anthropic refuses it. Promise: an agent may change its provider."""
    await said(model, Prompt("", (User("one"), Assistant("x", thought, signature), User("two"))))
    assert server.requests[0].messages[1][1] == shown("x")


async def test_a_response_without_thinking_has_no_signature(server: ModelServer, model: Model) -> None:
    """Promise: nothing is kept that is not needed; thinking that was not signed cannot go back."""
    server.script(answer("x"), Reply((start(), *thinking(0, "h", signature=""), *text(1, "x"), *end())))
    assert (await end_of(model)).signature is None
    assert (await end_of(model)).signature is None


async def test_arguments_may_come_with_the_beginning_of_a_call(server: ModelServer, model: Model) -> None:
    """Our choice: compatible servers send them so. The fragments of two calls may be mixed."""
    one, two = call(1, "demo__add", '{"b"', ": 2}"), call(2, "demo__add", '{"c"', ": 3}")
    mixed = (one[0], two[0], one[1], two[1], one[2], two[2], one[3], two[3])
    server.script(Reply((start(), *call(0, "demo__add", a=1), *mixed, *end("tool_use"))))
    uses = tuple(Use("demo.add", arguments) for arguments in ({"a": 1}, {"b": 2}, {"c": 3}))
    assert (await end_of(model, Prompt("", (User("one"),), TOOLS))).calls == uses


async def test_cached_tokens_are_counted(server: ModelServer, model: Model) -> None:
    """Our choice: as OpenAI counts them, what is cached is part of the prompt's tokens."""
    server.script(Reply((start(7, cached=64, written=10), *text(0, "x"), *end())))
    counts = {"input_tokens": 81, "output_tokens": 5, "cache_read_tokens": 64, "cache_write_tokens": 10}
    assert (await end_of(model)).usage == counts


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "stop"),
        ("another", "stop"),
    ],
)
async def test_the_reason_to_finish_is_in_our_words(
    server: ModelServer, model: Model, reason: str, finish: str
) -> None:
    """Our choice: a server's own reason is an end like any other."""
    server.script(answer("x", reason=reason))
    assert (await end_of(model)).finish_reason == finish


async def test_text_may_begin_with_its_block(server: ModelServer, model: Model) -> None:
    """Promise: the first fragment is not lost."""
    server.script(Reply((start(), block(0, "text", text="Hel"), delta(0, "text_delta", text="lo"), *end())))
    assert (await said(model, ASKED))[:2] == [Piece("Hel"), Piece("lo")]


async def test_events_that_are_not_known_are_skipped(server: ModelServer, model: Model) -> None:
    """Standard: Anthropic's versioning says that there may be more kinds of events and deltas."""
    unknown = (event("weather"), delta(0, "smell_delta", smell="x"), event("content_block_delta", index=0, delta="x"))
    server.script(Reply((*part("Hel"), *unknown, *rest("lo"))))
    assert (await said(model))[:2] == [Piece("Hel"), Piece("lo")]
