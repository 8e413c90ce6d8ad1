"""Asking: a prompt in pydantic-ai's terms."""

from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from agent_runner.models.names import Names
from agent_runner.models.provider import Provider
from agent_runner.prompt import Assistant, Prompt, Result, Use, User
from contracts.config import Agent

if TYPE_CHECKING:
    from pydantic_ai import messages
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.settings import ModelSettings

NOTHING = "(empty)"
"""What a request says in place of blank text, which Anthropic refuses."""


def names(prompt: Prompt) -> Names:
    """What the provider calls the prompt's tools, and those called before that are there no more."""
    tools = [tool.name for tool in prompt.tools]
    for entry in prompt.entries:
        if isinstance(entry, Assistant):
            tools += [use.tool for use in entry.calls]
        elif isinstance(entry, Result):
            tools.append(entry.tool)
    return Names(tools)


def settings(agent: Agent) -> "ModelSettings":
    """What the agent limits a response to."""
    from pydantic_ai.settings import ModelSettings

    wanted = ModelSettings()
    if agent.max_output_tokens is not None:
        wanted["max_tokens"] = agent.max_output_tokens
    if agent.temperature is not None:
        wanted["temperature"] = agent.temperature
    return wanted


def parameters(prompt: Prompt, provider: Provider, names: Names) -> "ModelRequestParameters":
    """The instructions, and the tools that the model may call; their schemas go as they are."""
    from pydantic_ai.messages import InstructionPart
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.tools import ToolDefinition

    tools = [
        ToolDefinition(
            name=names.theirs(tool.name),
            parameters_json_schema=tool.parameters,
            description=tool.description,
            strict=False,
        )
        for tool in provider.tools(prompt)
    ]
    instructions = [InstructionPart(prompt.instructions)] if prompt.instructions.strip() else []
    return ModelRequestParameters(function_tools=tools, instruction_parts=instructions)


def history(prompt: Prompt, provider: Provider, names: Names) -> "list[messages.ModelMessage]":
    """The entries. What stands between two responses is one request: results belong right behind their calls."""
    from pydantic_ai.messages import ModelMessage, ModelRequest

    told: list[ModelMessage] = []
    for from_model, entries in groupby(prompt.entries, lambda entry: isinstance(entry, Assistant)):
        if from_model:
            told += [_response(entry, provider, names) for entry in entries if isinstance(entry, Assistant)]
        else:
            told.append(ModelRequest([_request(entry, names) for entry in entries if not isinstance(entry, Assistant)]))
    return told


def _request(entry: User | Result, names: Names) -> "messages.ModelRequestPart":
    from pydantic_ai.messages import ToolReturnPart, UserPromptPart

    content = entry.content if entry.content.strip() else NOTHING
    if isinstance(entry, User):
        return UserPromptPart(content)
    returned = ToolReturnPart(names.theirs(entry.tool), content, entry.tool_call_id)
    return replace(returned, outcome="failed") if entry.failed else returned


def _response(entry: Assistant, provider: Provider, names: Names) -> "messages.ModelResponse":
    from pydantic_ai.messages import ModelResponse, ModelResponsePart, TextPart, ToolCallPart

    parts: list[ModelResponsePart] = [*provider.thinking(entry)]
    if entry.content.strip():
        parts.append(TextPart(entry.content))
    parts += [ToolCallPart(names.theirs(use.tool), _arguments(use), use.tool_call_id) for use in entry.calls]
    return ModelResponse(parts)


def _arguments(use: Use) -> dict[str, object]:
    """The arguments; where they were no JSON object, the text in one: servers parse what they are sent."""
    return use.arguments if use.raw is None else {"INVALID_JSON": use.raw}
