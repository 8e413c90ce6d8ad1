"""API keys: who they let in."""

import asyncio
import time

import msgspec
import pytest

from broker import read as reading_log
from broker.connect import Broker
from broker.entries import put
from contracts.credentials import ApiKey, NewKey, digest
from contracts.errors import Code
from contracts.streams import AUTH
from edge.identity import Credentials, Identity, register
from tests.edge.identity.callers import create, principal, refusal, verdict
from tests.harness.nats_server import NatsServer

pytestmark = pytest.mark.anyio


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
