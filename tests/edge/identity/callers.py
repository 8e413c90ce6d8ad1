"""Who comes to an edge: with a new key, and what becomes of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from broker.connect import Broker
from broker.entries import put
from contracts.credentials import ApiKey, NewKey, digest
from contracts.errors import Code, MillraceError
from contracts.streams import AUTH
from edge.identity import Credentials, Identity
from edge.principal import Principal


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
