"""How long a connection lives: heartbeats, the token's expiry, the edge's shutdown."""

import base64
import os
from collections.abc import AsyncIterator

import anyio
import pytest
from anyio.abc import ByteStream

from tests.harness.client import http, joined, new_session, open_socket
from tests.harness.system import System, system

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def beating(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """A system whose edge is soon impatient."""
    async with system(
        tmp_path_factory.mktemp("beating"),
        services=("edge", "agent_runner"),
        MILLRACE_HEARTBEAT_INTERVAL="0.2",
        MILLRACE_HEARTBEAT_TIMEOUT="0.8",
    ) as running:
        yield running


async def test_the_server_sends_pings_and_tells_how_often(beating: System) -> None:
    """WIRE 1, heartbeat. The `websockets` library answers on the WebSocket level: a sign of life."""
    token = beating.token()
    session_id = await new_session(beating.edge, token)
    async with joined(beating.edge, session_id, token) as client:
        connected = client.of("connected")[0]
        assert (connected["heartbeat_interval"], connected["heartbeat_timeout"]) == (0.2, 0.8)
        for _ in range(8):  # for longer than the timeout, with no frame from here
            assert (await client.until("ping"))["timestamp"]
        await client.send("pong")
        await client.say("alive")
        assert (await client.until("turn_end"))["status"] == "completed"


async def test_a_client_that_gives_no_sign_of_life_is_closed_with_4008(beating: System) -> None:
    """WIRE 1: 4008. A client that answers nothing at all, not even on the WebSocket level."""
    token = beating.token()
    session_id = await new_session(beating.edge, token)
    async with await anyio.connect_tcp("127.0.0.1", beating["edge"].port) as stream:
        key = base64.b64encode(os.urandom(16)).decode()
        path = f"/api/v1/sessions/{session_id}/ws?token={token}"
        lines = [f"GET {path} HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
        await stream.send("\r\n".join(lines).encode())
        received = await _all(stream)
        assert b"101 Switching" in received
        assert b"\x0f\xa8" in received.rsplit(b"\x88", 1)[1][:3]  # a close frame with 4008


async def test_a_connection_ends_with_its_token(beating: System) -> None:
    """WIRE 1: 4001 at most 5 s after `exp`; `auth` renews in place."""
    token = beating.token()
    session_id = await new_session(beating.edge, token)
    short = beating.token(ttl=2)
    async with joined(beating.edge, session_id, short) as renewed, joined(beating.edge, session_id, short) as ending:
        await renewed.send("auth", token=beating.token(ttl=600), request_id="renew")
        ack = await renewed.until("ack")
        assert ack["request_id"] == "renew"
        assert ack["expires_at"] > renewed.of("connected")[0]["expires_at"]
        await renewed.send("auth", token=beating.token(user="somebody"), request_id="theft")
        assert (await renewed.until("error"))["code"] == "forbidden"
        assert await ending.closed() == 4001
        await renewed.send("ping")
        await renewed.until("pong")


async def test_an_edge_that_stops_closes_its_sockets_with_1012_and_the_client_goes_on(beating: System) -> None:
    """WIRE 1: 1012, reconnect with your cursor; here, to an edge that was started before the first one stopped."""
    token = beating.token()
    session_id = await new_session(beating.edge, token)
    other = await beating.add("edge")
    await other.ready()
    async with joined(beating.edge, session_id, token) as client:
        await client.say([{"stream": {"deltas": 50, "interval_ms": 10}}])
        await client.until("stream_delta")
        stopped = beating["edge"]
        assert await stopped.stop() == 0
        assert await client.closed() == 1012
        seen, cursor = client.events, client.cursor
    beating.services.remove(stopped)
    async with open_socket(other.url, session_id, token, after=cursor) as client:
        await client.until("turn_end")
        events = seen + client.events
    text = "".join(event["delta"] for event in events if event["type"] == "stream_delta")
    assert text == next(event["content"] for event in events if event["type"] == "stream_end")


async def test_a_broker_that_is_away_gives_a_retryable_error_and_the_socket_stays(beating: System) -> None:
    """A message is accepted or it is not; after the broker's return the same id is answered once."""
    token = beating.token()
    session_id = await new_session(beating.edge, token)
    async with joined(beating.edge, session_id, token) as client:
        await beating.nats.kill()
        await client.say("anybody there", client_message_id="knock", request_id="r")
        error = await client.until("error")
        assert (error["code"], error["retryable"], error["request_id"]) == ("broker_unavailable", True, "r")
        listed = await http("GET", f"{beating.edge}/api/v1/sessions", token=token)
        assert (listed.status, listed.json["code"]) == (503, "broker_unavailable")
        await beating.nats.start()
        await beating["edge"].ready()
        await client.say("anybody there", client_message_id="knock")
        assert (await client.until("turn_end"))["status"] == "completed"
        assert len(client.of("turn_start")) == 1


async def _all(stream: ByteStream) -> bytes:
    """Everything until the server ends the connection."""
    received = b""
    with anyio.fail_after(15):
        while True:
            try:
                received += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return received
