"""Prompt: what a model is shown and what it says, in terms that no provider owns. Values only."""

from typing import Any

import msgspec
from msgspec import Struct

from contracts.events import FinishReason


class Tool(Struct, frozen=True):
    """A tool that a model may call. `name` is `server.tool`, `parameters` a JSON Schema of an object."""

    name: str
    description: str
    parameters: dict[str, Any]


class Use(Struct, frozen=True, omit_defaults=True):
    """One call that a model asked for.

    `raw` is what it wrote where that is no JSON object. `tool_call_id` is the runner's own, empty until the call has
    one. `refused` says why the call was not made: no such tool, no arguments.
    """

    tool: str
    arguments: dict[str, Any]
    raw: str | None = None
    tool_call_id: str = ""
    refused: str | None = None


class User(Struct, frozen=True, tag="user"):
    """What a person said."""

    content: str


class Assistant(Struct, frozen=True, tag="assistant", omit_defaults=True):
    """What the model said, or called: a `Result` for each of its calls follows.

    `signature` is a provider's proof of the thinking, which it wants back with it.
    """

    content: str
    thinking: str | None = None
    signature: str | None = None
    calls: tuple[Use, ...] = ()


class Result(Struct, frozen=True, tag="result", omit_defaults=True):
    """What a call came to: the tool's answer, or in words why there is none (`failed`)."""

    tool_call_id: str
    tool: str
    content: str
    failed: bool = False


Entry = User | Assistant | Result


class Prompt(Struct, frozen=True):
    """One request to a model."""

    instructions: str
    entries: tuple[Entry, ...]
    tools: tuple[Tool, ...] = ()


class Response(Struct, frozen=True, omit_defaults=True):
    """A whole model response, as it is recorded before its first call is made: the `result` of a step `RESPONSE`.

    `answer_id` is the answer that carries its text to clients, None where it has none.
    """

    content: str = ""
    answer_id: str | None = None
    thinking: str | None = None
    signature: str | None = None
    calls: tuple[Use, ...] = ()
    finish_reason: FinishReason = "stop"
    usage: dict[str, int] | None = None

    @classmethod
    def of(cls, recorded: object) -> "Response":
        """The response that a step recorded. Raises msgspec.ValidationError."""
        return msgspec.convert(recorded, cls)


RESPONSE = "model.response"
"""The name of the step that records a model response. Steps of agents are named otherwise."""
