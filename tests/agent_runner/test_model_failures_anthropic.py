"""Failures of a server that speaks Anthropic's messages."""

import pytest

from agent_runner.model import Model
from contracts.errors import Code
from tests.agent_runner.conftest import ANTHROPIC, failure
from tests.harness.anthropic_server import MALFORMED, STOP, answer, broken, call, end, error, event, refusal, start
from tests.harness.model_server import ModelServer, Reply, Step

pytestmark = [pytest.mark.anyio, ANTHROPIC]

WITHHELD = event(
    "message_delta",
    delta={"stop_reason": "refusal", "stop_sequence": None, "stop_details": {"type": "refusal", "explanation": "no"}},
    usage={"output_tokens": 1},
)


@pytest.mark.parametrize(
    ("reply", "code", "retryable"),
    [
        pytest.param(refusal(400, "invalid_request_error"), Code.AGENT_FAILED, False, id="400"),
        pytest.param(refusal(401, "authentication_error"), Code.AGENT_FAILED, False, id="401"),
        pytest.param(refusal(402, "billing_error"), Code.AGENT_FAILED, False, id="402"),
        pytest.param(refusal(403, "permission_error"), Code.AGENT_FAILED, False, id="403"),
        pytest.param(refusal(404, "not_found_error"), Code.AGENT_FAILED, False, id="404"),
        pytest.param(refusal(408), Code.MODEL_UNAVAILABLE, True, id="408"),
        pytest.param(refusal(413, "request_too_large"), Code.CONTEXT_TOO_LONG, False, id="413"),
        pytest.param(refusal(429, "rate_limit_error"), Code.MODEL_RATE_LIMITED, True, id="429"),
        pytest.param(refusal(500), Code.MODEL_UNAVAILABLE, True, id="500"),
        pytest.param(refusal(504, "timeout_error"), Code.MODEL_UNAVAILABLE, True, id="504"),
        pytest.param(refusal(529, "overloaded_error"), Code.MODEL_UNAVAILABLE, True, id="529"),
        pytest.param(
            refusal(400, "invalid_request_error", "Your credit balance is too low"),
            Code.AGENT_FAILED,
            False,
            id="credit",
        ),
        pytest.param(
            refusal(400, "invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
            Code.CONTEXT_TOO_LONG,
            False,
            id="long-prompt",
        ),
        pytest.param(
            refusal(400, "invalid_request_error", "input length and `max_tokens` exceed context limit: 7 + 2 > 8"),
            Code.CONTEXT_TOO_LONG,
            False,
            id="long-answer",
        ),
        pytest.param(Reply((Step.CUT,)), Code.MODEL_UNAVAILABLE, True, id="cut-at-once"),
        pytest.param(broken(Step.CUT), Code.MODEL_UNAVAILABLE, True, id="cut"),
        pytest.param(broken(Step.END), Code.MODEL_UNAVAILABLE, True, id="ended-by-a-proxy"),
        pytest.param(broken(STOP), Code.MODEL_UNAVAILABLE, True, id="no-reason-to-finish"),
        pytest.param(broken(*end(None)), Code.MODEL_UNAVAILABLE, True, id="an-empty-reason"),
        pytest.param(Reply((Step.END,)), Code.MODEL_UNAVAILABLE, True, id="empty"),
        pytest.param(Reply((start(), Step.END)), Code.MODEL_UNAVAILABLE, True, id="only-begun"),
        pytest.param(
            Reply((start(), *call(0, "demo__add", "{}"), Step.END)), Code.MODEL_UNAVAILABLE, True, id="call-broken-off"
        ),
        pytest.param(broken(MALFORMED), Code.MODEL_UNAVAILABLE, True, id="malformed"),
        pytest.param(broken(b"event: content_block_delta\ndata: \xff\n\n"), Code.MODEL_UNAVAILABLE, True, id="no-utf8"),
        pytest.param(
            Reply((b"<html></html>",), content_type="text/html"), Code.MODEL_UNAVAILABLE, True, id="a-web-page"
        ),
        pytest.param(broken(error("overloaded_error")), Code.MODEL_UNAVAILABLE, True, id="overloaded-in-the-stream"),
        pytest.param(broken(error("rate_limit_error")), Code.MODEL_RATE_LIMITED, True, id="limit-in-the-stream"),
        pytest.param(broken(error("another_error")), Code.MODEL_UNAVAILABLE, True, id="error-in-the-stream"),
        pytest.param(Reply((error("overloaded_error"),)), Code.MODEL_UNAVAILABLE, True, id="overloaded-at-once"),
        pytest.param(
            broken(error("invalid_request_error", "prompt is too long")),
            Code.CONTEXT_TOO_LONG,
            False,
            id="long-in-the-stream",
        ),
        pytest.param(answer("x", reason="refusal"), Code.AGENT_FAILED, False, id="withheld"),
        pytest.param(broken(WITHHELD, STOP), Code.AGENT_FAILED, False, id="withheld-with-a-reason"),
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
