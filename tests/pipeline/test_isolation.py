"""P10: no tenant, user or session ever sees another's events, also on replay."""

import pytest

from tests.harness.client import http, joined, new_session, open_socket
from tests.harness.system import System

pytestmark = pytest.mark.anyio


async def test_sessions_of_the_same_id_in_two_tenants_share_nothing(shared: System) -> None:
    """The tenant comes from the token alone."""
    acme, globex = shared.token(user="twin"), shared.token(tenant="globex", user="twin")
    for token in (acme, globex):
        await new_session(shared.edge, token, session_id="twin")
    async with joined(shared.edge, "twin", acme) as client:
        await client.say("canary-acme")
        await client.until("turn_end")
        cursor = client.cursor
    for after in (None, "0", cursor):
        async with joined(shared.edge, "twin", globex, after=after) as client:
            assert "canary-acme" not in str(client.frames)
            assert not client.of("message")


async def test_sessions_of_the_same_id_in_two_tenants_are_apart_live(shared: System) -> None:
    """What is said, who types, who is connected, and whose place a newcomer takes."""
    acme, globex = shared.token(user="twin"), shared.token(tenant="globex", user="twin")
    for token in (acme, globex):
        await new_session(shared.edge, token, session_id="twins")
    async with (
        joined(shared.edge, "twins", acme) as ours,
        joined(shared.services[-1].url, "twins", acme) as witness,
        joined(shared.edge, "twins", globex) as theirs,
    ):
        await ours.send("typing")
        await witness.until("typing")
        await ours.say("canary-acme")
        await ours.until("turn_end")
        async with joined(shared.edge, "twins", globex, takeover="all") as newer:
            assert await theirs.closed() == 4000
            shown = await http("GET", f"{shared.edge}/api/v1/sessions/twins/connections", token=globex)
            assert len(shown.json["items"]) == 1
            await newer.say("a sign")
            await newer.until("turn_end")
            for client in (theirs, newer):
                assert "canary-acme" not in str(client.frames)
                assert not client.of("typing")
        await ours.send("ping")
        await ours.until("pong")
        assert "a sign" not in str(ours.frames)


async def test_another_users_session_can_be_neither_read_nor_written(shared: System) -> None:
    """Also with a cursor that its owner was given, and by REST."""
    owner, thief = shared.token(user="victim"), shared.token(user="thief")
    session_id = await new_session(shared.edge, owner)
    async with joined(shared.edge, session_id, owner) as client:
        await client.say("secret")
        await client.until("turn_end")
        cursor = client.cursor
    for after in (None, "0", cursor):
        async with open_socket(shared.edge, session_id, thief, after) as client:
            assert await client.closed() == 4003
            assert client.frames == []
    stolen = await http("GET", f"{shared.edge}/api/v1/sessions/{session_id}", token=thief)
    assert (stolen.status, stolen.json["code"]) == (403, "forbidden")
    taken = await http("POST", f"{shared.edge}/api/v1/sessions", {"session_id": session_id}, token=thief)
    assert (taken.status, taken.json["code"]) == (403, "forbidden")
    listed = await http("GET", f"{shared.edge}/api/v1/sessions", token=thief)
    assert session_id not in str(listed.json)


@pytest.mark.parametrize("session_id", ["*", ">", "a.b", "%2A", "a%2Eb", "%3E", "x" * 65, "..", "a b", "%00"])
async def test_an_id_that_could_reach_beyond_its_place_names_no_session(shared: System, session_id: str) -> None:
    """A token with a dot or a wildcard would be a hole."""
    token = shared.token()
    created = await http("POST", f"{shared.edge}/api/v1/sessions", {"session_id": session_id}, token=token)
    assert (created.status, created.json["code"]) == (400, "bad_request")
    quoted = session_id.replace(" ", "%20").replace("..", "%2E%2E")
    found = await http("GET", f"{shared.edge}/api/v1/sessions/{quoted}", token=token)
    assert found.status == 404
    async with open_socket(shared.edge, quoted, token) as client:
        assert await client.closed() == 4004


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"tenant": "*"}, id="wildcard tenant"),
        pytest.param({"tenant": "a.b"}, id="dotted tenant"),
        pytest.param({"sub": ">"}, id="wildcard user"),
        pytest.param({"tenant": None}, id="no tenant"),
        pytest.param({"sub": ""}, id="no user"),
        pytest.param({"aud": "somebody"}, id="for somebody else"),
        pytest.param({"iss": "somebody"}, id="from somebody else"),
    ],
)
async def test_a_token_that_names_nobody_properly_is_refused(shared: System, claims: dict[str, object]) -> None:
    """Identity comes from the token; what is no token of the subject grammar is refused where it enters."""
    token = shared.token(**claims)  # type: ignore[arg-type]
    refused = await http("GET", f"{shared.edge}/api/v1/sessions", token=token)
    assert (refused.status, refused.json["code"]) == (401, "unauthorized")


async def test_a_token_without_signature_is_refused(shared: System) -> None:
    """`alg: none`, and a signature by nobody."""
    header, payload, signature = shared.token().split(".")
    none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"
    for forged in (f"{none}.{payload}.", f"{none}.{payload}.{signature}", f"{header}.{payload}.{signature[::-1]}"):
        refused = await http("GET", f"{shared.edge}/api/v1/sessions", token=forged)
        assert (refused.status, refused.json["code"]) == (401, "unauthorized")


async def test_no_token_stands_in_a_log_file(shared: System) -> None:
    """Tokens in a query string never reach a log line."""
    token = shared.token(user="quiet")
    session_id = await new_session(shared.edge, token)
    async with joined(shared.edge, session_id, token):
        pass
    async with open_socket(shared.edge, session_id, "forged-token") as client:
        assert await client.closed() == 4001
    for file in shared.directory.glob("*.log"):
        text = file.read_text()
        assert token not in text
        assert "forged-token" not in text
