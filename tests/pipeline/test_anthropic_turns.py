"""Turns of an agent that is a model of Anthropic's, in real runners."""

from pathlib import Path

import pytest

from tests.harness.anthropic_server import PING, answer, anthropic_server, call, closed, end, opened, start, text
from tests.harness.anthropic_server import thinking as thought
from tests.harness.client import joined, new_session
from tests.harness.model_server import Reply
from tests.harness.system import system
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

CONFIG = """
[agents.claude]
model = "anthropic:fake"
base_url = "{base_url}"
tools = ["demo.*"]
"""
THINKING = (
    {"type": "thinking", "thinking": "hmm", "signature": "s1"},
    {"type": "redacted_thinking", "data": "secret"},
    {"type": "thinking", "thinking": "so", "signature": "s2"},
)
THINKS_AND_CALLS = Reply(
    (
        start(),
        PING,
        *thought(0, "h", "mm", signature="s1"),
        opened(1, "redacted_thinking", data="secret"),
        closed(1),
        *thought(2, "so", signature="s2"),
        *text(3, "Let me ", "see."),
        *call(4, "demo__add", '{"a": 1,', ' "b": 2}'),
        *end("tool_use"),
    )
)


@pytest.mark.parametrize("point", ["append:step:after:1", "append:tool_call:before:1", "append:tool_call:after:1"])
async def test_what_it_thought_and_signed_goes_back_from_another_runner(tmp_path: Path, point: str) -> None:
    """Standard: extended thinking with tools. Promise: a recorded response is not asked for again, nor changed."""
    async with anthropic_server() as model:
        services = ("edge", "agent_runner", "tool_runner")
        config = CONFIG.format(base_url=model.base_url)
        async with system(tmp_path, services=services, config=config) as running:
            armed = await running.armed("agent_runner", f"{point}:kill")
            token = running.token()
            session_id = await new_session(running.edge, token, agent="claude")
            async with joined(running.edge, session_id, token) as client:
                model.script(THINKS_AND_CALLS, answer("Three."))
                await client.say("add")
                await until(lambda: armed.process.returncode is not None, within=15)
                assert len(model.requests) == 1
                await running["agent_runner"].start()
                assert (await client.until("turn_end"))["status"] == "completed"
                ends = [(frame["content"], frame.get("thinking")) for frame in client.of("stream_end")]
                assert ends == [("Let me see.", "hmmso"), ("Three.", None)]
                (use,) = client.of("tool_call")
                first, second = model.requests
                assert [role for role, _ in first.messages] == ["user"]
                _, (_, response), (role, answers) = second.messages
                called = {"type": "tool_use", "id": use["tool_call_id"], "name": "demo__add"}
                assert response == [
                    *THINKING,
                    {"type": "text", "text": "Let me see."},
                    called | {"input": {"a": 1, "b": 2}},
                ]
                assert role == "user"
                (result,) = answers
                assert (result["type"], result["tool_use_id"]) == ("tool_result", use["tool_call_id"])
                assert "3" in str(result["content"])
