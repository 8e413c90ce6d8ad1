"""A log that has lost its beginning: old cursors are told so, and long sessions go on."""

from pathlib import Path

import msgspec
import pytest

from broker.connect import Broker, connect
from contracts.streams import LOG, STATE
from contracts.subjects import Topic
from tests.harness.client import http, joined, new_session
from tests.harness.multiplex import multiplexed
from tests.harness.sse import listening
from tests.harness.system import system
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

LEFT = 20
LONG = [{"workflow": {"id": "w", "steps": [f"s{n}" for n in range(90)], "interval_ms": 0}}, {"say": "done"}]


async def _is_kept(broker: Broker, topic: Topic) -> bool:
    request = msgspec.json.encode({"last_by_subj": topic.state})
    return b'"message"' in (await broker.request(f"$JS.API.STREAM.MSG.GET.{STATE}", request)).data


async def test_a_cursor_that_is_older_than_the_log_is_told_on_every_transport(tmp_path: Path) -> None:
    """WIRE 1: `resume_gap`, then the snapshot; the session is there all the same, by the view that was kept."""
    async with system(tmp_path) as running:
        token = running.token()
        session_id = await new_session(running.edge, token)
        async with joined(running.edge, session_id, token) as client:
            old = client.cursor
            await client.say(LONG)
            await client.until("turn_end")
        async with joined(running.edge, session_id, token), connect(
            running.nats.url, "provisioner", seed_file=running.nats.seed("provisioner")
        ) as provisioner:  # fmt: skip
            await until(lambda: _is_kept(provisioner, Topic.session("acme", session_id)))
            await provisioner.request(f"$JS.API.STREAM.PURGE.{LOG}", msgspec.json.encode({"keep": LEFT}))

        async def is_told() -> bool:
            async with joined(running.edge, session_id, token, after=old) as client:
                return [gap["reason"] for gap in client.of("resume_gap")] == ["expired"]

        await until(is_told)
        async with joined(running.edge, session_id, token, after=old) as client:
            [snapshot] = client.of("snapshot")
            assert [message["content"] for message in snapshot["messages"]][-1] == "done"
            await client.say("and on it goes")
            await client.until("turn_end")
        events = f"{running.edge}/api/v1/sessions/{session_id}/events"
        async with listening(events, token, after=old) as stream:
            await stream.until("replay_complete")
        page = (await http("GET", f"{events}?after={old}", token=token)).json["events"]
        async with multiplexed(running.edge, token) as many:
            await many.until("replay_complete")
            await many.send("subscribe", session_id=session_id, after=old)
            told = [await many.until("resume_gap"), await many.receive()]
        for frames in (stream.frames[:2], page, told):
            assert [frame["type"] for frame in frames] == ["resume_gap", "snapshot"]
            assert frames[0]["reason"] == "expired"
