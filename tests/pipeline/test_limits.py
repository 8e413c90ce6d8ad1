"""Limits and bad weather: connections, rates, sizes, slow clients, shutdown (issue: the edge)."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tests.harness.client import WITHIN, http, joined, new_session, open_socket
from tests.harness.multiplex import multiplexed
from tests.harness.sse import listening
from tests.harness.system import System, system
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

CONFIG = """
[limits]
messages_per_second = 2.0
handshakes_per_second = 10.0
bytes_per_second = 4096.0
slow_seconds = 3.0
"""


@pytest.fixture(scope="module")
async def limited(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """A system with tight limits, and a second edge."""
    async with system(tmp_path_factory.mktemp("limited"), config=CONFIG) as running:
        second = await running.add("edge")
        await second.ready()
        yield running


async def _connections(url: str, session_id: str, token: str) -> list[dict[str, object]]:
    answer = await http("GET", f"{url}/api/v1/sessions/{session_id}/connections", token=token)
    found: list[dict[str, object]] = answer.json["items"]
    return found


async def _seen_everywhere(running: System, session_id: str, token: str, count: int, within: float = WITHIN) -> None:
    for edge in [service for service in running.services if service.name == "edge"]:

        async def complete(url: str = edge.url) -> bool:
            return len(await _connections(url, session_id, token)) == count

        await until(complete, within)


async def test_a_session_has_five_connections_over_all_edges(shared: System) -> None:
    """Issue: counted over all edges; the sixth is closed with 4029, and a place that is left is free again."""
    token = shared.token(user="crowd")
    session_id = await new_session(shared.edge, token)
    second = shared.services[-1].url
    async with AsyncExitStack() as stack:
        for url in (shared.edge, second, shared.edge, second, shared.edge):
            last = await stack.enter_async_context(joined(url, session_id, token))
        await _seen_everywhere(shared, session_id, token, 5)
        async with open_socket(second, session_id, token) as sixth:
            assert await sixth.closed() == 4029
        refused = await http("GET", f"{second}/api/v1/sessions/{session_id}/events", token=token,
                             accept="text/event-stream")  # fmt: skip
        assert (refused.status, refused.json["code"]) == (429, "connection_limit")
        async with multiplexed(shared.edge, token) as many:
            await many.send("subscribe", session_id=session_id)
            assert (await many.until("unsubscribed"))["code"] == "connection_limit"
        await last.connection.close()
        await _seen_everywhere(shared, session_id, token, 4)
        async with joined(second, session_id, token):
            pass


async def test_a_newer_connection_may_take_the_place_of_the_oldest_or_of_all(shared: System) -> None:
    """WIRE 1: 4000; `takeover=true` only when the session is full, `takeover=all` always; on whichever edge."""
    token = shared.token(user="mover")
    session_id = await new_session(shared.edge, token)
    second = shared.services[-1].url
    async with AsyncExitStack() as stack:
        clients = []
        for url in (shared.edge, second, shared.edge, second):
            clients.append(await stack.enter_async_context(joined(url, session_id, token)))
        await _seen_everywhere(shared, session_id, token, 4)
        clients.append(await stack.enter_async_context(joined(second, session_id, token, takeover="true")))
        await _seen_everywhere(shared, session_id, token, 5)
        await stack.enter_async_context(joined(second, session_id, token, takeover="true"))
        assert await clients[0].closed() == 4000
        await _seen_everywhere(shared, session_id, token, 5)
        only = await stack.enter_async_context(joined(shared.edge, session_id, token, takeover="all"))
        assert [await client.closed() for client in clients[1:]] == [4000] * 4
        await _seen_everywhere(shared, session_id, token, 1)
        await only.send("ping")
        await only.until("pong")


async def test_a_killed_edge_frees_its_places(tmp_path: Path) -> None:
    """Issue: within seconds; the state and the list of connections follow."""
    async with system(tmp_path) as running:
        second = await running.add("edge")
        await second.ready()
        token = running.token()
        session_id = await new_session(running.edge, token)
        async with AsyncExitStack() as stack:
            for _ in range(5):
                await stack.enter_async_context(joined(second.url, session_id, token, device="phone"))
            await _seen_everywhere(running, session_id, token, 5)
            shown = await _connections(running.edge, session_id, token)
            assert {item["device"] for item in shown} == {"phone"}
            assert {item["transport"] for item in shown} == {"websocket"}
            state = await http("GET", f"{running.edge}/api/v1/sessions/{session_id}", token=token)
            assert state.json["state"] == "active"
            await second.kill()
            running.services.remove(second)
            await until(lambda: _is_state(running, session_id, token, "suspended"), within=WITHIN)
            async with joined(running.edge, session_id, token):
                pass


async def _is_state(running: System, session_id: str, token: str, state: str) -> bool:
    answer = await http("GET", f"{running.edge}/api/v1/sessions/{session_id}", token=token)
    return bool(answer.json["state"] == state)


async def test_who_sends_too_many_messages_is_told_when_to_go_on(limited: System) -> None:
    """Issue: a token bucket a user, whatever the session and transport; the frame has no effect."""
    token = limited.token(user="eager")
    session_id = await new_session(limited.edge, token)
    async with joined(limited.edge, session_id, token) as client:
        for number in range(12):
            await client.say(f"number {number}", request_id=f"r{number}")
        told = [await client.until("error") for _ in range(2)]
        assert {error["code"] for error in told} == {"rate_limited"}
        assert all(error["retryable"] and error["details"]["retry_after"] > 0 for error in told)
        said = await http(
            "POST", f"{limited.edge}/api/v1/sessions/{session_id}/messages", {"content": "x"}, token=token
        )
        assert (said.status, said.json["code"]) == (429, "rate_limited")
        ended = 0
        while ended < 10:
            await client.until("turn_end")
            ended += 1
        await client.send("ping")
        await client.until("pong")
        assert len(client.of("message")) == 10
    other = limited.token(user="calm")
    async with joined(limited.edge, await new_session(limited.edge, other), other) as client:
        await client.say("not limited")
        await client.until("turn_end")


async def test_who_sends_too_many_bytes_is_told_so(limited: System) -> None:
    """Issue: byte rates, with their own limit in the details."""
    token = limited.token(user="heavy")
    session_id = await new_session(limited.edge, token)
    async with joined(limited.edge, session_id, token) as client:
        for _ in range(4):
            await client.send("ping", padding="x" * 60_000)
        error = await client.until("error")
    assert (error["code"], error["details"]["limit"]) == ("rate_limited", "bytes")


async def test_who_connects_too_often_is_closed_with_4029(limited: System) -> None:
    """WIRE 1: rate limited; over HTTP 429 with `Retry-After`."""
    token = limited.token(user="reconnecting")
    session_id = await new_session(limited.edge, token)
    codes = []
    for _ in range(60):
        async with open_socket(limited.edge, session_id, token) as client:
            frame = None
            async with asyncio.timeout(WITHIN):
                try:
                    frame = await client.connection.recv()
                except Exception:  # noqa: BLE001 - closed, and the code is what is looked at
                    codes.append(client.connection.close_code)
        if frame is None:
            break
    assert codes == [4029]
    url = f"{limited.edge}/api/v1/sessions/{session_id}/events"
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(60):
            async with client.stream("GET", url, headers={"authorization": f"Bearer {token}"}) as refused:
                if refused.status_code == 429:
                    await refused.aread()
                    break
    assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
    assert refused.json()["details"]["retry_after"] > 0
    assert int(refused.headers["retry-after"]) >= 1


UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


@pytest.mark.parametrize(("path", "headers"), [("ws", UPGRADE), ("events", "Accept: text/event-stream\r\n")])
async def test_a_client_that_reads_nothing_for_too_long_is_let_go_and_can_come_back(
    limited: System, path: str, headers: str
) -> None:
    """Issue: 4009 only after the stated time; over whatever it follows; the log has what it missed."""
    token = limited.token(user=f"stalled-{path}")
    session_id = await new_session(limited.edge, token)
    host, port = limited.edge.removeprefix("http://").split(":")
    loop = asyncio.get_running_loop()
    stalled = socket.socket()
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stalled.setblocking(False)
    await loop.sock_connect(stalled, (host, int(port)))
    request = f"GET /api/v1/sessions/{session_id}/{path}?token={token} HTTP/1.1\r\nHost: {host}:{port}\r\n{headers}\r\n"
    await loop.sock_sendall(stalled, request.encode())
    try:
        async with joined(limited.services[-1].url, session_id, token) as client:
            await client.say([{"stream": {"deltas": 300, "interval_ms": 0, "size": 8000}}])
            await client.until("turn_end")
            assert len(await _connections(limited.edge, session_id, token)) == 2
            await _seen_everywhere(limited, session_id, token, 1)
            assert (await _connections(limited.edge, session_id, token))[0]["lag"] == 0
    finally:
        stalled.close()
    async with joined(limited.edge, session_id, token, after="0") as back:
        deltas = back.of("stream_delta")
        assert "".join(frame["delta"] for frame in deltas) == back.of("stream_end")[0]["content"]


async def test_a_stopping_edge_says_when_to_come_back(tmp_path: Path) -> None:
    """Issue: SSE ends cleanly with `retry`, sockets get `reconnect` and 1012; the turn goes on elsewhere."""
    async with system(tmp_path) as running:
        second = await running.add("edge")
        await second.ready()
        token = running.token()
        session_id = await new_session(running.edge, token)
        async with (
            joined(second.url, session_id, token) as client,
            multiplexed(second.url, token) as many,
            listening(f"{second.url}/api/v1/sessions/{session_id}/events", token) as stream,
        ):
            await stream.until("replay_complete")
            await client.say([{"stream": {"deltas": 100, "interval_ms": 20, "size": 20}}])
            await client.until("stream_delta")
            stopping = asyncio.create_task(second.stop())
            assert await client.closed() == 1012
            assert client.of("reconnect")[0]["reconnect_after"] >= 0
            assert await many.closed() == 1012
            rest = await stream.rest()
            assert any(frame.get("retry") is not None for frame in rest if not frame["type"])
            assert rest[-1]["type"] == "reconnect"
            assert await stopping == 0
            running.services.remove(second)
        async with joined(running.edge, session_id, token, after=client.cursor) as back:
            await back.until("turn_end")
            everything = client.of("stream_delta") + back.of("stream_delta")
        assert "".join(frame["delta"] for frame in everything) == back.of("stream_end")[0]["content"]


async def test_a_message_in_doubt_is_never_refused_and_then_accepted(tmp_path: Path) -> None:
    """Issue: a retryable error at once, or accepted later, never both; readiness says that the broker is away."""
    async with system(tmp_path) as running:
        token = running.token()
        session_id = await new_session(running.edge, token)
        async with joined(running.edge, session_id, token) as client:
            running.nats.pause()
            await client.say("in doubt", client_message_id="doubt", request_id="r")
            running.nats.resume()
            told = [await client.receive()]
            while told[-1]["type"] not in ("message_accepted", "error"):
                told.append(await client.receive())
            assert told[-1]["type"] == "message_accepted"
            await running.nats.kill()
            await until(lambda: _is_ready(running, 503))
            await client.say("refused", client_message_id="no", request_id="s")
            error = await client.until("error")
            assert (error["code"], error["request_id"]) == ("broker_unavailable", "s")
            await running.nats.start()
            await until(lambda: _is_ready(running, 200))
            await client.say("at last", client_message_id="yes")
            await client.until("message", lambda frame: frame["client_message_id"] == "yes")
        async with joined(running.edge, session_id, token, after="0") as whole:
            assert [frame["client_message_id"] for frame in whole.of("message")] == ["doubt", "yes"]


async def _is_ready(running: System, status: int) -> bool:
    return (await http("GET", f"{running.edge}/readyz")).status == status


async def test_bodies_and_frames_have_a_size(shared: System) -> None:
    """Issue: each with its code; nothing else is touched."""
    token = shared.token()
    session_id = await new_session(shared.edge, token)
    path = f"{shared.edge}/api/v1/sessions/{session_id}/messages"
    large = await http("POST", path, {"content": "x" * 70_000}, token=token)
    assert (large.status, large.json["code"]) == (413, "too_large")
    deep = ('{"content":"x","metadata":' + '{"a":' * 5000 + "1" + "}" * 5001).encode()
    nested = await http("POST", path, deep, token=token)
    assert (nested.status, nested.json["code"]) == (400, "bad_request")
    async with open_socket(shared.edge, session_id, token) as client:
        await client.until("replay_complete")
        await client.say("x" * 70_000)
        assert await client.closed() == 1009
    async with joined(shared.edge, session_id, token, after="0") as whole:
        assert whole.of("message") == []
