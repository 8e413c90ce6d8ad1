"""P8: what an interrupting message and a cancel end, and what they leave alone."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.harness.client import Client, http, joined, new_session
from tests.harness.system import System, system
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

OPEN = [{"say": "so far"}, {"sleep_ms": 3_600_000}]
HANG = [{"say": "let me see"}, {"tool": "hanging.hang"}, {"say": "never said"}]
NOTE = [{"tool": "demo.note", "arguments": {"text": "x"}}, {"say": "done"}]


@pytest.fixture(scope="module")
def noted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the tool that hangs has noted."""
    return tmp_path_factory.mktemp("noted") / "calls"


@pytest.fixture(scope="module")
async def running(noted: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """A system with a tool that never ends by itself, and a second edge."""
    command = json.dumps([sys.executable, "-m", "tests.harness.hanging_server", str(noted)])
    config = f"[tools.servers.hanging]\ncommand = {command}\ntrusted = true\n"
    services = ("edge", "agent_runner", "tool_runner")
    async with system(tmp_path_factory.mktemp("system"), services=services, config=config) as own:
        await (await own.add("edge")).ready()
        yield own


@asynccontextmanager
async def devices(running: System) -> AsyncIterator[tuple[str, Client, Client]]:
    """A session, and two devices of its user at two edges."""
    token = running.token()
    session_id = await new_session(running.edge, token)
    other = running.services[-1].url
    async with joined(running.edge, session_id, token) as one, joined(other, session_id, token) as two:
        yield session_id, one, two


async def said(client: Client, content: object, **fields: object) -> str:
    """Say it; the message's id."""
    await client.say(content, **fields)
    return str((await client.until("message_accepted"))["message_id"])


def lines(file: Path) -> list[str]:
    """What was noted so far."""
    return file.read_text().splitlines()


def ends(client: Client) -> list[tuple[str, str]]:
    """The turns that ended, in order, and how."""
    return [(frame["reply_to"], frame["status"]) for frame in client.of("turn_end")]


def answers(client: Client) -> list[tuple[str, str]]:
    """What was said, and how each answer ended."""
    return [(frame["content"], frame["finish_reason"]) for frame in client.of("stream_end")]


async def is_answered_after(running: System, session_id: str, message_id: str, ended: list[str]) -> None:
    """In the log: the turns of `ended` were over, in that order, before that message's began."""
    its = [record for record in await running.log() if f".{session_id}." in record.subject]
    told = [(record.type, record.event.get("reply_to")) for record in its if record.type in ("turn_start", "turn_end")]
    over = [reply_to for type_, reply_to in told[: told.index(("turn_start", message_id))] if type_ == "turn_end"]
    assert over == ended
    assert told[-1] == ("turn_end", message_id)


async def test_an_interrupting_message_ends_what_runs_and_waits_and_is_answered_after_it(running: System) -> None:
    """Promise: what was said so far stays, and what waited is never answered."""
    async with devices(running) as (session_id, one, two):
        ended = [await said(one, OPEN)]
        await two.until("stream_delta")
        ended += [await said(one, "second"), await said(one, "third")]
        last = await said(two, "now", policy="interrupt")
        for client in (one, two):
            await client.until("turn_end", lambda frame: frame["reply_to"] == last)
            assert ends(client) == [*((message_id, "cancelled") for message_id in ended), (last, "completed")]
            assert answers(client) == [("so far", "cancelled"), ("now", "stop")]
        await is_answered_after(running, session_id, last, ended)


async def test_an_interrupting_message_reaches_the_tool_that_runs(running: System, noted: Path) -> None:
    """Promise P8: the call is cancelled on its server; what was said before it stays as it is."""
    async with devices(running) as (session_id, one, two):
        ended = [await said(one, HANG)]
        await two.until("tool_progress")
        before = lines(noted)
        assert before[-1] == "begun"
        ended.append(await said(one, "second"))
        last = await said(two, "now", policy="interrupt")
        await two.until("turn_end", lambda frame: frame["reply_to"] == last)
        await until(lambda: lines(noted) == [*before, "cancelled"])
        while not two.of("tool_result"):
            await two.receive()
        assert [frame["status"] for frame in two.of("tool_result")] == ["cancelled"]
        assert ends(two) == [*((message_id, "cancelled") for message_id in ended), (last, "completed")]
        assert answers(two) == [("let me see", "tool_call"), ("now", "stop")]
        await is_answered_after(running, session_id, last, ended)


async def test_a_message_that_is_cancelled_while_it_waits_is_never_answered(running: System) -> None:
    """Promise P8: from another device. The turn that runs goes on, and so does what waits behind it."""
    async with devices(running) as (session_id, one, two):
        first = await said(one, NOTE)
        request = await one.until("tool_approval_request")
        queued, behind = await said(one, "second"), await said(one, "third")
        await two.send("cancel", message_id=queued, request_id="r")
        ack = await two.until("ack")
        assert (ack["message_id"], ack["request_id"]) == (queued, "r")
        await one.send("tool_approval", tool_call_id=request["tool_call_id"], approved=True)
        for client in (one, two):
            await client.until("turn_end", lambda frame: frame["reply_to"] == behind)
            assert ends(client) == [(first, "completed"), (queued, "cancelled"), (behind, "completed")]
            assert answers(client) == [("done", "stop"), ("third", "stop")]
            assert [frame["status"] for frame in client.of("tool_result")] == ["completed"]
        await is_answered_after(running, session_id, behind, [first, queued])


async def test_a_cancel_that_comes_too_late_changes_nothing(running: System) -> None:
    """Our choice: it is acknowledged all the same. Neither what has ended nor what runs now is touched."""
    async with devices(running) as (session_id, one, two):
        first = await said(one, "first")
        answer = (await two.until("stream_end"))["message_id"]
        await two.until("turn_end")
        await cancelled(running, session_id, two, None)
        last = await said(one, NOTE)
        request = await two.until("tool_approval_request")
        for named in (first, answer, "m_of_nobody"):
            await cancelled(running, session_id, two, named)
        await two.send("tool_approval", tool_call_id=request["tool_call_id"], approved=True)
        await two.until("turn_end")
        assert ends(two) == [(first, "completed"), (last, "completed")]
        assert answers(two) == [("first", "stop"), ("done", "stop")]
        assert not two.of("error")
        await is_answered_after(running, session_id, last, [first])


async def cancelled(running: System, session_id: str, client: Client, message_id: str | None) -> None:
    """Ask for it over the socket and over REST; both say that it was heard."""
    await client.send("cancel", message_id=message_id)
    assert (await client.until("ack")).get("message_id") == message_id
    api = f"{running.edge}/api/v1/sessions/{session_id}/cancel"
    assert (await http("POST", api, {"message_id": message_id}, token=running.token())).status == 202
