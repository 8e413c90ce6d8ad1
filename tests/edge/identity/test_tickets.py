"""Tickets: single use over all edges, whatever happens on the way."""

import asyncio
import json
import time

import msgspec
import pytest

from broker import append as appending
from broker import entries
from broker.append import LogFull
from broker.connect import Broker, connect
from contracts import credentials
from contracts.credentials import Ticket, digest
from contracts.errors import Code, MillraceError
from edge.identity import Credentials, Identity, tickets
from edge.principal import Principal
from millrace.tokens import revoke_user
from tests.edge.identity.conftest import identity_of
from tests.edge.identity.issuer import token
from tests.harness.nats_server import NatsServer
from tests.harness.proxy import Proxy
from tests.harness.wait import until
from tests.harness.wire import Message

pytestmark = pytest.mark.anyio


async def ann(identity: Identity, **claims: object) -> Principal:
    """Somebody who came in with a token."""
    return await identity.principal(Credentials(token=token(**claims)))


async def verdict(identity: Identity, ticket: str) -> Code | None:
    """None for a ticket that lets somebody in, or the code that it is refused with."""
    try:
        await identity.principal(Credentials(ticket=ticket))
    except MillraceError as error:
        return error.code
    return None


async def test_a_ticket_lets_the_same_caller_in(identity: Identity, other_identity: Identity) -> None:
    """WIRE 1: a ticket of one edge is used at another."""
    principal = await ann(identity, jti="j", scope="read approve", projects=["p1"])
    ticket, expires_at = await identity.issue_ticket(principal)
    assert await other_identity.principal(Credentials(ticket=ticket)) == principal
    assert 25 < expires_at - time.time() <= 31


async def test_a_ticket_keeps_what_has_no_limit(identity: Identity) -> None:
    """Our choice: every project stays every project."""
    principal = await ann(identity)
    ticket, _ = await identity.issue_ticket(principal)
    assert principal.projects is None
    assert (await identity.principal(Credentials(ticket=ticket))).projects is None


async def test_a_ticket_is_used_once(identity: Identity, other_identity: Identity) -> None:
    """WIRE 1: single use, on every edge."""
    ticket, _ = await identity.issue_ticket(await ann(identity))
    assert await verdict(identity, ticket) is None
    assert await verdict(identity, ticket) == Code.UNAUTHORIZED
    assert await verdict(other_identity, ticket) == Code.UNAUTHORIZED


async def test_of_many_who_use_a_ticket_at_once_one_is_let_in(identity: Identity, other_identity: Identity) -> None:
    """Issue 3: decided by a conditional append, over two edges."""
    principal = await ann(identity)
    for _ in range(20):
        ticket, _ = await identity.issue_ticket(principal)
        verdicts = await asyncio.gather(
            *(verdict(edge, ticket) for edge in [identity, other_identity] for _ in range(5))
        )
        assert verdicts.count(None) == 1
        assert verdicts.count(Code.UNAUTHORIZED) == 9


@pytest.mark.parametrize("ticket", ["", "x", "a.b", ">", "*", "a" * 43, "a" * 44, "é" * 43, "\ud800" * 43, "a" * 70000])
async def test_what_was_never_issued_is_refused(identity: Identity, ticket: str) -> None:
    """Our choice: unauthorized, whatever it looks like."""
    assert await verdict(identity, ticket) == Code.UNAUTHORIZED


async def test_what_is_stored_is_not_what_lets_in(nats: NatsServer, identity: Identity) -> None:
    """FACTS 4: stored hashed."""
    ticket, _ = await identity.issue_ticket(await ann(identity))
    client = await nats.client("edge")
    asked = json.dumps({"last_by_subj": f"ticket.{digest(ticket)}"}).encode()
    answer = await client.request("$JS.API.STREAM.MSG.GET.TICKETS", asked)
    await client.close()
    stored = msgspec.json.decode(answer.data)["message"]
    assert "data" in stored
    assert ticket not in answer.data.decode()
    assert await verdict(identity, digest(ticket)[:43]) == Code.UNAUTHORIZED


async def test_a_ticket_expires(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    """WIRE 1: after thirty seconds; it is known as long as it may be used."""
    monkeypatch.setattr(tickets, "TICKET_TTL", 0.0)
    ticket, _ = await identity.issue_ticket(await ann(identity))
    assert await verdict(identity, ticket) == Code.TOKEN_EXPIRED
    assert credentials.TICKET_TTL == 30.0


async def test_a_ticket_of_a_token_that_has_expired_lets_nobody_in(identity: Identity, edge: Broker) -> None:
    """The brief: the principal keeps the credential's expiry."""
    expired = Principal("acme", "ann", edge.now() - 3, credential="token:x", issued_at=0.0)
    ticket, _ = await tickets.issue(edge, expired)
    assert await verdict(identity, ticket) == Code.TOKEN_EXPIRED
    with pytest.raises(MillraceError) as refused:
        await identity.issue_ticket(expired)
    assert refused.value.code == Code.TOKEN_EXPIRED


async def test_a_ticket_of_credentials_that_were_revoked_lets_nobody_in(
    identity: Identity, edge: Broker, operator: Broker
) -> None:
    """The brief: the principal keeps the credential it came from."""
    ticket, _ = await identity.issue_ticket(await ann(identity))
    await revoke_user(operator, "acme", "ann")
    assert await verdict(identity_of(edge), ticket) == Code.UNAUTHORIZED


async def test_without_a_broker_nobody_is_told_that_a_ticket_is_bad(
    nats: NatsServer, identity: Identity, edge: Broker
) -> None:
    """WIRE: retryable."""
    principal = await ann(identity)
    ticket, _ = await identity.issue_ticket(principal)
    await nats.kill()
    await until(lambda: not edge.connected)
    assert await verdict(identity, ticket) == Code.BROKER_UNAVAILABLE
    with pytest.raises(MillraceError) as refused:
        await identity.issue_ticket(principal)
    assert refused.value.code == Code.BROKER_UNAVAILABLE


async def test_when_too_many_tickets_wait_the_caller_is_asked_to_wait(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WIRE: a rate limit says how long."""

    async def full(*_: object) -> int:
        raise LogFull

    principal = await ann(identity)
    monkeypatch.setattr(tickets, "put", full)
    with pytest.raises(MillraceError) as refused:
        await identity.issue_ticket(principal)
    assert refused.value.code == Code.RATE_LIMITED
    assert refused.value.details == {"retry_after": 30.0}


async def test_a_use_whose_answer_is_lost_succeeds_once(
    nats: NatsServer, proxy: Proxy, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DESIGN, Appending: an unknown outcome is resolved, and never taken for a refusal or a success."""
    monkeypatch.setattr(appending, "ATTEMPT_TIMEOUT", 0.2)
    ticket, _ = await identity.issue_ticket(await ann(identity))
    async with connect(proxy.url, "edge", seed_file=nats.seed("edge")) as broker:
        away = identity_of(broker)
        await ann(away)
        dropped: list[Message] = []

        def first_ack(message: Message) -> bool:
            if b'"stream":"TICKETS"' in message.data and not dropped:
                dropped.append(message)
                return True
            return False

        proxy.drop = first_ack
        assert await verdict(away, ticket) is None
    assert len(dropped) == 1
    assert await verdict(identity, ticket) == Code.UNAUTHORIZED


async def test_a_use_that_stays_unknown_is_no_success(
    nats: NatsServer, proxy: Proxy, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our choice: closed in doubt, with a code that says so."""
    monkeypatch.setattr(appending, "ATTEMPT_TIMEOUT", 0.05)
    monkeypatch.setattr(entries, "DECIDED_WITHIN", 0.2)
    ticket, _ = await identity.issue_ticket(await ann(identity))
    async with connect(proxy.url, "edge", seed_file=nats.seed("edge")) as broker:
        away = identity_of(broker)
        await ann(away)

        def cut(message: Message) -> None:
            if message.subject.startswith("ticket.") and b"used" in message.data:
                proxy.refusing = True
                proxy.cut()

        proxy.before_publish = cut
        assert await verdict(away, ticket) == Code.BROKER_UNAVAILABLE


async def test_a_ticket_is_not_used_by_a_message_of_another_kind(identity: Identity, edge: Broker) -> None:
    """Our choice: what takes a ticket's place has a tag of its own."""
    ticket, _ = await identity.issue_ticket(await ann(identity))
    subject = credentials.ticket_subject(ticket)
    assert subject
    entry = await entries.get(edge, "TICKETS", subject)
    assert entry
    assert isinstance(credentials.decode_ticket(entry.data), Ticket)
    assert await verdict(identity, ticket) is None
    used = await entries.get(edge, "TICKETS", subject)
    assert used
    assert isinstance(credentials.decode_ticket(used.data), credentials.UsedTicket)
    assert used.seq > entry.seq
