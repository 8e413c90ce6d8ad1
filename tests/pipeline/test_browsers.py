"""What a browser is told: which pages may call, and what a page of the edge's own may do."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.harness.client import WITHIN, http, new_session, socket_at
from tests.harness.system import System, system

pytestmark = pytest.mark.anyio

LISTED, FOREIGN = "https://app.example", "https://evil.example"
STREAMS = ("/api/v1/sessions/{id}/ws", "/api/v1/ws", "/ws/agents/{id}")
REQUESTS = ("/api/v1/sessions", "/api/v1/sessions/{id}", "/api/v1/sessions/{id}/events", "/api/v1/sse")


@pytest.fixture(scope="module")
async def listing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """An edge that lets the pages of one other origin call."""
    config = f'[auth]\norigins = ["{LISTED}"]\n'
    async with system(tmp_path_factory.mktemp("listing"), services=("edge",), config=config) as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client that shows every header."""
    async with httpx.AsyncClient(timeout=WITHIN, trust_env=False) as client:
        yield client


async def test_a_page_of_somebody_else_may_not_use_a_visitors_token(listing: System, client: httpx.AsyncClient) -> None:
    """Issue: an allow-list. A WebSocket knows no CORS: the edge itself has to refuse."""
    token = listing.token()
    session_id = await new_session(listing.edge, token)
    for origin in (FOREIGN, "null", f"{LISTED}.evil.example", "https://app.example:8443", "http://app.example"):
        headers = {"authorization": f"Bearer {token}", "origin": origin}
        for path in STREAMS:
            async with socket_at(listing.edge + path.format(id=session_id), **headers) as socket:
                assert await socket.closed() == 4003
                assert socket.frames == []
        for path in REQUESTS:
            answer = await client.get(listing.edge + path.format(id=session_id), headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
            assert "access-control-allow-origin" not in answer.headers
        stored = await client.post(f"{listing.edge}/api/v1/sessions", json={"session_id": "planted"}, headers=headers)
        assert stored.status_code == 403
    assert (await http("GET", f"{listing.edge}/api/v1/sessions/planted", token=token)).status == 404


@pytest.mark.parametrize("own", [True, False], ids=["the edge's own", "a listed one"])
async def test_a_page_that_may_call_is_served_and_may_read(
    listing: System, client: httpx.AsyncClient, own: bool
) -> None:
    """Standard: Fetch; no cookies are allowed, so nothing is sent that the page does not have."""
    token, origin = listing.token(), listing.edge if own else LISTED
    session_id = await new_session(listing.edge, token)
    headers = {"authorization": f"Bearer {token}", "origin": origin}
    for path in STREAMS[:2]:
        async with socket_at(listing.edge + path.format(id=session_id), **headers) as socket:
            await socket.until("replay_complete")
    answer = await client.get(f"{listing.edge}/api/v1/sessions", headers=headers)
    assert answer.status_code == 200
    if not own:
        assert answer.headers["access-control-allow-origin"] == LISTED
        assert "origin" in answer.headers["vary"].lower()
        assert "access-control-allow-credentials" not in answer.headers
        failed = await client.get(f"{listing.edge}/api/v1/sessions/nowhere", headers=headers)
        assert failed.headers["access-control-allow-origin"] == LISTED


async def test_a_preflight_says_what_may_be_sent(listing: System, client: httpx.AsyncClient) -> None:
    """Standard: Fetch; the headers that carry credentials, cursors and JSON."""
    asked = {"origin": LISTED, "access-control-request-method": "PATCH",
             "access-control-request-headers": "authorization, x-api-key, content-type, last-event-id"}  # fmt: skip
    answer = await client.options(f"{listing.edge}/api/v1/sessions/s", headers=asked)
    assert answer.status_code < 300
    assert answer.headers["access-control-allow-origin"] == LISTED
    assert {"authorization", "x-api-key", "content-type", "last-event-id"} <= set(
        answer.headers["access-control-allow-headers"].lower().split(", ")
    )
    foreign = await client.options(f"{listing.edge}/api/v1/sessions/s", headers=asked | {"origin": FOREIGN})
    assert "access-control-allow-origin" not in foreign.headers


async def test_whatever_is_sent_has_the_security_headers(listing: System, client: httpx.AsyncClient) -> None:
    """Issue: sensible security headers; on pages, answers, errors and streams."""
    token = listing.token()
    session_id = await new_session(listing.edge, token)
    bearer = {"authorization": f"Bearer {token}"}
    paths = ["/", "/docs", "/page/chat.js", "/api/v1/openapi.json", "/api/v1/sessions", "/nowhere", "/healthz"]
    answers = [await client.get(listing.edge + path, headers=bearer) for path in paths]
    answers.append(await client.get(f"{listing.edge}/api/v1/sessions"))  # 401
    url = f"{listing.edge}/api/v1/sessions/{session_id}/events"
    async with client.stream("GET", url, headers=bearer | {"accept": "text/event-stream"}) as stream:
        answers.append(stream)
    for answer in answers:
        headers = answer.headers
        assert headers["x-content-type-options"] == "nosniff", answer.url
        assert headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "server" not in headers
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 200, 404, 200, 401, 200]


async def test_what_is_answered_is_kept_by_nobody_on_the_way(listing: System, client: httpx.AsyncClient) -> None:
    """Standard: RFC 9111; a cache knows that `Authorization` is secret, but not that `X-API-Key` or `?token=` is."""
    token = listing.token()
    session_id = await new_session(listing.edge, token)
    api = f"{listing.edge}/api/v1/sessions"
    for path in ("", f"/{session_id}", f"/{session_id}/messages", f"/{session_id}/events", "/nowhere"):
        answer = await client.get(f"{api}{path}?token={token}", headers={"accept": "application/json"})
        assert answer.headers["cache-control"] == "no-store", path
    assert (await client.get(api)).headers["cache-control"] == "no-store"  # 401
    async with client.stream("GET", f"{api}/{session_id}/events?token={token}") as stream:
        assert stream.headers["cache-control"] == "no-cache, no-transform"


@pytest.mark.parametrize("name", ["..%2fapp.py", "%2e%2e/app.py", "..%5capp.py", "/etc/passwd", "%00", "x" * 5000])
async def test_a_page_that_could_be_a_file_elsewhere_is_not_found(
    listing: System, client: httpx.AsyncClient, name: str
) -> None:
    """Anybody may ask for pages: what is there is the folder's, and no name is an error of the edge's."""
    answer = await client.get(f"{listing.edge}/page/{name}")
    assert (answer.status_code, answer.json()["code"]) == (404, "bad_request")
    assert "request failed" not in listing["edge"].log.read_text()


async def test_without_a_list_no_other_origin_is_let_in(tmp_path: Path, client: httpx.AsyncClient) -> None:
    """Our choice: the edge's own pages work, and nobody else's."""
    async with system(tmp_path, services=("edge",)) as closed:
        url, token = f"{closed.edge}/api/v1/sessions", closed.token()
        asked = {"origin": LISTED, "access-control-request-method": "GET"}
        assert "access-control-allow-origin" not in (await client.options(url, headers=asked)).headers
        for origin, status in ((LISTED, 403), (closed.edge, 200)):
            headers = {"authorization": f"Bearer {token}", "origin": origin}
            assert (await client.get(url, headers=headers)).status_code == status
