"""Policies of an agent: what becomes of a message that names none."""

from collections.abc import AsyncIterator

import pytest

from tests.harness.client import http, joined, new_session
from tests.harness.system import System, system

pytestmark = pytest.mark.anyio

CONFIG = """
[agents.strict]
model = "script"
policy = "reject"
"""
LONG = [{"sleep_ms": 600_000}]


@pytest.fixture(scope="module")
async def strict(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """A system with an agent that does one thing at a time."""
    services = ("edge", "agent_runner")
    async with system(tmp_path_factory.mktemp("system"), services=services, config=CONFIG) as running:
        yield running


async def test_a_message_without_a_policy_has_its_agents(strict: System) -> None:
    """Our choice: over every transport. One that names a policy has that; the log says which."""
    token = strict.token()
    session_id = await new_session(strict.edge, token, agent="strict")
    api = f"{strict.edge}/api/v1/sessions/{session_id}/messages"
    async with joined(strict.edge, session_id, token) as client:
        await client.say(LONG)
        await client.until("turn_start")
        await client.say("no")
        assert (await client.until("error"))["code"] == "turn_in_progress"
        await client.say("no", policy=None)
        assert (await client.until("error"))["code"] == "turn_in_progress"
        refused = await http("POST", api, {"content": "no"}, token=token)
        assert (refused.status, refused.json["code"]) == (409, "turn_in_progress")
        await client.say("later", policy="enqueue")
        await client.until("message_accepted")
        accepted = await http("POST", api, {"content": "now", "policy": "interrupt"}, token=token)
        assert accepted.status == 202
        await client.until("stream_end", lambda frame: frame["content"] == "now")
    stored = [record.event for record in await strict.log() if record.type == "message"]
    assert [event.get("policy", "enqueue") for event in stored] == ["reject", "enqueue", "interrupt"]


async def test_without_one_in_the_configuration_it_waits(strict: System) -> None:
    """Promise: `enqueue` unless configured."""
    token = strict.token()
    session_id = await new_session(strict.edge, token, agent="script")
    async with joined(strict.edge, session_id, token) as client:
        await client.say([{"sleep_ms": 1}])
        await client.say("second")
        ends = [await client.until("turn_end") for _ in range(2)]
        assert [end["status"] for end in ends] == ["completed"] * 2
