"""What a token's `projects` let it watch, over every transport, live and in replay (WIRE: Identity)."""

import pytest

from tests.harness.client import http, joined, new_session, socket_at
from tests.harness.multiplex import multiplexed
from tests.harness.sse import listening
from tests.harness.system import System

pytestmark = pytest.mark.anyio


async def test_a_project_that_a_token_does_not_list_is_never_shown(shared: System) -> None:
    """Live, in replay, with the cursor of somebody who may see it, in pages, as SSE, and in the project's dialect."""
    owner = shared.token(user="pia", projects=["apollo"])
    blind = shared.token(user="pia", projects=["gemini"])
    session_id = await new_session(shared.edge, owner, project_id="apollo")
    refused = await http("POST", f"{shared.edge}/api/v1/sessions", {"project_id": "apollo"}, token=blind)
    assert (refused.status, refused.json["code"]) == (403, "forbidden")
    outside = await shared.nats.tenant_client("acme")
    url = f"{shared.edge}/api/v1/sessions/{session_id}"
    headers = {"ce-specversion": "1.0", "ce-source": "test", "ce-type": "canary", "ce-projectid": "apollo"}
    try:
        async with (
            joined(shared.edge, session_id, owner) as seeing,
            joined(shared.edge, session_id, blind) as client,
            listening(f"{url}/events", blind) as stream,
        ):
            begun = seeing.cursor
            await outside.request("ingest.acme.test.canary", b"1", headers=headers | {"ce-id": "p1"}, timeout=10)
            assert (await seeing.until("external_event"))["project_id"] == "apollo"
            await client.say("a sign")
            await client.until("turn_end")
            await stream.until("turn_end")
            assert client.of("external_event") == stream.of("external_event") == []
            knowing = seeing.cursor
        for after in ("0", begun, knowing):
            async with joined(shared.edge, session_id, blind, after=after) as client:
                assert client.of("external_event") == []
            page = await http("GET", f"{url}/events?after={after}", token=blind)
            assert "canary" not in page.body.decode()
        async with joined(shared.edge, session_id, owner, after=begun) as client:
            assert len(client.of("external_event")) == 1
        async with socket_at(f"{shared.edge}/ws/projects/apollo/status?token={blind}") as client:
            assert await client.closed() == 4003
    finally:
        await outside.close()


async def test_a_refresh_may_not_take_away_what_is_followed_and_no_more_is_asked(shared: System) -> None:
    """WIRE: `auth`; who was never shown the session's project need not list it to go on."""
    owner = shared.token(user="pola", projects=["apollo"])
    blind = shared.token(user="pola", projects=["gemini"])
    session_id = await new_session(shared.edge, owner, project_id="apollo")
    async with (
        joined(shared.edge, session_id, owner) as seeing,
        joined(shared.edge, session_id, blind) as client,
        multiplexed(shared.edge, blind) as many,
    ):
        await many.send("subscribe", session_id=session_id)
        await many.until("snapshot")
        for follower in (client, many):
            await follower.send("auth", token=shared.token(user="pola", projects=["gemini"]))
            await follower.until("ack")
        await seeing.send("auth", token=blind)
        assert (await seeing.until("error"))["code"] == "forbidden"
        await seeing.send("auth", token=shared.token(user="pola", projects=["*"]))
        await seeing.until("ack")
