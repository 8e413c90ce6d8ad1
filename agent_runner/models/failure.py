"""Failure: the code of whatever goes wrong with a request, as the table of `agent_runner.model` has it."""

import re

from agent_runner.model import ModelFailure, key_variable
from contracts.config import Agent
from contracts.errors import Code

_TOO_LONG = re.compile(
    r"context[ _]?(length|window|size|limit)|(prompt|input) (is )?too long|maximum (model|prompt) length"
    r"|`inputs` tokens|(input|prompt) token count.*exceeds|exceeded model token limit|exceeds max length"
    r"|too many tokens: size",
    re.I,
)
"""As OpenAI, Anthropic, vLLM, SGLang, TGI, llama.cpp, Ollama, LM Studio, LiteLLM, Gemini, xAI, Kimi and z.ai say it."""


def failure(error: Exception, agent: Agent) -> ModelFailure:  # noqa: C901, PLR0911 - a table
    """What the error of a library means. Nothing of its text is told."""
    from pydantic_ai import exceptions as ai

    where = f"the server of {agent.model!r}"
    match error:
        case ai.ModelRateLimitError():
            return ModelFailure(Code.MODEL_RATE_LIMITED, "", error.retry_after)
        case ai.ModelContextWindowExceededError() | ai.ModelHTTPError(status_code=413):
            return ModelFailure(Code.CONTEXT_TOO_LONG)
        case ai.ModelQuotaExceededError():
            return ModelFailure(Code.AGENT_FAILED, f"{where} says that the quota is used up")
        case ai.ModelAuthenticationError():
            key = key_variable(agent)
            problem = f"refuses the key in {key}" if key else "wants a key: set `api_key_env`"
            return ModelFailure(Code.AGENT_FAILED, f"{where} {problem}")
        case ai.ModelNotFoundError():
            text = f"{where} does not know it: look at `model` and `base_url`"
            return ModelFailure(Code.AGENT_FAILED, text)
        case ai.ModelAPIError(body=body) if _TOO_LONG.search(_told(body)):
            return ModelFailure(Code.CONTEXT_TOO_LONG)
        case ai.ModelHTTPError(status_code=status) if status < 500 and status != 408:
            return ModelFailure(Code.AGENT_FAILED, f"{where} refuses the request ({status})")
        case ai.ModelRequestRejectedError():
            return ModelFailure(Code.AGENT_FAILED, f"{where} refuses the request")
        case ai.ModelConnectionError():
            text = f"{where} cannot be reached, or the connection broke"
            return ModelFailure(Code.MODEL_UNAVAILABLE, text)
        case ai.ModelHTTPError(status_code=status):
            text = f"{where} failed ({status})"
            return ModelFailure(Code.MODEL_UNAVAILABLE, text, error.retry_after)
        case ai.UserError():
            return ModelFailure(Code.AGENT_FAILED, f"{agent.model!r} cannot be asked: look at the schemas of its tools")
    return ModelFailure(Code.MODEL_UNAVAILABLE, f"{where} sent no whole answer")


def _told(body: object) -> str:
    """What a refusal says, without what it may repeat of the request."""
    match body:
        case str():
            return body
        case {"error": error} if error:
            return _told(error)
        case dict():
            return " ".join(
                str(body[key]) for key in ("code", "type", "message", "detail") if isinstance(body.get(key), str)
            )
    return ""
