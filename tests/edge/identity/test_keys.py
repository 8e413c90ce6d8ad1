"""API keys and revocation, at every edge."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from broker import read as reading_log
from broker.connect import Broker
from broker.entries import get, put
from contracts.credentials import AnyEntry, ApiKey, NewKey, RevokedUser, digest
from contracts.errors import Code, MillraceError
from contracts.streams import AUTH
from edge.identity import Credentials, Identity, register
from edge.principal import Principal
from millrace import keys
from millrace.operator import change
from millrace.tokens import revoke_token, revoke_user
from tests.edge.identity.conftest import identity_of
from tests.edge.identity.issuer import MISSING, token
from tests.harness.nats_server import NatsServer
from tests.harness.wait import until

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def running(identity: Identity) -> AsyncIterator[None]:
    """What an edge does in the background, until the block ends."""
    task = asyncio.create_task(identity.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])


async def create(operator: Broker, tenant: str = "acme", **more: object) -> NewKey:
    """A new key of ann's."""
    new = NewKey.make()
    members = {"user_id": "ann", "scopes": ("read",), "created_at": operator.now(), **more}
    key = ApiKey(tenant=tenant, id=new.id, hash=digest(new.text), **members)  # type: ignore[arg-type]
    assert await put(operator, AUTH, key.subject, msgspec.json.encode(key), 0)
    return new


async def principal(identity: Identity, key: str) -> Principal:
    """Whom a key lets in."""
    return await identity.principal(Credentials(api_key=key))


async def refusal(identity: Identity, shown: Credentials) -> Code:
    """The code that somebody is refused with."""
    with pytest.raises(MillraceError) as refused:
        await identity.principal(shown)
    return refused.value.code


def verdict(identity: Identity, known: Principal) -> Code | None:
    """None for somebody whose credentials hold, or the code that says why not."""
    try:
        identity.check(known)
    except MillraceError as error:
        return error.code
    return None


async def test_a_key_lets_its_user_in(identity: Identity, operator: Broker) -> None:
    """WIRE 1: `X-API-Key`."""
    new = await create(operator, scopes=("read", "approve"), projects=("p1",), expires_at=operator.now() + 60)
    found = await principal(identity, new.text)
    assert (found.tenant, found.user_id, found.credential) == ("acme", "ann", f"key:{new.id}")
    assert found.scopes == {"read", "approve"}
    assert found.projects == frozenset({"p1"})
    assert found.expires_at
    assert 0 < found.expires_at - time.time() <= 61


async def test_a_new_key_works_at_once(identity: Identity, operator: Broker) -> None:
    """The brief: an unknown key is looked for."""
    for _ in range(3):
        assert await principal(identity, (await create(operator)).text)


async def test_a_key_that_is_made_while_the_edge_looks_is_found(
    identity: Identity, operator: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our choice: a look that began before the question does not answer it."""
    await identity._register.ready()
    reading, release = asyncio.Event(), asyncio.Event()
    real = reading_log.last

    async def slow(broker: Broker, subject: str, stream: str) -> int:
        upto = await real(broker, subject, stream)
        reading.set()
        await release.wait()
        return upto

    monkeypatch.setattr(register, "last", slow)
    looking = asyncio.create_task(identity._register._reading.now())
    await reading.wait()
    asking = asyncio.create_task(principal(identity, (await create(operator)).text))
    release.set()
    await looking
    assert await asking


@pytest.mark.parametrize(
    "key", ["", "x", "mr_", f"mr_{'a' * 24}_{'b' * 64}", f"mr_{'*' * 24}_{'b' * 64}", "mr_é_x", "\ud800", "m" * 70000]
)
async def test_a_key_that_was_never_made_is_refused(identity: Identity, key: str) -> None:
    """Our choice: unauthorized, whatever it looks like."""
    assert await refusal(identity, Credentials(api_key=key)) == Code.UNAUTHORIZED


async def test_the_right_id_with_another_secret_is_refused(identity: Identity, operator: Broker) -> None:
    """The secret is what counts, of all keys only its own."""
    new, other = await create(operator), await create(operator, "globex")
    wrong = [new.text[:-1] + ("0" if new.text[-1] != "0" else "1"), f"mr_{new.id}_{other.text[28:]}", new.text + "0"]
    wrong += [new.text.upper(), f"mr_{new.id}_", digest(new.text), f"mr_{new.id}_{digest(new.text)}"]
    for text in wrong:
        assert await refusal(identity, Credentials(api_key=text)) == Code.UNAUTHORIZED
    assert await principal(identity, new.text)


async def test_a_key_of_another_tenant_lets_in_nowhere_else(identity: Identity, operator: Broker) -> None:
    """P10: the tenant is where the key is kept."""
    new = await create(operator, "globex")
    assert (await principal(identity, new.text)).tenant == "globex"


async def test_an_entry_that_stands_elsewhere_is_not_believed(identity: Identity, operator: Broker) -> None:
    """P10: what an entry says of its place must be its place."""
    new = NewKey.make()
    key = ApiKey(
        tenant="acme", id=new.id, hash=digest(new.text), user_id="ann", scopes=("admin",), created_at=operator.now()
    )
    for subject in (f"auth.globex.key.{new.id}", f"auth.acme.key.{'a' * 24}", "auth.acme.user.ann"):
        assert await put(operator, AUTH, subject, msgspec.json.encode(key), 0)
    assert await refusal(identity, Credentials(api_key=new.text)) == Code.UNAUTHORIZED


async def test_an_entry_that_cannot_be_read_harms_no_other(identity: Identity, operator: Broker) -> None:
    """Our choice: it is told of, and passed over."""
    assert await put(operator, AUTH, f"auth.acme.key.{'b' * 24}", b'{"kind": "later"}', 0)
    assert await principal(identity, (await create(operator)).text)


async def test_a_key_expires(identity: Identity, operator: Broker) -> None:
    """Issue 3: expiring; the broker's clock counts, without leeway."""
    new = await create(operator, expires_at=operator.now() - 1)
    assert await refusal(identity, Credentials(api_key=new.text)) == Code.TOKEN_EXPIRED
    known = await principal(identity, (await create(operator, expires_at=operator.now() + 60)).text)
    assert verdict(identity, known) is None
    assert verdict(identity, msgspec.structs.replace(known, expires_at=operator.now() - 1)) == Code.TOKEN_EXPIRED


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


async def test_after_a_restore_everything_is_read_again(nats: NatsServer, identity: Identity, operator: Broker) -> None:
    """Our choice: a stream whose sequences begin anew has forgotten, and so does the edge."""
    lost = [await create(operator) for _ in range(3)]
    await principal(identity, lost[0].text)
    provisioner = await nats.client("provisioner")
    await provisioner.request("$JS.API.STREAM.DELETE.AUTH")
    await provisioner.close()
    await nats.provision()
    new = await create(operator)
    assert await principal(identity, new.text)
    assert await refusal(identity, Credentials(api_key=lost[0].text)) == Code.UNAUTHORIZED


async def test_many_entries_are_all_read(identity: Identity, operator: Broker) -> None:
    """Our choice: page by page."""
    made = [await create(operator) for _ in range(600)]
    assert await principal(identity, made[0].text)
    assert await principal(identity, made[-1].text)


async def test_without_credentials_nobody_is_let_in(identity: Identity) -> None:
    """WIRE: `unauthorized`."""
    assert await refusal(identity, Credentials()) == Code.UNAUTHORIZED


async def test_nothing_secret_is_shown_of_what_holds_it(identity: Identity, operator: Broker) -> None:
    """STYLE R14: types that carry secrets hide them."""
    new = await create(operator)
    key = identity._register._known and (await identity._register.key(new.id))
    shown = f"{new} {identity} {identity._tokens} {key} {Credentials(api_key=new.text)}"
    assert new.text[28:] not in shown
    assert digest(new.text) not in shown
