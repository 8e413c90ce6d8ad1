"""The other dialects, over real sockets: the same log in other words (WIRE 4)."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.harness.client import Client, Frame, http, joined, new_session, socket_at
from tests.harness.multiplex import multiplexed
from tests.harness.sse import listening
from tests.harness.system import System

pytestmark = pytest.mark.anyio

Publish = Callable[..., Awaitable[None]]


@pytest.fixture
async def publish(shared: System) -> AsyncIterator[Publish]:
    """What another system publishes: the type, the data, and CloudEvents attributes."""
    outside = await shared.nats.tenant_client("acme")
    number = 0

    async def one(type_: str, data: object, **attributes: str) -> None:
        nonlocal number
        number += 1
        headers = {"ce-specversion": "1.0", "ce-id": f"{id(outside)}-{number}", "ce-source": "test", "ce-type": type_}
        headers |= {f"ce-{name}": value for name, value in attributes.items()}
        await outside.request(f"ingest.acme.test.{type_}", json.dumps(data).encode(), headers=headers, timeout=10)

    yield one
    await outside.close()


def _text(frames: list[Frame], field: str) -> str:
    return "".join(frame[field] for frame in frames)


async def test_an_agents_socket_speaks_in_chunks(shared: System, publish: Publish) -> None:
    """`message` in; `stream_start`, `stream_chunk`, `stream_end`, `progress_update` out; `error` for a failed turn."""
    token = shared.token(user="chunky")
    session_id = await new_session(shared.edge, token)
    async with socket_at(f"{shared.edge}/ws/agents/{session_id}?token={token}") as client:
        await client.send("message", content="word by word", metadata={"k": 1})
        end = await client.until("stream_end")
        assert client.frames[0]["type"] == "stream_start"
        assert end["total_content"] == _text(client.of("stream_chunk"), "content") == "word by word"
        assert {frame["message_id"] for frame in client.of("stream_chunk")} == {end["message_id"]}
        progress = {"workflow_id": "w", "step": "half", "progress": 0.5}
        await publish("workflow.progress", progress, sessionid=session_id)
        assert (await client.until("progress_update"))["data"] == {
            "stage": "half", "completed": 50, "total": 100, "workflow_id": "w",
        }  # fmt: skip
        await client.send("message", content=json.dumps([{"fail": "no"}]))
        assert (await client.until("error"))["code"] == "agent_failed"
        await client.send("cancel")
        assert (await client.until("error"))["code"] == "unknown_type"
        await client.connection.send("no JSON")
        assert (await client.until("error"))["code"] == "bad_request"
        await client.send("message", content="still here")
        assert (await client.until("stream_end"))["total_content"] == "still here"
    async with joined(shared.edge, session_id, token, after="0") as whole:
        assert whole.of("message")[0]["metadata"] == {"k": 1}


async def test_a_projects_socket_tells_its_progress_and_nothing_else(shared: System, publish: Publish) -> None:
    """Live, and from a session's cursor what came since."""
    token = shared.token(user="planner")
    session_id = await new_session(shared.edge, token, project_id="apollo-13")
    url = f"{shared.edge}/ws/projects/apollo-13/status?token={token}"
    async with joined(shared.edge, session_id, token) as session:
        begun = session.cursor
        async with socket_at(url) as client:
            await _alive(client)
            await publish("news", {"n": 1}, projectid="apollo-13")
            await publish(
                "workflow.progress", {"workflow_id": "other", "step": "x", "progress": 1}, projectid="gemini-4"
            )
            progress = {"workflow_id": "w", "step": "fuel", "progress": 0.1, "completed": 1, "total": 7}
            await publish("workflow.progress", progress, projectid="apollo-13")
            assert (await client.until("progress_update"))["data"]["total"] == 7
            assert {frame["type"] for frame in client.frames} <= {"progress_update", "pong"}
            await client.send("message", content="may I speak?")
            assert (await client.until("error"))["code"] == "unknown_type"
    async with socket_at(f"{url}&after={begun}") as client:
        assert (await client.until("progress_update"))["data"]["stage"] == "fuel"


async def _alive(client: Client) -> None:
    """It answers, so it has joined."""
    await client.send("ping")
    await client.until("pong")


async def test_the_users_stream_tells_what_the_user_and_the_tenant_are_told(shared: System, publish: Publish) -> None:
    """As `message`, `agent_update` and `memory_update`; resumed as a browser does it."""
    token = shared.token(user="una")
    url = f"{shared.edge}/api/v1/sse"
    async with listening(url, token) as stream, multiplexed(shared.edge, token) as ready:
        await ready.until("replay_complete")
        await publish("build.finished", {"ok": True}, userid="una")
        told = await stream.until("message")
        assert (told["source"], told["event_type"], told["data"]) == ("test", "build.finished", {"ok": True})
        await publish("agent.update", {"agent_id": "a7", "status": "ready"})
        assert (await stream.until("agent_update"))["status"] == "ready"
        seen = stream.last_id
    await publish("memory.update", {"memory_id": "x", "agent_id": "a7", "operation": "created"}, userid="una")
    await publish("build.finished", {"ok": False}, userid="somebody-else")
    async with listening(url, token, after=seen) as again:
        assert (await again.until("memory_update"))["operation"] == "created"
        assert again.of("message", "agent_update") == []


async def test_the_text_of_one_answer_is_streamed_and_has_one_end(shared: System) -> None:
    """`request_id` filters; `turn_end` gives the one `is_final`, also for who comes when it is over."""
    token = shared.token(user="lim")
    session_id = await new_session(shared.edge, token)
    path = f"{shared.edge}/api/v1/sessions/{session_id}/messages"
    other = (await http("POST", f"{path}?wait=true", {"content": "another question"}, token=token)).json["message_id"]
    program = [{"say": "one "}, {"tool": "demo.add", "arguments": {"a": 1, "b": 2}}, {"say": "two"}]
    asked = (await http("POST", path, {"content": json.dumps(program)}, token=token)).json["message_id"]
    for _ in range(2):  # while it runs, and then surely after it
        url = f"{shared.edge}/api/v1/sse/llm?request_id={asked}&session_id={session_id}"
        async with listening(url, token) as stream:
            final = await stream.until("stream_chunk", lambda chunk: chunk["is_final"])
            chunks = stream.of("stream_chunk")
        assert final["request_id"] == asked
        assert {chunk["request_id"] for chunk in chunks} == {asked}
        assert [chunk["is_final"] for chunk in chunks].count(True) == 1
        assert _whole(chunks) == {"one ", "two"}
    async with listening(f"{shared.edge}/api/v1/sse/llm?request_id={other}&session_id={session_id}", token) as stream:
        await stream.until("stream_chunk", lambda chunk: chunk["is_final"])
        assert _whole(stream.of("stream_chunk")) == {"another question"}


def _whole(chunks: list[Frame]) -> set[str]:
    """Each answer, by a client that puts every chunk where it belongs."""
    answers: dict[str, str] = {}
    for chunk in chunks:
        if answer := chunk.get("message_id"):
            before = "" if chunk.get("reset") else answers.get(answer, "")
            answers[answer] = before[: chunk["offset"]] + chunk["chunk"]
    return set(answers.values())


async def test_the_text_of_all_ones_sessions_comes_in_one_stream(shared: System) -> None:
    """Of those that there are, and of those that are created later; nobody else's."""
    token, stranger = shared.token(user="mel"), shared.token(user="not-mel")
    old = await new_session(shared.edge, token)
    foreign = await new_session(shared.edge, stranger)
    async with listening(f"{shared.edge}/api/v1/sse/llm", token) as stream:
        said = {}
        new = await new_session(shared.edge, token)
        for session_id, who in ((old, token), (foreign, stranger), (new, token)):
            url = f"{shared.edge}/api/v1/sessions/{session_id}/messages?wait=true"
            said[session_id] = (await http("POST", url, {"content": f"in {session_id}"}, token=who)).json["message_id"]
        ended: dict[str, Any] = {}
        while len(ended) < 2:
            final = await stream.until("stream_chunk", lambda chunk: chunk["is_final"])
            ended[final["session_id"]] = final["request_id"]
        assert ended == {old: said[old], new: said[new]}
        assert foreign not in json.dumps(stream.frames)
