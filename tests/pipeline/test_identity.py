"""Who a client is, end to end: keys, tickets, expiry and revocation, on two edges and over every transport."""

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from broker.connect import Broker, connect
from contracts.credentials import NewKey
from millrace import keys
from millrace.tokens import Rights, revoke_token, revoke_user
from tests.edge.identity.issuer import document, jwk
from tests.edge.identity.issuer import token as signed
from tests.harness.client import WITHIN, Client, http, joined, new_session, open_socket, socket_at
from tests.harness.sse import Listener, listening
from tests.harness.system import System, system
from tests.harness.wait import until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def operator(shared: System) -> AsyncIterator[Broker]:
    """Who makes and revokes keys."""
    async with connect(shared.nats.url, "operator", seed_file=shared.nats.seed("operator")) as broker:
        yield broker


class Crowd:
    """Streams of one session over every transport, on both edges."""

    def __init__(self) -> None:
        self.sockets: list[Client] = []
        self.streams: list[Listener] = []

    async def gather(self, stack: AsyncExitStack, shared: System, session_id: str, header: dict[str, str]) -> None:
        """Open one of each."""
        enter = stack.enter_async_context
        second = shared.services[-1].url
        for edge, path in ((shared.edge, f"/api/v1/sessions/{session_id}/ws"), (second, f"/ws/agents/{session_id}")):
            one = await enter(socket_at(edge + path, **header))
            many = await enter(socket_at(f"{edge}/api/v1/ws", **header))
            project = await enter(socket_at(f"{edge}/ws/projects/apollo/status", **header))
            await many.send("subscribe", session_id=session_id)
            await many.until("replay_complete", lambda frame: "session_id" in frame)
            for socket in (one, project):
                await socket.send("ping")
                await socket.until("pong")
            self.sockets += [one, many, project]
        for path in (f"/sessions/{session_id}/events", "/sse", "/sse/llm"):
            self.streams.append(await enter(listening(f"{shared.edge}/api/v1{path}", "", headers=header)))

    async def is_sent_away(self, code: str) -> None:
        """Every one of them, with 4001, and that code where there is room for it."""
        assert [await client.closed() for client in self.sockets] == [4001] * len(self.sockets)
        assert {client.connection.close_reason for client in self.sockets} == {code}
        for stream in self.streams:
            assert (await stream.rest())[-1]["code"] == code


async def _created(operator: Broker, *arguments: str) -> NewKey:
    """A key, by what `millrace keys create` does."""
    parser = argparse.ArgumentParser()
    keys.add_arguments(parser)
    new, args = NewKey.make(), parser.parse_args(["create", *arguments])
    await keys._create(operator, new, args, Rights.parse(args.scopes, args.projects))
    return new


async def _asks(shared: System, header: dict[str, str]) -> list[int]:
    """What both edges answer."""
    async with httpx.AsyncClient(timeout=WITHIN, trust_env=False) as client:
        edges = (shared.edge, shared.services[-1].url)
        return [(await client.get(f"{edge}/api/v1/sessions", headers=header)).status_code for edge in edges]


async def test_a_key_opens_everything_until_it_is_revoked(shared: System, operator: Broker) -> None:
    """Issue: on every edge, whatever is open ends with 4001, and nothing new is let in."""
    key = await _created(operator, "--tenant", "acme", "--user", "kay", "--name", "a test")
    header = {"x-api-key": key.text}
    session_id = await new_session(shared.edge, shared.token(user="kay"))
    assert await _asks(shared, header) == [200, 200]
    async with AsyncExitStack() as stack:
        crowd = Crowd()
        await crowd.gather(stack, shared, session_id, header)
        await crowd.sockets[0].say("by a key")
        assert (await crowd.sockets[0].until("message"))["user_id"] == "kay"
        await keys._revoke(operator, "acme", key.id)
        await crowd.is_sent_away("unauthorized")
    assert await _asks(shared, header) == [401, 401]
    for file in shared.directory.glob("*.log"):
        assert key.text not in file.read_text()


@pytest.mark.parametrize("what", ["user", "token"])
async def test_what_was_issued_can_be_revoked(shared: System, operator: Broker, what: str) -> None:
    """Issue: a user's tokens, or one; somebody else's go on."""
    user = f"revoked-{what}"
    token = shared.token(user=user, jti=f"jti-{what}")
    other = shared.token(user="bystander", jti="another")
    session_id, elsewhere = await new_session(shared.edge, token), await new_session(shared.edge, other)
    async with AsyncExitStack() as stack:
        crowd = Crowd()
        await crowd.gather(stack, shared, session_id, {"authorization": f"Bearer {token}"})
        bystander = await stack.enter_async_context(joined(shared.edge, elsewhere, other))
        await (revoke_user(operator, "acme", user) if what == "user" else revoke_token(operator, "acme", f"jti-{what}"))
        await crowd.is_sent_away("unauthorized")
        await bystander.send("ping")
        await bystander.until("pong")
    assert await _asks(shared, {"authorization": f"Bearer {token}"}) == [401, 401]


async def test_whatever_is_open_ends_with_its_token(shared: System) -> None:
    """Issue: within five seconds of its expiry, and told as such."""
    lasting, short = shared.token(user="eve"), shared.token(user="eve", ttl=1)
    session_id = await new_session(shared.edge, lasting)
    async with AsyncExitStack() as stack:
        crowd = Crowd()
        await crowd.gather(stack, shared, session_id, {"authorization": f"Bearer {short}"})
        await crowd.is_sent_away("token_expired")


async def test_an_answer_is_not_told_to_whoever_may_no_longer_ask(shared: System, operator: Broker) -> None:
    """Issue: every request; one that waits for its turn's end, or streams it, outlives no revocation."""
    token, lasting = shared.token(user="walt", jti="of-walt"), shared.token(user="walt", jti="another")
    sessions = [await new_session(shared.edge, token) for _ in range(2)]
    waits, streams = [f"{shared.edge}/api/v1/sessions/{name}/messages" for name in sessions]
    program = {"content": json.dumps([{"say": "canary-answer"}, {"sleep_ms": 60_000}])}
    bearer = {"authorization": f"Bearer {token}"}
    async with (
        joined(shared.edge, sessions[0], lasting) as witness,
        listening(streams, "", method="POST", json=program, headers=bearer) as stream,
    ):
        waiting = asyncio.create_task(http("POST", f"{waits}?wait=true", program, token=token))
        await witness.until("stream_delta")
        await stream.until("stream_delta")
        await revoke_token(operator, "acme", "of-walt")
        assert (await stream.rest())[-1]["code"] == "unauthorized"
        await witness.send("cancel")
        await witness.until("turn_end")
        answer = await waiting
        assert answer.status == 202
        assert "canary-answer" not in answer.body.decode()
    await http("POST", f"{shared.edge}/api/v1/sessions/{sessions[1]}/cancel", token=lasting)


async def test_a_token_is_refreshed_in_place_and_only_by_its_own_user(shared: System) -> None:
    """WIRE: `auth`; what is refused changes nothing, and the socket lives until its own token's end."""
    session_id = await new_session(shared.edge, shared.token(user="fay"))
    async with (
        joined(shared.edge, session_id, shared.token(user="fay", ttl=1)) as renewed,
        joined(shared.edge, session_id, shared.token(user="fay", ttl=1)) as ending,
    ):
        wrong = {
            "forbidden": [shared.token(user="mallory"), shared.token(tenant="globex", user="fay"),
                          shared.token(user="fay", scope="openid")],
            "unauthorized": ["garbage", ""],
            "token_expired": [shared.token(user="fay", ttl=-60)],
        }  # fmt: skip
        for code, tokens in wrong.items():
            for token in tokens:
                await ending.send("auth", token=token, request_id="a")
                assert (await ending.until("error"))["code"] == code
        await renewed.send("auth", token=shared.token(user="fay", ttl=600))
        assert (await renewed.until("ack"))["expires_at"] is not None
        assert await ending.closed() == 4001
        await renewed.send("ping")
        await renewed.until("pong")


async def test_a_ticket_lets_one_connection_in_on_whichever_edge(shared: System) -> None:
    """WIRE: single use; of two who show it at once, one is let in."""
    token = shared.token(user="tim")
    session_id = await new_session(shared.edge, token)
    for _ in range(3):
        made = await http("POST", f"{shared.edge}/api/v1/tickets", token=token)
        assert made.status == 201
        ticket = made.json["ticket"]
        edges = (shared.edge, shared.services[-1].url)
        outcomes = await asyncio.gather(*(_comes_in(edge, session_id, ticket) for edge in edges))
        assert sorted(outcomes, key=str) == [4001, None]
        async with open_socket(shared.edge, session_id, None, ticket=ticket) as late:
            assert await late.closed() == 4001
    foreign = await http("POST", f"{shared.edge}/api/v1/tickets", token=shared.token(tenant="globex", user="tim"))
    async with open_socket(shared.edge, session_id, None, ticket=foreign.json["ticket"]) as stranger:
        assert await stranger.closed() == 4004
    for file in shared.directory.glob("*.log"):
        assert ticket not in file.read_text()


async def _comes_in(edge: str, session_id: str, ticket: str) -> int | None:
    async with open_socket(edge, session_id, None, ticket=ticket) as client:
        first = client.connection.recv()
        try:
            async with asyncio.timeout(WITHIN):
                await first
        except Exception:  # noqa: BLE001 - closed, whatever with
            return client.connection.close_code
        return None


async def test_without_credentials_nothing_is_shown(shared: System) -> None:
    """On every route but the pages and the health of the service."""
    document = await http("GET", f"{shared.edge}/api/v1/openapi.json")
    number = 0
    for path, item in document.json["paths"].items():
        for method in item:
            url = f"{shared.edge}{path.replace('{session_id}', 's').replace('{tool_call_id}', 'c')}"
            answer = await http(method.upper(), url, {"content": "x", "approved": True} if method == "post" else None)
            assert (answer.status, answer.json["code"]) in ((401, "unauthorized"), (400, "bad_request")), (method, path)
            number += answer.status == 401
    assert number > 12
    for path in ("/api/v1/sessions/s/ws", "/api/v1/ws", "/ws/agents/s", "/ws/projects/p/status"):
        async with socket_at(shared.edge + path) as client:
            assert await client.closed() == 4001
            assert client.frames == []


async def test_an_edge_believes_its_issuers_keys(tmp_path: Path) -> None:
    """Issue: a JWKS; a rotated key is picked up and the old one let go, without a restart."""
    file = tmp_path / "jwks.json"
    file.write_bytes(document(jwk("ES256")))
    config = f'[auth]\njwks = "{file}"\njwks_refresh = 0.1\n'
    async with system(tmp_path, services=("edge",), config=config) as running:
        old, new = signed("ES256", "k1"), signed("EdDSA", "k2")
        await new_session(running.edge, old, session_id="s")
        file.write_bytes(document(jwk("EdDSA", "k2")))

        async def is_refused() -> bool:
            return (await http("GET", f"{running.edge}/api/v1/sessions/s", token=old)).status == 401

        await until(is_refused)
        async with joined(running.edge, "s", new):
            pass
        async with open_socket(running.edge, "s", signed("EdDSA", "k1")) as client:
            assert await client.closed() == 4001
