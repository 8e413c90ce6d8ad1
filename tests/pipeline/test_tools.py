"""P5 and P6: a tool call is executed once; an approval is decided once, for exactly the arguments shown."""

import pytest

from tests.harness.client import Client, joined, new_session
from tests.harness.system import System, system
from tests.harness.wait import until

pytestmark = pytest.mark.anyio


def note(text: str) -> list[dict[str, object]]:
    """A program that has a note taken, and goes on."""
    return [{"tool": "demo.note", "arguments": {"text": text}}, {"say": "done"}]


async def asked(client: Client, text: str) -> str:
    """Have a note asked for; the id of the call."""
    await client.say(note(text))
    request = await client.until("tool_approval_request")
    assert request["arguments"] == {"text": text}
    call_id: str = request["tool_call_id"]
    return call_id


async def test_a_read_only_tool_of_a_trusted_server_runs_unasked(shared: System) -> None:
    """The call goes over the log to tool_runner, which runs it on a real MCP server."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        slowly = {"tool": "demo.slow", "arguments": {"seconds": 0.3}}
        await client.say([{"tool": "demo.add", "arguments": {"a": 2, "b": 3}}, slowly])
        await client.until("turn_end")
        call, slow = client.of("tool_call")
        result = client.of("tool_result")[0]
        assert (call["tool"], call["arguments"]) == ("demo.add", {"a": 2, "b": 3})
        assert (result["tool_call_id"], result["status"]) == (call["tool_call_id"], "completed")
        assert "5" in str(result["result"])
        assert result["error"] is None
        progress = [frame["progress"] for frame in client.of("tool_progress")]
        assert progress == sorted(progress)
        assert {frame["tool_call_id"] for frame in client.of("tool_progress")} == {slow["tool_call_id"]}
        assert not client.of("tool_approval_request")


async def test_a_destructive_tool_runs_only_after_its_approval(shared: System) -> None:
    """Promise P6."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        call_id = await asked(client, "approved")
        assert "approved" not in shared.notes
        await client.send("tool_approval", tool_call_id=call_id, approved=True, reason="why not", request_id="r")
        assert (await client.until("ack"))["request_id"] == "r"
        await client.until("turn_end")
        approval, result = client.of("tool_approval")[0], client.of("tool_result")[0]
        assert (approval["approved"], approval["decided_by"], approval["reason"]) == (True, "ann", "why not")
        assert result["status"] == "completed"
        assert shared.notes.count("approved") == 1


async def test_a_rejected_tool_does_not_run_and_the_program_goes_on(shared: System) -> None:
    """Promise P6: rejection is told."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        call_id = await asked(client, "rejected")
        await client.send("tool_approval", tool_call_id=call_id, approved=False, reason="no")
        end = await client.until("turn_end")
        assert end["status"] == "completed"
        result = client.of("tool_result")[0]
        assert (result["status"], result["error"]) == ("rejected", "no")
        assert client.of("stream_end")[-1]["content"] == "done"
        assert "rejected" not in shared.notes


async def test_an_approval_is_decided_once(shared: System) -> None:
    """Promise P6: the second decision is refused and changes nothing."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as one, joined(shared.services[-1].url, session_id, token) as two:
        call_id = await asked(one, "decided once")
        await one.send("tool_approval", tool_call_id=call_id, approved=False)
        await two.until("tool_approval")
        await two.send("tool_approval", tool_call_id=call_id, approved=True, request_id="late")
        error = await two.until("error")
        assert error["code"] in ("approval_decided", "approval_expired")
        assert error["request_id"] == "late"
        await one.until("turn_end")
        assert "decided once" not in shared.notes


async def test_edited_arguments_are_what_is_run(shared: System) -> None:
    """WIRE 1: `arguments` of an approval."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        call_id = await asked(client, "as asked")
        await client.send("tool_approval", tool_call_id=call_id, approved=True, arguments={"text": "as edited"})
        await client.until("turn_end")
        assert client.of("tool_result")[0]["status"] == "completed"
        assert "as edited" in shared.notes
        assert "as asked" not in shared.notes


@pytest.mark.parametrize(
    ("tool", "arguments", "code"),
    [
        pytest.param("demo.fail", {"text": "on purpose"}, "tool_error", id="the tool fails"),
        pytest.param("demo.nothing", {}, "tool_not_found", id="no such tool"),
        pytest.param("nobody.add", {}, "tool_not_found", id="no such server"),
        pytest.param("demo.add", {"a": "x"}, "tool_error", id="wrong arguments"),
    ],
)
async def test_a_tool_that_fails_is_told_and_the_program_goes_on(
    shared: System, tool: str, arguments: dict[str, object], code: str
) -> None:
    """A tool's error never closes the socket and never ends the turn."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        await client.say([{"tool": tool, "arguments": arguments}, {"say": "on"}])
        assert (await client.until("turn_end"))["status"] == "completed"
        result = client.of("tool_result")[0]
        assert (result["status"], result["code"]) == ("failed", code)
        assert result["error"]


async def test_a_pending_approval_survives_the_restart_of_everything(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Promise P6: it survives restarts, and the tool runs once."""
    async with system(tmp_path_factory.mktemp("restart")) as running:
        token = running.token()
        session_id = await new_session(running.edge, token)
        async with joined(running.edge, session_id, token) as client:
            call_id = await asked(client, "after the restart")
            cursor = client.cursor
        for service in running.services:
            await service.kill()
        await running.nats.kill()
        await running.nats.start()
        for service in running.services:
            await service.start()
        for service in running.services:
            await service.ready()
        async with joined(running.edge, session_id, token, after=cursor) as client:
            await client.send("tool_approval", tool_call_id=call_id, approved=True)
            await client.until("turn_end")
            assert client.of("tool_result")[-1]["status"] == "completed"
        assert running.notes == ["after the restart"]


async def test_an_approval_expires_and_rules_decide_before_hints(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Promise P6: it expires; WIRE 6: the first rule that matches decides."""
    rules = """
[[tools.rules]]
tool = "demo.add"
decision = "deny"
[[tools.rules]]
tool = "demo.note"
decision = "ask"
expires = 0.3
[[tools.rules]]
tool = "demo.fail"
decision = "ask"
"""
    async with system(tmp_path_factory.mktemp("rules"), config=rules) as running:
        token = running.token()
        session_id = await new_session(running.edge, token)
        async with joined(running.edge, session_id, token) as client:
            call_id = await asked(client, "too late")
            assert (await client.until("tool_result"))["status"] == "expired"
            await client.until("turn_end")
            await client.send("tool_approval", tool_call_id=call_id, approved=True)
            assert (await client.until("error"))["code"] in ("approval_expired", "approval_not_found")
            await client.say([{"tool": "demo.add", "arguments": {"a": 1, "b": 1}}])
            denied = await client.until("tool_result")
            assert (denied["status"], denied["code"]) == ("failed", "tool_denied")
            await client.until("turn_end")
            assert running.notes == []


async def test_cancelling_reaches_the_running_tool(shared: System) -> None:
    """Promise P8, from another device than the one that asked."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as one, joined(shared.services[-1].url, session_id, token) as two:
        await one.say([{"say": "wait "}, {"tool": "demo.slow", "arguments": {"seconds": 600}}])
        await two.until("tool_progress")
        await two.send("cancel", request_id="stop")
        assert (await two.until("ack"))["request_id"] == "stop"
        end = await one.until("turn_end")
        assert end["status"] == "cancelled"
        result = next((f for f in one.frames if f["type"] == "tool_result"), None) or await one.until("tool_result")
        assert result["status"] == "cancelled"
        await one.say("next")
        assert (await one.until("turn_end"))["status"] == "completed"


async def test_cancelling_keeps_what_was_said_so_far(shared: System) -> None:
    """WIRE 1: an open answer ends with its partial content before `turn_end`; disconnecting does not cancel."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        await client.say([{"stream": {"deltas": 100_000, "interval_ms": 10}}])
        for _ in range(5):
            await client.until("stream_delta")
        cursor = client.cursor
    async with joined(shared.edge, session_id, token, after=cursor) as client:
        await client.until("stream_delta")
        await client.send("cancel")
        end = await client.until("turn_end")
    async with joined(shared.edge, session_id, token, after="0") as client:
        closed = client.of("stream_end")[0]
        assert (end["status"], closed["finish_reason"]) == ("cancelled", "cancelled")
        assert closed["content"] == "".join(delta["delta"] for delta in client.of("stream_delta"))
        assert [frame["type"] for frame in client.of("stream_end", "turn_end")] == ["stream_end", "turn_end"]


async def test_a_cancelled_approval_is_withdrawn(shared: System) -> None:
    """Cancelling a turn that waits for a person ends it, and the tool never runs."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token) as client:
        call_id = await asked(client, "withdrawn")
        await client.send("cancel")
        assert (await client.until("turn_end"))["status"] == "cancelled"
        await until(lambda: bool(client.of("tool_result")) or client.receive(), within=10)
        assert client.of("tool_result")[0]["status"] == "cancelled"
        await client.send("tool_approval", tool_call_id=call_id, approved=True)
        assert (await client.until("error"))["code"] in ("approval_expired", "approval_not_found")
        assert "withdrawn" not in shared.notes
