"""`millrace keys` and `millrace token`, beside a running broker: what they print opens the edge until it is revoked."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from broker.connect import connect
from contracts.config import Auth
from contracts.errors import Code, MillraceError
from edge.identity import Credentials, Identity
from edge.principal import Principal
from millrace.datadir import DataDir
from tests.harness.nats_server import NatsServer
from tests.millrace.conftest import Millrace, said

pytestmark = pytest.mark.anyio

ANN = ("--tenant", "acme", "--user", "ann")


@pytest.fixture
async def identity(nats: NatsServer, data: DataDir) -> AsyncIterator[Callable[[], Identity]]:
    """An edge's view, made anew for each question."""
    async with connect(nats.url, "edge", seed_file=nats.seed("edge")) as broker:
        yield lambda: Identity.open(broker, Auth(), str(data.jwt_secret))


async def refused(millrace: Millrace, *arguments: str) -> int:
    """The exit code of a command that fails with one line."""
    async with millrace(*arguments) as running:
        code = await running.exit()
        assert len(running.errors) == 1, running.errors
        assert running.output == []
        return code


async def created(millrace: Millrace, *arguments: str) -> dict[str, str]:
    """A new key: `id` and `key`."""
    key: dict[str, str] = json.loads(await said(millrace, "keys", "create", *arguments))
    return key


async def listed(millrace: Millrace, *arguments: str) -> list[dict[str, Any]]:
    """The keys that there are."""
    return [json.loads(line) for line in (await said(millrace, "keys", "list", *arguments)).splitlines()]


async def verdict(identity: Identity, **shown: str) -> Principal | Code:
    """Whom it lets in, or the code that it is refused with."""
    try:
        return await identity.principal(Credentials(**shown))
    except MillraceError as error:
        return error.code


async def test_a_key_opens_the_edge_until_it_is_revoked(millrace: Millrace, identity: Callable[[], Identity]) -> None:
    """Issue 3: created, listed and revoked by `millrace keys`."""
    rights = ("--scopes", "read,approve", "--projects", "p1,p2", "--ttl", "60", "--name", "build é")
    key = await created(millrace, *ANN, *rights)
    assert key["key"].startswith(f"mr_{key['id']}_")
    found = await verdict(identity(), api_key=key["key"])
    assert isinstance(found, Principal)
    assert (found.tenant, found.user_id) == ("acme", "ann")
    assert found.scopes == {"read", "approve"}
    assert found.projects == frozenset({"p1", "p2"})
    assert found.issued_at
    assert found.expires_at == pytest.approx(found.issued_at + 60)
    assert await said(millrace, "keys", "revoke", key["id"], "--tenant", "acme") == ""
    assert await verdict(identity(), api_key=key["key"]) == Code.UNAUTHORIZED
    (shown,) = await listed(millrace)
    assert shown.pop("revoked_at") > shown.pop("created_at")
    assert shown.pop("expires_at")
    assert shown == {
        "id": key["id"],
        "tenant": "acme",
        "user": "ann",
        "name": "build é",
        "scopes": ["read", "approve"],
        "projects": ["p1", "p2"],
    }


async def test_a_key_that_says_nothing_reads_and_writes_everywhere_and_for_ever(
    millrace: Millrace, identity: Callable[[], Identity]
) -> None:
    """Our choice: as a token that says nothing."""
    key = await created(millrace, *ANN)
    found = await verdict(identity(), api_key=key["key"])
    assert isinstance(found, Principal)
    assert found.scopes == {"read", "write"}
    assert (found.projects, found.expires_at) == (None, None)
    (shown,) = await listed(millrace)
    assert (shown["projects"], shown["expires_at"], shown["revoked_at"]) == (["*"], None, None)


async def test_keys_are_listed_by_tenant_and_never_shown_again(millrace: Millrace, nats: NatsServer) -> None:
    """Issue 3: shown once."""
    ours = await created(millrace, *ANN)
    theirs = await created(millrace, "--tenant", "globex", "--user", "bob")
    assert [key["id"] for key in await listed(millrace)] == [ours["id"], theirs["id"]]
    assert [key["id"] for key in await listed(millrace, "--tenant", "globex")] == [theirs["id"]]
    text = await said(millrace, "keys", "list")
    assert ours["key"][28:] not in text
    assert "hash" not in text


async def test_a_key_is_revoked_only_in_its_tenant(millrace: Millrace, identity: Callable[[], Identity]) -> None:
    """P10; and what is revoked stays so."""
    key = await created(millrace, *ANN)
    assert await refused(millrace, "keys", "revoke", key["id"], "--tenant", "globex") == 2
    assert isinstance(await verdict(identity(), api_key=key["key"]), Principal)
    for _ in range(2):
        assert await said(millrace, "keys", "revoke", key["id"], "--tenant", "acme") == ""
    assert await verdict(identity(), api_key=key["key"]) == Code.UNAUTHORIZED


async def test_a_token_says_what_it_allows(millrace: Millrace, identity: Callable[[], Identity]) -> None:
    """Issue 3: scopes and projects."""
    token = await said(millrace, "token", *ANN, "--scopes", "read", "--projects", "p1")
    found = await verdict(identity(), token=token)
    assert isinstance(found, Principal)
    assert found.scopes == {"read"}
    assert found.projects == frozenset({"p1"})
    plain, again = [await said(millrace, "token", *ANN) for _ in range(2)]
    found, other = await verdict(identity(), token=plain), await verdict(identity(), token=again)
    assert isinstance(found, Principal)
    assert isinstance(other, Principal)
    assert found.scopes == {"read", "write"}
    assert found.projects is None
    assert found.credential != other.credential


async def test_a_users_tokens_are_revoked(millrace: Millrace, identity: Callable[[], Identity]) -> None:
    """The brief: all that were issued up to now."""
    token = await said(millrace, "token", *ANN)
    bobs = await said(millrace, "token", "--tenant", "acme", "--user", "bob")
    assert await said(millrace, "token", "revoke", *ANN) == ""
    assert await verdict(identity(), token=token) == Code.UNAUTHORIZED
    assert isinstance(await verdict(identity(), token=bobs), Principal)


async def test_one_token_is_revoked(millrace: Millrace, identity: Callable[[], Identity]) -> None:
    """The brief: by its id, whatever that looks like."""
    import jwt

    tokens = [await said(millrace, "token", *ANN) for _ in range(2)]
    jti = jwt.decode(tokens[0], options={"verify_signature": False})["jti"]
    assert await said(millrace, "token", "revoke", "--tenant", "acme", "--jti", jti) == ""
    assert await said(millrace, "token", "revoke", "--tenant", "acme", "--jti", "a b.*") == ""
    assert await verdict(identity(), token=tokens[0]) == Code.UNAUTHORIZED
    assert isinstance(await verdict(identity(), token=tokens[1]), Principal)


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys", "create", "--tenant", "a.b", "--user", "ann"),
        ("keys", "create", "--tenant", "acme", "--user", "*"),
        ("keys", "create", *ANN, "--scopes", "read,all"),
        ("keys", "create", *ANN, "--projects", "p1,a.b"),
        ("keys", "create", *ANN, "--ttl", "0"),
        ("keys", "create", *ANN, "--ttl", "99999999999999"),
        ("keys", "list", "--tenant", ">"),
        ("keys", "revoke", "a.b", "--tenant", "acme"),
        ("keys", "revoke", "a" * 24, "--tenant", "acme"),
        ("token", "--tenant", "acme"),
        ("token", *ANN, "--jti", "x"),
        ("token", *ANN, "--scopes", "all"),
        ("token", *ANN, "--projects", ">"),
        ("token", "revoke", "--tenant", "acme"),
        ("token", "revoke", *ANN, "--jti", "x"),
        ("token", "revoke", "--tenant", "acme", "--jti", ""),
        ("token", "revoke", "--tenant", ">", "--user", "ann"),
        ("token", "revoke", "--tenant", "acme", "--user", ">"),
    ],
    ids=" ".join,
)
async def test_what_cannot_be_done_is_one_line_and_exit_code_2(
    nats: NatsServer, millrace: Millrace, arguments: tuple[str, ...]
) -> None:
    """Our choice: what is wrong is said before anything is stored."""
    assert await refused(millrace, *arguments) == 2
    assert await listed(millrace) == []


@pytest.mark.parametrize(
    "arguments",
    [("keys", "create", *ANN), ("keys", "list"), ("token", "revoke", *ANN)],
    ids=["create", "list", "revoke"],
)
async def test_without_a_broker_it_fails_with_one_line(
    nats: NatsServer, millrace: Millrace, arguments: tuple[str, ...]
) -> None:
    """Our choice: exit code 1, for it might succeed later."""
    await nats.kill()
    assert await refused(millrace, *arguments) == 1


async def test_an_entry_that_cannot_be_read_is_said(nats: NatsServer, millrace: Millrace) -> None:
    """Our choice: exit code 1 and one line, not a stack trace."""
    client = await nats.client("operator")
    await client.request(f"auth.acme.key.{'a' * 24}", b"{}")
    await client.close()
    assert await refused(millrace, "keys", "list") == 1
    assert await refused(millrace, "keys", "revoke", "a" * 24, "--tenant", "acme") == 1
