"""The log is nearly full: what is new is refused, and what runs is finished."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec
import pytest

from broker.append import Append, append
from broker.connect import Broker, connect
from contracts.streams import LOG
from contracts.subjects import Topic
from tests.harness.client import Client, http, joined, new_session
from tests.harness.system import System, system
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

LOG_BYTES = 8 << 20
UNLIMITED = "[limits]\nmessages_per_second = 1e6\n"  # there is asking until the edge has seen it
FILLER = Topic.user("acme", "filler")


async def _fill(writer: Broker) -> None:
    """Events until less than a tenth of the log is free, and enough for a turn."""
    for number in range(int(0.93 * LOG_BYTES) // 60_000):
        event = {"type": "agent_update", "id": f"e{number}", "agent_id": "a", "status": "x" * 60_000}
        await append(writer, Append(FILLER.fact("event"), msgspec.json.encode(event), f"fill-{number}"))


async def _is_refused(client: Client) -> bool:
    """Said again and again, it is stored once: to ask must not fill the log."""
    await client.say("is there room?", request_id="probe", client_message_id="probe")
    told = await client.receive()
    while told.get("request_id") != "probe":
        told = await client.receive()
    return bool(told.get("code") == "log_full")


async def test_a_turn_that_runs_is_finished_when_the_log_is_nearly_full(tmp_path: Path) -> None:
    """Issue: `log_full` for new messages, whatever they come over; approvals and answers are still stored."""
    async with system(tmp_path, log_bytes=LOG_BYTES, config=UNLIMITED) as running:
        token = running.token()
        busy, other = [await new_session(running.edge, token) for _ in range(2)]
        async with joined(running.edge, busy, token) as client, joined(running.edge, other, token) as prober:
            await client.say([{"tool": "demo.note", "arguments": {"text": "late"}}, {"say": "finished"}])
            asked = await client.until("tool_approval_request")
            async with _writer(running, "event_ingest") as writer:
                await _fill(writer)
            await until(lambda: _is_refused(prober))
            path = f"{running.edge}/api/v1/sessions/{other}/messages"
            refused = await http("POST", path, {"content": "and by REST?"}, token=token)
            assert (refused.status, refused.json["code"], refused.json["retryable"]) == (507, "log_full", True)
            await client.send("tool_approval", tool_call_id=asked["tool_call_id"], approved=True)
            assert (await client.until("turn_end"))["status"] == "completed"
            assert running.notes == ["late"]
            async with _writer(running, "provisioner") as provisioner:
                purge = msgspec.json.encode({"filter": FILLER.all})
                await provisioner.request(f"$JS.API.STREAM.PURGE.{LOG}", purge)
            await until(lambda: _is_accepted(prober))


async def _is_accepted(client: Client) -> bool:
    return not await _is_refused(client)


def _writer(running: System, user: str) -> AbstractAsyncContextManager[Broker]:
    return connect(running.nats.url, user, seed_file=running.nats.seed(user))
