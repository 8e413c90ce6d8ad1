"""A model that calls tools. With every provider."""

import json

import pytest

from agent_runner.model import Model, Piece, Said
from agent_runner.prompt import Prompt, Tool, Use, User
from contracts.errors import Code
from tests.agent_runner.conftest import Protocol, end_of, failure, said
from tests.harness.model_server import ModelServer

pytestmark = pytest.mark.anyio

NUMBERS = {
    "type": "object",
    "properties": {
        "a": {"type": "integer", "description": "Any.", "default": 3},
        "title": {"type": ["string", "null"]},
    },
    "required": ["a"],
    "additionalProperties": True,
}
TOOLS = (Tool("demo.add", "Add numbers.", NUMBERS), Tool("notes.find", "", {"type": "object"}))
ASKED = Prompt("Be brief.", (User("question"),), TOOLS)


async def test_calls_come_whole_and_in_order_after_the_text(
    protocol: Protocol, server: ModelServer, model: Model
) -> None:
    """Promise: several calls of one response, however their fragments come."""
    use = [("demo__add", '{"a": 1}'), ("notes__find", '{"text": "x"}'), ("demo__add", '{"a": 2}')]
    server.script(protocol.answer("Wait.", use=use))
    assert await said(model, ASKED) == [
        Piece("Wait."),
        Said(
            "tool_call",
            {"input_tokens": 7, "output_tokens": 5},
            (Use("demo.add", {"a": 1}), Use("notes.find", {"text": "x"}), Use("demo.add", {"a": 2})),
        ),
    ]


@pytest.mark.parametrize("name", ["no_such", "demo.add", "other__add", "add something!", ""])
async def test_a_tool_that_the_model_invented_is_called_as_it_wrote_it(
    protocol: Protocol, server: ModelServer, model: Model, name: str
) -> None:
    """Promise: whoever makes the calls can tell the model what there is not."""
    server.script(protocol.answer(use=[(name, "{}")]))
    assert (await end_of(model, ASKED)).calls == (Use(name, {}),)


async def test_a_call_is_understood_where_no_tools_were_offered(
    protocol: Protocol, server: ModelServer, model: Model
) -> None:
    """Promise: a model may call anything at any time."""
    server.script(protocol.answer(use=[("demo__add", "{}")]))
    assert (await end_of(model)).calls == (Use("demo__add", {}),)


@pytest.mark.parametrize(
    "written",
    ['{"a": 1', '{"a": 1}}', "nonsense", "[1]", '"a"', "1", "null", '{"a": NaN}', '{"a": "\\ud800"}', "[" * 100_000],
    ids=["cut", "too-much", "no-json", "list", "string", "number", "null", "nan", "half-a-character", "too-deep"],
)
async def test_arguments_that_are_no_object_are_given_as_written(
    protocol: Protocol, server: ModelServer, model: Model, written: str
) -> None:
    """Promise: nonsense is told to the model, it fails no request."""
    server.script(protocol.answer(use=[("demo__add", written), ("demo__add", '{"a": 1}')]))
    assert (await end_of(model, ASKED)).calls == (Use("demo.add", {}, raw=written), Use("demo.add", {"a": 1}))


@pytest.mark.parametrize("written", ["", "{}"])
async def test_no_arguments_are_an_empty_object(
    protocol: Protocol, server: ModelServer, model: Model, written: str
) -> None:
    """Promise: also from servers that write nothing for them."""
    server.script(protocol.answer(use=[("demo__add", written)]))
    assert (await end_of(model, ASKED)).calls == (Use("demo.add", {}),)


@pytest.mark.parametrize(("written", "raw"), [("", ""), ('{"a', '{"a'), ('{"a": 1}', None)])
async def test_a_call_that_the_end_of_the_response_cuts_off_is_not_a_whole_one(
    protocol: Protocol, server: ModelServer, model: Model, written: str, raw: str | None
) -> None:
    """Promise: a tool is not called without the arguments that the model had no room to write."""
    reason = {"openai": "length", "anthropic": "max_tokens"}[protocol.provider]
    server.script(protocol.answer(use=[("demo__add", ""), ("demo__add", written)], reason=reason))
    end = await end_of(model, ASKED)
    assert end.finish_reason == "tool_call"
    last = Use("demo.add", {"a": 1} if raw is None else {}, raw=raw)
    assert end.calls == (Use("demo.add", {}), last)


async def test_the_finish_reason_follows_the_calls(protocol: Protocol, server: ModelServer, model: Model) -> None:
    """Our choice: some servers say `stop` after calls, others `tool_call` without any."""
    stop, calls = {"openai": ("stop", "tool_calls"), "anthropic": ("end_turn", "tool_use")}[protocol.provider]
    server.script(protocol.answer(use=[("demo__add", "{}")], reason=stop), protocol.answer("x", reason=calls))
    assert (await end_of(model, ASKED)).finish_reason == "tool_call"
    assert (await end_of(model, ASKED)).finish_reason == "stop"


async def test_tools_are_offered_with_their_schemas(server: ModelServer, model: Model) -> None:
    """Standard: JSON Schema. Promise: what the tool's own server says of its arguments reaches the model."""
    await said(model, ASKED)
    offered = json.dumps(server.requests[0].body["tools"])
    assert '"demo__add"' in offered
    assert '"Add numbers."' in offered
    assert json.dumps(NUMBERS) in offered
    assert '"strict": true' not in offered


async def test_a_prompt_without_tools_offers_none(server: ModelServer, model: Model) -> None:
    """Standard: some servers refuse an empty list."""
    await said(model)
    assert not {"tools", "tool_choice"} & server.requests[0].body.keys()


async def test_a_tool_whose_schema_is_none_fails_the_agent(server: ModelServer, model: Model) -> None:
    """Promise: it is not tried again, and the operator is told where to look."""
    prompt = Prompt("", (User("question"),), (Tool("demo.add", "", {"type": "object", "properties": "private"}),))
    caught = await failure(model, prompt)
    assert (caught.code, caught.retryable) == (Code.AGENT_FAILED, False)
    assert "schema" in caught.text
    assert "private" not in caught.text
    assert not server.requests
