"""Failures of a server that speaks OpenAI's chat completions."""

import pytest

from agent_runner.model import Model
from contracts.errors import Code
from tests.agent_runner.conftest import OPENAI, failure
from tests.harness.model_server import ModelServer, Reply, Step
from tests.harness.openai_server import DONE, MALFORMED, answer, broken, call, delta, end, part, refusal, sse

pytestmark = [pytest.mark.anyio, OPENAI]


@pytest.mark.parametrize(
    ("reply", "code", "retryable"),
    [
        pytest.param(refusal(400), Code.AGENT_FAILED, False, id="400"),
        pytest.param(refusal(401), Code.AGENT_FAILED, False, id="401"),
        pytest.param(refusal(403), Code.AGENT_FAILED, False, id="403"),
        pytest.param(refusal(404), Code.AGENT_FAILED, False, id="404"),
        pytest.param(refusal(408), Code.MODEL_UNAVAILABLE, True, id="408"),
        pytest.param(refusal(429), Code.MODEL_RATE_LIMITED, True, id="429"),
        pytest.param(refusal(429, "insufficient_quota"), Code.AGENT_FAILED, False, id="429-quota"),
        pytest.param(refusal(500), Code.MODEL_UNAVAILABLE, True, id="500"),
        pytest.param(refusal(503), Code.MODEL_UNAVAILABLE, True, id="503"),
        pytest.param(refusal(400, "context_length_exceeded"), Code.CONTEXT_TOO_LONG, False, id="long-code"),
        pytest.param(
            refusal(400, None, "This model's maximum context length is 8 tokens"),
            Code.CONTEXT_TOO_LONG,
            False,
            id="long-vllm",
        ),
        pytest.param(
            refusal(400, None, "the request exceeds the available context size"),
            Code.CONTEXT_TOO_LONG,
            False,
            id="long-llama.cpp",
        ),
        pytest.param(Reply((Step.CUT,)), Code.MODEL_UNAVAILABLE, True, id="cut-at-once"),
        pytest.param(broken(Step.CUT), Code.MODEL_UNAVAILABLE, True, id="cut"),
        pytest.param(broken(Step.END), Code.MODEL_UNAVAILABLE, True, id="ended-by-a-proxy"),
        pytest.param(broken(DONE), Code.MODEL_UNAVAILABLE, True, id="no-reason-to-finish"),
        pytest.param(Reply((DONE,)), Code.MODEL_UNAVAILABLE, True, id="empty"),
        pytest.param(broken(MALFORMED), Code.MODEL_UNAVAILABLE, True, id="malformed"),
        pytest.param(broken(b"data: \xff\n\n"), Code.MODEL_UNAVAILABLE, True, id="no-utf8"),
        pytest.param(broken(sse(42), DONE), Code.MODEL_UNAVAILABLE, True, id="no-object"),
        pytest.param(
            broken(sse({"choices": [{"delta": "x"}]}), DONE),
            Code.MODEL_UNAVAILABLE,
            True,
            id="wrong-shape",
        ),
        pytest.param(
            Reply((b"<html></html>",), content_type="text/html"),
            Code.MODEL_UNAVAILABLE,
            True,
            id="a-web-page",
        ),
        pytest.param(
            broken(sse({"error": {"message": "overloaded"}})),
            Code.MODEL_UNAVAILABLE,
            True,
            id="error-in-the-stream",
        ),
        pytest.param(
            broken(sse({"error": {"message": "no", "code": "rate_limit_exceeded"}})),
            Code.MODEL_RATE_LIMITED,
            True,
            id="limit-in-the-stream",
        ),
        pytest.param(
            broken(sse({"error": {"message": "no", "code": "context_length_exceeded"}})),
            Code.CONTEXT_TOO_LONG,
            False,
            id="long-in-the-stream",
        ),
        pytest.param(
            Reply((*part(), delta(refusal="I cannot"), *end())), Code.AGENT_FAILED, False, id="refused-by-the-model"
        ),
        pytest.param(
            Reply((*part(), call(0, '{"a": 1}', "demo__add"), Step.END)),
            Code.MODEL_UNAVAILABLE,
            True,
            id="call-broken-off",
        ),
        pytest.param(
            Reply((*part(), call(0, "{}"), *end("tool_calls"))),
            Code.MODEL_UNAVAILABLE,
            True,
            id="call-without-name",
        ),
        pytest.param(answer("x", reason="content_filter"), Code.AGENT_FAILED, False, id="withheld"),
        pytest.param(answer("x", reason="error"), Code.MODEL_UNAVAILABLE, True, id="own-error"),
    ],
)
async def test_a_failure_has_a_code_and_is_tried_once(
    server: ModelServer, model: Model, reply: Reply, code: Code, retryable: bool
) -> None:
    """Promise: no answer that is not whole passes for one; redelivery is the only retry."""
    server.script(reply)
    caught = await failure(model)
    assert (caught.code, caught.retryable) == (code, retryable)
    assert len(server.requests) == 1
