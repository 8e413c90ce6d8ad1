"""Servers that speak OpenAI's chat completions in their own way: each case is of a server in use."""

import logging
from collections.abc import Sequence
from contextlib import aclosing

import pytest

from agent_runner.model import Model, Piece, Said
from agent_runner.prompt import Prompt, Tool, Use, User
from broker import logs
from contracts.errors import Code
from tests.agent_runner.conftest import ANTHROPIC, OPENAI, PROTOCOLS, SECRET, Protocol, end_of, failure, opened, said
from tests.harness import anthropic_server
from tests.harness.model_server import ModelServer, Reply
from tests.harness.openai_server import DONE, call, chunk, delta, end, part, refusal, sse

pytestmark = pytest.mark.anyio

TOOLS = (Tool("demo.add", "", {"type": "object"}), Tool("demo.sub", "", {"type": "object"}))
CALLING = Prompt("", (User("one"),), TOOLS)


def fragment(index: int, name: str | None, arguments: object, call_id: str | None = None) -> bytes:
    """A fragment of a call, in any shape."""
    function = {"name": name, "arguments": arguments} if name is not None else {"arguments": arguments}
    return delta(tool_calls=[{"index": index, "id": call_id, "type": "function", "function": function}])


def counted(choices: Sequence[object], prompt: float, completion: float) -> bytes:
    """A chunk that tells what was used."""
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return chunk([*choices], usage=usage)


def said_so(text: str, reason: str | None = None) -> list[object]:
    """The choice of a chunk."""
    return [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]


@OPENAI
@pytest.mark.parametrize(
    "body",
    [
        pytest.param((b"data: \n\n", *part("Hi")), id="empty data"),
        pytest.param((b"event: keepalive\n\n", *part("Hi")), id="an event without data"),
        pytest.param((b"retry: 3000\n\n", *part("Hi")), id="retry"),
        pytest.param((*(b"id: 1\n" + line for line in part("Hi")), b": ping\n\n"), id="comments after ids"),
        pytest.param((chunk(said_so("Hi"), created=1_730_000_000_000_000_000),), id="created in ns"),
    ],
)
async def test_what_keeps_a_stream_alive_does_not_end_it(
    server: ModelServer, model: Model, body: tuple[bytes, ...]
) -> None:
    """Standard: server-sent events; one without data is none."""
    server.script(Reply((*body, *end(usage=None))))
    assert await said(model) == [Piece("Hi"), Said("stop")]


@OPENAI
@pytest.mark.parametrize(
    "last",
    [
        pytest.param({"index": 0, "finish_reason": "stop"}, id="absent"),
        pytest.param({"index": 0, "delta": None, "finish_reason": "stop"}, id="null"),
    ],
)
async def test_the_reason_counts_without_a_delta(server: ModelServer, model: Model, last: dict[str, object]) -> None:
    """Our choice: as Azure sends it."""
    server.script(Reply((*part("Hi"), chunk([last]), DONE)))
    assert await said(model) == [Piece("Hi"), Said("stop")]


@OPENAI
async def test_an_answer_that_is_withheld_late_is_not_tried_again(server: ModelServer, model: Model) -> None:
    """Our choice: Azure's asynchronous filter."""
    server.script(Reply((*part("Hi"), chunk([{"index": 0, "finish_reason": "content_filter"}]), DONE)))
    assert (await failure(model)).code == Code.AGENT_FAILED


@OPENAI
@pytest.mark.parametrize(
    "body",
    [
        pytest.param((counted(said_so("a"), 10, 1), counted(said_so("b", "stop"), 10, 4)), id="in every chunk"),
        pytest.param((counted(said_so("ab", "stop"), 10, 4), counted([], 10, 4)), id="twice at the end"),
        pytest.param((*part("ab"), delta("stop"), counted([], 10.0, 4.5)), id="in fractions"),
    ],
)
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
async def test_tokens_are_counted_once_and_whole(server: ModelServer, model: Model, body: tuple[bytes, ...]) -> None:
    """Promise: `usage` is what was used; a fraction could not be read from the log again."""
    server.script(Reply((*body, DONE)))
    usage = (await end_of(model)).usage
    assert usage == {"input_tokens": 10, "output_tokens": 4}
    assert {type(count) for count in usage.values()} == {int}


ADD = Use("demo.add", {"a": 1})


@OPENAI
@pytest.mark.parametrize(
    ("body", "uses"),
    [
        pytest.param(
            (fragment(0, "demo__add", '{"a":1}', "1"), fragment(0, "demo__sub", "{}", "2")),
            (ADD, Use("demo.sub", {})),
            id="two at one index (Ollama)",
        ),
        pytest.param(
            (fragment(0, "demo__add", '{"a":', "1"), fragment(0, None, "1}", "2")),
            (ADD,),
            id="another id in each fragment",
        ),
        pytest.param(
            (fragment(0, "demo__add", '{"a":', "1"), fragment(0, "demo__add", "1}", "1")),
            (ADD,),
            id="the name in each fragment (NIM)",
        ),
        pytest.param(
            (fragment(0, "demo__", "", "1"), fragment(0, "add", '{"a":1}')),
            (ADD,),
            id="the name in two fragments (Gemini)",
        ),
        pytest.param(
            (fragment(0, "demo__add", {"a": 1}, "1"), fragment(0, None, "")),
            (ADD,),
            id="arguments as an object",
        ),
        pytest.param(
            (call(0, '{"a":', "demo__add"), call(1, "{", "demo__sub"), call(0, "1}"), call(1, "}")),
            (ADD, Use("demo.sub", {})),
            id="side by side",
        ),
    ],
)
async def test_calls_are_told_apart(
    server: ModelServer, model: Model, body: tuple[bytes, ...], uses: tuple[Use, ...]
) -> None:
    """Standard: by index; where servers do otherwise, by what else they say."""
    server.script(Reply((*part(), *body, *end("tool_calls"))))
    assert (await end_of(model, CALLING)).calls == uses


@OPENAI
@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("abort", Code.MODEL_UNAVAILABLE),
        ("insufficient_system_resource", Code.MODEL_UNAVAILABLE),
        ("network_error", Code.MODEL_UNAVAILABLE),
        ("timeout", Code.MODEL_UNAVAILABLE),
        ("sensitive", Code.AGENT_FAILED),
        ("SAFETY", Code.AGENT_FAILED),
    ],
)
async def test_an_answer_that_the_server_broke_off_is_none(
    server: ModelServer, model: Model, reason: str, code: Code
) -> None:
    """Promise: no answer that is not whole passes for one. Reasons of vLLM, DeepSeek, z.ai, Gemini."""
    server.script(Reply((*part("Hel"), *end(reason))))
    assert (await failure(model)).code == code


@OPENAI
@pytest.mark.parametrize(("reason", "told"), [("MAX_TOKENS", "length"), ("STOP", "stop"), ("eos", "stop")])
async def test_reasons_of_other_servers_are_told_in_ours(
    server: ModelServer, model: Model, reason: str, told: str
) -> None:
    """Our choice: what is not known is a `stop`."""
    server.script(Reply((*part("Hel"), *end(reason))))
    assert (await end_of(model)).finish_reason == told


@OPENAI
async def test_a_call_that_was_cut_off_before_its_arguments_is_not_made(server: ModelServer, model: Model) -> None:
    """Promise: as with `length`."""
    server.script(Reply((*part(), fragment(0, "demo__add", "", "1"), *end("max_tokens"))))
    assert (await end_of(model, CALLING)).calls == (Use("demo.add", {}, raw=""),)


@OPENAI
@pytest.mark.parametrize(
    "text",
    [
        "The decoder prompt (length 5) is longer than the maximum model length of 4.",
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096.",
        "The input token count (12) exceeds the maximum number of tokens allowed (10).",
        "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
        "Invalid request: Your request exceeded model token limit: 8192",
        "prompt token count of 200000 exceeds the limit of 128000",
        "prompt too long; exceeded max context length by 100 tokens",
        "too many tokens: size limit exceeded by 100 tokens.",
        "Prompt exceeds max length",
        "litellm.ContextWindowExceededError: x",
        "Your input exceeds the context window of this model.",
    ],
)
async def test_every_servers_words_for_too_long_are_known(server: ModelServer, model: Model, text: str) -> None:
    """Our choice: there is no code that all of them have."""
    server.script(refusal(400, None, text))
    assert (await failure(model)).code == Code.CONTEXT_TOO_LONG


@OPENAI
@pytest.mark.parametrize(
    "body",
    [
        {"detail": [{"loc": ["body"], "msg": "Extra inputs are not permitted", "input": "my context window is"}]},
        {"error": {"message": "no", "input": "context length"}},
        {"error": None},
    ],
)
async def test_what_a_refusal_repeats_of_the_request_is_not_its_reason(
    server: ModelServer, model: Model, body: dict[str, object]
) -> None:
    """Our choice: a person may have written of a context window."""
    server.script(Reply.error(422, body))
    assert (await failure(model)).code == Code.AGENT_FAILED


async def test_what_the_environment_has_for_a_provider_goes_to_no_other_server(
    protocol: Protocol, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: a gateway's key, an account's name are for whom they are meant."""
    for variable in ("OPENAI_CUSTOM_HEADERS", "ANTHROPIC_CUSTOM_HEADERS"):
        monkeypatch.setenv(variable, f"X-Gateway-Key: {SECRET}")
    for variable in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(variable, SECRET)
    async with aclosing(opened(protocol, server)) as model:
        await said(model)
    assert SECRET not in str(server.requests[0].headers)


@ANTHROPIC
async def test_anthropics_reasons_are_told_in_ours(server: ModelServer, model: Model) -> None:
    """Standard: the model's window was full."""
    server.script(anthropic_server.answer("Hel", reason="model_context_window_exceeded"))
    assert (await end_of(model)).finish_reason == "length"


@OPENAI
async def test_an_error_in_the_stream_may_have_a_number_for_a_code(server: ModelServer, model: Model) -> None:
    """Our choice: as vLLM sends it."""
    server.script(Reply((sse({"error": {"code": 400, "message": "the context length is 8 tokens"}}),)))
    assert (await failure(model)).code == Code.CONTEXT_TOO_LONG


async def test_no_url_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Promise: what is asked may have a key in its address."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logs.set_up("agent_runner", "debug")
        root.handlers = [caplog.handler]
        async with PROTOCOLS["openai"].server() as server, aclosing(opened(PROTOCOLS["openai"], server)) as model:
            await said(model)
            assert server.base_url.removeprefix("http://") not in caplog.text
    finally:
        root.handlers, root.level = handlers, level


@OPENAI
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
async def test_fractions_of_tokens_are_left_out(server: ModelServer, model: Model) -> None:
    """Promise: as above, wherever they are told."""
    usage = {
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 1.5},
    }
    server.script(Reply((*part("Hi"), delta("stop"), chunk([], usage=usage), DONE)))
    told = (await end_of(model)).usage
    assert told == {"input_tokens": 7, "output_tokens": 2, "cache_read_tokens": 1}
    assert {type(counted) for counted in told.values()} == {int}
