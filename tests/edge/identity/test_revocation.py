"""Revocation and expiry: what held holds no longer, at every edge."""

import asyncio

import msgspec
import pytest

from broker.connect import Broker
from broker.entries import get, put
from contracts.credentials import AnyEntry, ApiKey, NewKey, RevokedUser, digest
from contracts.errors import Code
from contracts.streams import AUTH
from edge.identity import Credentials, Identity
from edge.principal import Principal
from millrace import keys
from millrace.operator import change
from millrace.tokens import revoke_token, revoke_user
from tests.edge.identity.callers import create, principal, refusal, running, verdict
from tests.edge.identity.conftest import identity_of
from tests.edge.identity.issuer import MISSING, token
from tests.harness.nats_server import NatsServer
from tests.harness.wait import until

pytestmark = pytest.mark.anyio


async def test_a_token_that_expires_on_the_way_is_noticed(identity: Identity, operator: Broker) -> None:
    """Issue 3: a connection ends when its token does; the leeway is the issuer's clock's."""
    known = await identity.principal(Credentials(token=token()))
    assert verdict(identity, msgspec.structs.replace(known, expires_at=operator.now() - 1)) is None
    assert verdict(identity, msgspec.structs.replace(known, expires_at=operator.now() - 3)) == Code.TOKEN_EXPIRED


async def test_a_key_that_is_revoked_ends_on_every_edge(
    identity: Identity, other_identity: Identity, operator: Broker
) -> None:
    """Issue 3: within five seconds."""
    new = await create(operator)
    known = await principal(identity, new.text)
    async with running(identity), running(other_identity):
        assert await principal(other_identity, new.text) == known
        await keys._revoke(operator, "acme", new.id)
        await until(lambda: verdict(identity, known) == Code.UNAUTHORIZED)
        await until(lambda: verdict(other_identity, known) == Code.UNAUTHORIZED)
        for edge in (identity, other_identity):
            assert await refusal(edge, Credentials(api_key=new.text)) == Code.UNAUTHORIZED


async def test_revoking_a_users_tokens_ends_those_that_there_are(
    identity: Identity, other_identity: Identity, operator: Broker
) -> None:
    """The brief: those issued up to now, of that user of that tenant, and no others."""
    now = int(operator.now())
    shown = {
        "old": token(iat=now - 10),
        "undated": token(iat=MISSING),
        "bob's": token(sub="bob", iat=now - 10),
        "globex's": token(tenant="globex", iat=now - 10),
    }
    known = {name: await identity.principal(Credentials(token=text)) for name, text in shown.items()}
    new = await create(operator)
    known["key"] = await principal(identity, new.text)
    async with running(identity):
        await revoke_user(operator, "acme", "ann")
        await until(lambda: verdict(identity, known["old"]) == Code.UNAUTHORIZED)
    verdicts = {name: verdict(identity, somebody) for name, somebody in known.items()}
    ended = Code.UNAUTHORIZED
    assert verdicts == {"old": ended, "undated": ended, "bob's": None, "globex's": None, "key": None}
    assert await refusal(other_identity, Credentials(token=shown["old"])) == Code.UNAUTHORIZED
    later = Principal("acme", "ann", None, credential="token:x", issued_at=operator.now() + 1)
    assert verdict(identity, later) is None


async def test_a_users_revocation_is_never_taken_back(operator: Broker) -> None:
    """The brief: a revoke cannot be undone, also not by one whose clock is behind."""
    ahead = RevokedUser(tenant="acme", user_id="ann", until=operator.now() + 100)
    assert await put(operator, AUTH, ahead.subject, msgspec.json.encode(ahead), 0)
    await revoke_user(operator, "acme", "ann")
    entry = await get(operator, AUTH, ahead.subject)
    assert entry
    assert msgspec.json.decode(entry.data, type=RevokedUser) == ahead


async def test_one_token_can_be_revoked(identity: Identity, operator: Broker) -> None:
    """The brief: by its `jti`, in its tenant."""
    shown = [token(jti="one"), token(jti="two"), token(jti="one", tenant="globex")]
    one, two, foreign = [await identity.principal(Credentials(token=text)) for text in shown]
    async with running(identity):
        await revoke_token(operator, "acme", "one")
        await revoke_token(operator, "acme", "one")
        await until(lambda: verdict(identity, one) == Code.UNAUTHORIZED)
    assert verdict(identity, two) is None
    assert verdict(identity, foreign) is None


async def test_of_two_changes_at_once_none_is_lost(operator: Broker) -> None:
    """The brief: conditional, so that a revoke survives whatever happens beside it."""
    new = await create(operator)
    subject = f"auth.acme.key.{new.id}"
    names = [f"n{number}" for number in range(8)]

    async def add(name: str) -> None:
        def named(known: AnyEntry | None) -> AnyEntry:
            assert isinstance(known, ApiKey)
            return msgspec.structs.replace(known, name=known.name + name)

        await change(operator, subject, named)

    await asyncio.gather(*map(add, names), keys._revoke(operator, "acme", new.id))
    entry = await get(operator, AUTH, subject)
    assert entry
    key = msgspec.json.decode(entry.data, type=ApiKey)
    assert all(name in key.name for name in names)
    assert key.revoked_at


async def test_a_key_cannot_be_made_anew(operator: Broker) -> None:
    """The brief: what was revoked cannot be undone by a create."""
    new = await create(operator)
    await keys._revoke(operator, "acme", new.id)
    again = ApiKey(tenant="acme", id=new.id, hash=digest(new.text), user_id="ann", scopes=(), created_at=0)
    assert await put(operator, AUTH, again.subject, msgspec.json.encode(again), 0) is None


async def test_what_is_known_holds_while_the_broker_is_away(
    nats: NatsServer, identity: Identity, edge: Broker, operator: Broker
) -> None:
    """The brief; and what is not known cannot be told."""
    good, bad = await create(operator), await create(operator)
    await keys._revoke(operator, "acme", bad.id)
    known = await principal(identity, good.text)
    await nats.kill()
    await until(lambda: not edge.connected)
    async with running(identity):
        assert verdict(identity, known) is None
        assert await principal(identity, good.text) == known
        assert await identity.principal(Credentials(token=token()))
        assert await refusal(identity, Credentials(api_key=bad.text)) == Code.UNAUTHORIZED
        unknown = Credentials(api_key=NewKey.make().text)
        assert await refusal(identity, unknown) == Code.BROKER_UNAVAILABLE
        await nats.start()
        await until(lambda: edge.connected)
        assert await refusal(identity, unknown) == Code.UNAUTHORIZED


async def test_an_edge_that_never_saw_what_is_revoked_lets_nobody_in(nats: NatsServer, edge: Broker) -> None:
    """Our choice: closed in doubt, with a code that may be tried again."""
    await nats.kill()
    await until(lambda: not edge.connected)
    fresh = identity_of(edge)
    assert await refusal(fresh, Credentials(token=token())) == Code.BROKER_UNAVAILABLE
    assert verdict(fresh, Principal("acme", "ann", None, credential="token:x")) == Code.UNAUTHORIZED
