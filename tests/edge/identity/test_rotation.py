"""Rotation: an issuer's keys come and go, and its web server misbehaves."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from contracts.config import Auth
from contracts.errors import Code, MillraceError
from edge.identity import fetch, tokens
from edge.identity.tokens import Tokens
from tests.edge.identity.issuer import Jwks, document, jwk, serving, token
from tests.harness.wait import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown key is fetched for at once, however often."""
    monkeypatch.setattr(tokens, "UNKNOWN_KEY_EVERY", 0.0)


def believing(where: str, refresh: float = 300.0) -> Tokens:
    """A verifier of the tokens of that issuer."""
    return Tokens.open(Auth(jwks=where, jwks_refresh=refresh), "")


async def verdict(tokens: Tokens, text: str) -> Code | None:
    """None for a token that is believed, or the code that it is refused with."""
    try:
        await tokens.principal(text, time.time())
    except MillraceError as error:
        return error.code
    return None


@asynccontextmanager
async def running(tokens: Tokens) -> AsyncIterator[None]:
    """Read the document again and again, until the block ends."""
    task = asyncio.create_task(tokens.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])
        await tokens.close()


async def test_the_first_token_fetches_the_keys(issuer: Jwks) -> None:
    """Our choice: nobody waits for the background."""
    assert await verdict(believing(issuer.url), token("RS256", "k1")) is None
    assert issuer.asked == 1


async def test_a_key_that_is_known_is_not_fetched_for(issuer: Jwks) -> None:
    """Issue 3: cached."""
    known = believing(issuer.url)
    for _ in range(3):
        assert await verdict(known, token("RS256", "k1")) is None
    assert issuer.asked == 1


async def test_a_new_key_is_fetched_for_the_first_token_that_names_it(issuer: Jwks, eager: None) -> None:
    """Issue 3: rotated keys are picked up."""
    known = believing(issuer.url)
    assert await verdict(known, token("RS256", "k1")) is None
    assert await verdict(known, token("RS256", "k2", 2)) == Code.UNAUTHORIZED
    issuer.body = document(jwk("RS256"), jwk("RS256", "k2", 2))
    assert await verdict(known, token("RS256", "k2", 2)) is None


async def test_made_up_key_ids_make_no_traffic(issuer: Jwks) -> None:
    """The brief: every ten seconds at most; anybody can make one up."""
    known = believing(issuer.url)
    for number in range(20):
        assert await verdict(known, token("RS256", f"made-up-{number}")) == Code.UNAUTHORIZED
    assert issuer.asked == 1
    assert await verdict(known, token("RS256", "k1")) is None


async def test_many_who_miss_a_key_share_one_fetch(issuer: Jwks, eager: None) -> None:
    """Our choice: one at a time."""
    issuer.release.clear()
    known = believing(issuer.url)
    asking = [asyncio.create_task(verdict(known, token("RS256", "k1"))) for _ in range(50)]
    await until(lambda: issuer.asked)
    issuer.release.set()
    assert await asyncio.gather(*asking) == [None] * 50
    assert issuer.asked == 1


async def test_a_key_that_was_rotated_out_is_believed_no_longer(issuer: Jwks) -> None:
    """The brief: after the next refresh."""
    known = believing(issuer.url, refresh=0.02)
    async with running(known):
        assert await verdict(known, token("RS256", "k1")) is None
        issuer.body = document(jwk("RS256", "k2", 2))

        async def is_refused() -> bool:
            return await verdict(known, token("RS256", "k1")) == Code.UNAUTHORIZED

        await until(is_refused)
        assert await verdict(known, token("RS256", "k2", 2)) is None


async def test_a_file_is_read_again(jwks_file: Path) -> None:
    """Issue 3: from a file or a URL."""
    write = jwks_file.write_bytes
    write(document(jwk("ES256")))
    known = believing(str(jwks_file), refresh=0.02)
    assert await verdict(known, token("ES256", "k1")) is None
    async with running(known):
        write(document(jwk("EdDSA", "k2")))

        async def is_refused() -> bool:
            return await verdict(known, token("ES256", "k1")) == Code.UNAUTHORIZED

        await until(is_refused)
        assert await verdict(known, token("EdDSA", "k2")) is None


BAD = {
    "garbage": {"body": b"<html>"},
    "huge": {"body": document(jwk("RS256"), jwk("RS256", "k2", 2)) + b" " * fetch.MOST_BYTES},
    "an error": {"status": 500},
    "not found": {"status": 404},
    "no list": {"body": b'{"keys": 1}'},
    "to another scheme": {"status": 302, "headers": {"location": "https://127.0.0.1:1/"}},
    "to a file": {"status": 302, "headers": {"location": "file:///etc/passwd"}},
    "to another host": {"status": 302, "headers": {"location": "http://evil.example/"}},
    "round and round": {"status": 302, "headers": {"location": "/jwks"}},
    "too short": {"headers": {"content-length": "5"}},
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
async def test_what_was_known_stays_while_the_server_misbehaves(
    issuer: Jwks, eager: None, bad: dict[str, object]
) -> None:
    """The brief: if a refresh fails, the old keys stay."""
    known = believing(issuer.url, refresh=0.02)
    assert await verdict(known, token("RS256", "k1")) is None
    for name, value in bad.items():
        setattr(issuer, name, value)
    async with running(known):
        asked = issuer.asked
        await until(lambda: issuer.asked > asked)
        assert await verdict(known, token("RS256", "k2", 2)) == Code.UNAUTHORIZED
        assert await verdict(known, token("RS256", "k1")) is None


async def test_a_redirect_to_what_is_believed_as_much_is_followed(issuer: Jwks) -> None:
    """RFC 9110, 15.4."""
    with serving() as moved:
        moved.status, moved.headers = 302, {"location": issuer.url}
        assert await verdict(believing(moved.url), token("RS256", "k1")) is None


async def test_a_redirect_away_from_this_machine_is_not_followed(issuer: Jwks) -> None:
    """Our choice: http is for this machine, under the names that are surely its own."""
    with serving() as moved:
        moved.status, moved.headers = 302, {"location": issuer.url.replace("127.0.0.1", "0.0.0.0")}  # noqa: S104
        assert await verdict(believing(moved.url), token("RS256", "k1")) == Code.BROKER_UNAVAILABLE
    assert issuer.asked == 0


async def test_while_keys_were_never_to_be_had_nobody_is_told_that_a_token_is_bad(
    issuer: Jwks, eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our choice: retryable; the edge goes on trying."""
    monkeypatch.setattr(tokens, "RETRY", 0.02)
    issuer.status = 503
    known = believing(issuer.url)
    assert await verdict(known, token("RS256", "k1")) == Code.BROKER_UNAVAILABLE
    async with running(known):
        issuer.status = 200
        await until(lambda: known._keys)
    assert await verdict(known, token("RS256", "k1")) is None


async def test_a_server_that_is_away_is_no_reason_to_stop(issuer: Jwks, monkeypatch: pytest.MonkeyPatch) -> None:
    """The brief: never dies of an exception that a retry can mend."""
    monkeypatch.setattr(tokens, "RETRY", 0.02)
    with serving() as gone:
        url = gone.url
    known = believing(url)
    async with running(known):
        assert await verdict(known, token("RS256", "k1")) == Code.BROKER_UNAVAILABLE


@pytest.mark.parametrize("drips", [False, True], ids=["silent", "dripping"])
async def test_a_slow_server_holds_nobody_up_for_long(
    issuer: Jwks, monkeypatch: pytest.MonkeyPatch, drips: bool, eager: None
) -> None:
    """The brief: never a blocking fetch on the event loop, and one that ends."""
    monkeypatch.setattr(fetch, "TIMEOUT", 0.1)
    known = believing(issuer.url)
    assert await verdict(known, token("RS256", "k1")) is None
    issuer.drips = drips
    issuer.body = document(jwk("RS256", "k2", 2), *[{}] * 50_000)
    if not drips:
        issuer.release.clear()
    asking = asyncio.create_task(verdict(known, token("RS256", "k2", 2)))
    await until(lambda: issuer.asked == 2)
    assert await verdict(known, token("RS256", "k1")) is None
    assert not asking.done()
    assert await asking == Code.UNAUTHORIZED


async def test_who_stops_waiting_takes_nothing_from_the_others(issuer: Jwks) -> None:
    """Our choice: a client that goes away ends only its own wait."""
    issuer.release.clear()
    known = believing(issuer.url)
    first, second = (asyncio.create_task(verdict(known, token("RS256", "k1"))) for _ in range(2))
    await until(lambda: issuer.asked)
    first.cancel()
    await asyncio.wait([first])
    issuer.release.set()
    assert await second is None
