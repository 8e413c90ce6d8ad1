"""What only servers that speak OpenAI's chat completions are told, and tell."""

import json

import pytest

from agent_runner.model import Model, Piece, Said
from agent_runner.prompt import Assistant, Prompt, Result, Tool, Use, User
from tests.agent_runner.conftest import OPENAI, SECRET, end_of, said
from tests.harness.model_server import ModelServer, Reply
from tests.harness.openai_server import answer, call, delta, end, part

pytestmark = [pytest.mark.anyio, OPENAI]

TOOLS = (Tool("demo.add", "", {"type": "object"}),)


async def test_the_model_is_shown_the_conversation(server: ModelServer, model: Model) -> None:
    """Standard: OpenAI chat completions; the key goes to the server, as its SDK sends it."""
    await said(model, Prompt("Be brief.", (User("one"), Assistant("two"), User("three"), User("four"))))
    (request,) = server.requests
    assert request.messages == [
        ("system", "Be brief."),
        ("user", "one"),
        ("assistant", "two"),
        ("user", "three"),
        ("user", "four"),
    ]
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {SECRET}"


async def test_the_model_is_shown_its_calls_and_their_results(server: ModelServer, model: Model) -> None:
    """Standard: as above. Our choice: what was no JSON is shown in an object, which servers can parse."""
    calls = (
        Use("demo.add", {"a": 1}, tool_call_id="c_1"),
        Use("no such", {}, raw="{x", tool_call_id="c_2", refused="no"),
    )
    results = (Result("c_1", "demo.add", "3"), Result("c_2", "no such", "There is none.", failed=True))
    await said(model, Prompt("", (User("one"), Assistant("Wait.", calls=calls), *results, User("steer")), TOOLS))
    _, response, *rest = server.requests[0].body["messages"]
    assert (response["role"], response["content"]) == ("assistant", "Wait.")
    assert [(use["id"], use["function"]["name"]) for use in response["tool_calls"]] == [
        ("c_1", "demo__add"),
        ("c_2", "no_such"),
    ]
    written = [json.loads(use["function"]["arguments"]) for use in response["tool_calls"]]
    assert written == [{"a": 1}, {"INVALID_JSON": "{x"}]
    assert rest == [
        {"role": "tool", "tool_call_id": "c_1", "content": "3"},
        {"role": "tool", "tool_call_id": "c_2", "content": '{"error":"There is none."}'},
        {"role": "user", "content": "steer"},
    ]


async def test_thinking_is_heard_and_goes_back(server: ModelServer, model: Model) -> None:
    """Standard: `reasoning_content`, as DeepSeek and others have it; some models want it back with their calls."""
    server.script(answer("x", thinking=("h", "mm"), use=[("demo__add", "{}")]))
    assert await said(model) == [
        Piece("h", "thinking"),
        Piece("mm", "thinking"),
        Piece("x"),
        Said("tool_call", {"input_tokens": 7, "output_tokens": 5}, (Use("demo__add", {}),), "reasoning_content"),
    ]
    called = Assistant("x", "hmm", "reasoning_content", (Use("demo.add", {}, tool_call_id="c_1"),))
    await said(model, Prompt("", (User("one"), called, Result("c_1", "demo.add", "3")), TOOLS))
    assert server.requests[1].body["messages"][1]["reasoning_content"] == "hmm"


async def test_thinking_is_heard_by_either_of_its_names(server: ModelServer, model: Model) -> None:
    """Standard: `reasoning` at Ollama and newer vLLM, `reasoning_content` at others; no text, and said once."""
    server.script(Reply((*part(), delta(reasoning="h"), delta(reasoning="mm"), delta(content="x"), *end())))
    *pieces, last = await said(model)
    assert pieces == [Piece("h", "thinking"), Piece("mm", "thinking"), Piece("x")]
    assert isinstance(last, Said)
    assert last.signature is None  # Groq refuses either field


@pytest.mark.parametrize("signature", [None, '{"type":"anthropic","blocks":[]}'])
async def test_thinking_that_came_otherwise_does_not_go_back(
    server: ModelServer, model: Model, signature: str | None
) -> None:
    """Our choice: another server, or another field, and it may be refused."""
    entries = (User("one"), Assistant("x", "hmm", signature, (Use("demo.add", {}, tool_call_id="c_1"),)))
    await said(model, Prompt("", (*entries, Result("c_1", "demo.add", "3")), TOOLS))
    assert "hmm" not in str(server.requests[0].body)


async def test_arguments_come_in_whatever_fragments(server: ModelServer, model: Model) -> None:
    """Standard: by index. Promise: the first fragment counts, whole or empty."""
    server.script(
        Reply(
            (
                *part(),
                call(0, '{"a"', "demo__add"),
                call(1, None, "demo__add"),
                call(1, '{"b": '),
                call(0, ": 1}"),
                call(2, '{"c": 3}', "demo__add"),
                call(1, "2}"),
                *end("tool_calls"),
            )
        )
    )
    uses = tuple(Use("demo.add", arguments) for arguments in ({"a": 1}, {"b": 2}, {"c": 3}))
    assert (await end_of(model, Prompt("", (User("one"),), TOOLS))).calls == uses


async def test_cached_and_reasoning_tokens_are_counted(server: ModelServer, model: Model) -> None:
    """Standard: OpenAI's `usage`; what is cached is part of the prompt's tokens."""
    server.script(answer("x", usage=(70, 5), cached=64), answer("x", usage=None))
    assert (await end_of(model)).usage == {"input_tokens": 70, "output_tokens": 5, "cache_read_tokens": 64}
    assert (await end_of(model)).usage is None


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("stop", "stop"), ("length", "length"), ("tool_calls", "stop"), ("eos", "stop")],
)
async def test_the_reason_to_finish_is_in_our_words(
    server: ModelServer, model: Model, reason: str, finish: str
) -> None:
    """Our choice: a server's own reason is an end like any other."""
    server.script(answer("x", reason=reason, usage=None))
    assert (await said(model))[-1] == Said(finish, None)  # type: ignore[arg-type]


async def test_thinking_in_tags_is_no_text(server: ModelServer, model: Model) -> None:
    """Our choice: servers that do not separate it write `<think>`."""
    server.script(Reply((*part("<think>", "hmm", "</think>", "x"), *end())))
    assert [piece for piece in await said(model) if isinstance(piece, Piece)] == [Piece("hmm", "thinking"), Piece("x")]


async def test_a_chunk_may_hold_text_thinking_and_a_call(server: ModelServer, model: Model) -> None:
    """Our choice: small servers send everything at once."""
    whole = {"index": 0, "id": "1", "type": "function", "function": {"name": "demo__add", "arguments": '{"a": 1}'}}
    server.script(Reply((delta(content="x", reasoning_content="h", tool_calls=[whole]), *end("stop"))))
    *pieces, last = await said(model, Prompt("", (User("one"),), TOOLS))
    assert pieces == [Piece("h", "thinking"), Piece("x")]
    use = (Use("demo.add", {"a": 1}),)
    assert last == Said("tool_call", {"input_tokens": 7, "output_tokens": 5}, use, "reasoning_content")
