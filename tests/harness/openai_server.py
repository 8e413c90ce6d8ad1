"""A real HTTP server that speaks OpenAI's streamed chat completions, as a script says."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tests.harness.model_server import ModelServer, Reply, serving
from tests.harness.model_server import Step as Step

DONE = b"data: [DONE]\n\n"
MALFORMED = b'data: {"id": "chatcmpl-1", "choices": [{"delta": {"con\n\n'


def sse(data: object) -> bytes:
    """One event of the stream."""
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def chunk(choices: list[object], **more: object) -> bytes:
    """One chunk of a completion."""
    common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "fake"}
    return sse(common | {"choices": choices} | more)


def delta(reason: str | None = None, **fields: object) -> bytes:
    """A chunk with that delta: `content="…"`, `reasoning_content="…"`."""
    return chunk([{"index": 0, "delta": fields, "finish_reason": reason}])


def part(*texts: str, thinking: tuple[str, ...] = ()) -> tuple[bytes, ...]:
    """The beginning of an answer: the role, the thinking, the text."""
    thoughts = (delta(reasoning_content=thought) for thought in thinking)
    return (
        delta(role="assistant", content=""),
        *thoughts,
        *(delta(content=text) for text in texts),
    )


def rest(*texts: str) -> tuple[bytes, ...]:
    """More text of an answer that has begun, and its end."""
    return (*(delta(content=text) for text in texts), *end())


def call(index: int, arguments: str | None, name: str | None = None) -> bytes:
    """A fragment of a tool call. The first has the name, and may have arguments."""
    first = {"id": f"call_{index}", "type": "function"} if name is not None else {}
    function = {"name": name} if name is not None else {}
    return delta(tool_calls=[{"index": index, **first, "function": function | {"arguments": arguments}}])


def calls(*named: tuple[str, str]) -> tuple[bytes, ...]:
    """Calls side by side, names and arguments: every call begins before the first is whole."""
    starts = [call(index, written[:1], name) for index, (name, written) in enumerate(named)]
    return (*starts, *(call(index, written[1:]) for index, (_, written) in enumerate(named)))


def end(reason: str = "stop", usage: tuple[int, int] | None = (7, 5), cached: int = 0) -> tuple[bytes, ...]:
    """The end of an answer. `usage`: tokens of the prompt, `cached` of them, and of the completion."""
    if usage is None:
        return (delta(reason), DONE)
    prompt, completion = usage
    counts: dict[str, object] = {"prompt_tokens": prompt, "completion_tokens": completion}
    counts |= {"total_tokens": prompt + completion, "prompt_tokens_details": {"cached_tokens": cached}}
    return (delta(reason), chunk([], usage=counts), DONE)


def answer(
    *texts: str,
    thinking: tuple[str, ...] = (),
    use: Sequence[tuple[str, str]] = (),
    reason: str | None = None,
    usage: tuple[int, int] | None = (7, 5),
    cached: int = 0,
) -> Reply:
    """A whole answer, with calls of tools if `use` has any."""
    reason = reason or ("tool_calls" if use else "stop")
    return Reply((*part(*texts, thinking=thinking), *calls(*use), *end(reason, usage, cached)))


def broken(*body: bytes | Step) -> Reply:
    """The text `Hel`, and then that."""
    return Reply((*part("Hel"), *body))


def refusal(status: int, code: str | None = None, text: str = "refused", **headers: str) -> Reply:
    """An error in OpenAI's form. Headers are written `retry_after="3"`."""
    return Reply.error(status, {"error": {"message": text, "type": "error", "param": None, "code": code}}, **headers)


class OpenAIServer(ModelServer):
    """The server. It answers `Hello world` unless it is scripted."""

    def __init__(self) -> None:
        super().__init__(answer("Hello", " world"))


@asynccontextmanager
async def openai_server() -> AsyncIterator[OpenAIServer]:
    """A server on a free port until the block ends."""
    server = OpenAIServer()
    async with serving(server):
        yield server
