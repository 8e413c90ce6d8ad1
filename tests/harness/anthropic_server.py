"""A real HTTP server that speaks Anthropic's streamed messages, as a script says."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tests.harness.model_server import ModelServer, Reply, Step, serving

PING = b'event: ping\ndata: {"type": "ping"}\n\n'
STOP = b'event: message_stop\ndata: {"type": "message_stop"}\n\n'
MALFORMED = b'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 0, "del\n\n'


def event(kind: str, **fields: object) -> bytes:
    """One event of the stream."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def start(tokens: int = 7, cached: int = 0, written: int = 0) -> bytes:
    """The beginning of a message. Tokens of the prompt: neither cached nor written to the cache, and those."""
    usage = {"input_tokens": tokens, "output_tokens": 1}
    usage |= {"cache_read_input_tokens": cached, "cache_creation_input_tokens": written}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "fake", "content": [], "usage": usage}
    return event("message_start", message=message | {"stop_reason": None, "stop_sequence": None})


def opened(index: int, kind: str, **fields: object) -> bytes:
    """The beginning of a block: `text`, `thinking`, `redacted_thinking`, `tool_use`."""
    return event("content_block_start", index=index, content_block={"type": kind, **fields})


def delta(index: int, kind: str, **fields: object) -> bytes:
    """A piece of a block: `text_delta`, `thinking_delta`, `signature_delta`, `input_json_delta`."""
    return event("content_block_delta", index=index, delta={"type": kind, **fields})


def closed(index: int) -> bytes:
    """The end of a block."""
    return event("content_block_stop", index=index)


def text(index: int, *pieces: str) -> tuple[bytes, ...]:
    """A block of text."""
    deltas = (delta(index, "text_delta", text=piece) for piece in pieces)
    return (opened(index, "text", text=""), *deltas, closed(index))


def part(*pieces: str) -> tuple[bytes, ...]:
    """The beginning of an answer: a block of text, not closed."""
    return (start(), PING, *text(0, *pieces)[:-1])


def rest(*pieces: str) -> tuple[bytes, ...]:
    """More text of an answer that has begun, and its end."""
    return (*text(0, *pieces)[1:], *end())


def thinking(index: int, *pieces: str, signature: str = "signed") -> tuple[bytes, ...]:
    """A block of thinking and its signature."""
    deltas = (delta(index, "thinking_delta", thinking=piece) for piece in pieces)
    signed = delta(index, "signature_delta", signature=signature)
    return (opened(index, "thinking", thinking="", signature=""), *deltas, signed, closed(index))


def call(index: int, name: str, *pieces: str, **arguments: object) -> tuple[bytes, ...]:
    """A block with a call. Its arguments come in pieces of JSON, or as they are with the block's beginning."""
    deltas = (delta(index, "input_json_delta", partial_json=piece) for piece in pieces)
    return (opened(index, "tool_use", id=f"toolu_{index}", name=name, input=arguments), *deltas, closed(index))


def end(reason: str | None = "end_turn", tokens: int = 5) -> tuple[bytes, ...]:
    """The end of a message, and the tokens that it took."""
    last = event("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage={"output_tokens": tokens})
    return (last, STOP)


def answer(*pieces: str, use: Sequence[tuple[str, str]] = (), reason: str | None = None) -> Reply:
    """A whole answer: the text, then the calls, names and arguments."""
    blocks = text(0, *pieces) if pieces else ()
    for index, (name, written) in enumerate(use, 1):
        blocks += call(index, name, written[:1], written[1:])
    return Reply((start(), *blocks, *end(reason or ("tool_use" if use else "end_turn"))))


def broken(*body: bytes | Step) -> Reply:
    """The text `Hel`, and then that."""
    return Reply((*part("Hel"), *body))


def refusal(status: int, kind: str = "api_error", message: str = "refused", **headers: str) -> Reply:
    """An error in Anthropic's form. Headers are written `retry_after="3"`."""
    return Reply.error(status, {"type": "error", "error": {"type": kind, "message": message}}, **headers)


def error(kind: str, message: str = "refused") -> bytes:
    """An error in the stream."""
    return event("error", error={"type": kind, "message": message})


class AnthropicServer(ModelServer):
    """The server. It answers `Hello world` unless it is scripted."""

    def __init__(self) -> None:
        super().__init__(answer("Hello", " world"))


@asynccontextmanager
async def anthropic_server() -> AsyncIterator[AnthropicServer]:
    """A server on a free port until the block ends."""
    server = AnthropicServer()
    async with serving(server):
        yield server
