"""Tickets: what stands for credentials once, in a URL that others may write down.

A ticket is used by replacing it in stream TICKETS, on the condition that it is still what was read: of all edges and
requests one succeeds. Stored is its hash.
"""

from msgspec import json

from broker.append import LogFull, OutcomeUnknown
from broker.connect import Broker, Unavailable
from broker.entries import get, put
from contracts.credentials import TICKET_TTL, Ticket, UsedTicket, decode_ticket, new_ticket, ticket_subject
from contracts.errors import Code, MillraceError
from contracts.streams import TICKETS
from edge.principal import Principal

UNANSWERED = (Unavailable, OutcomeUnknown, TimeoutError)


async def issue(broker: Broker, principal: Principal) -> tuple[str, float]:
    """A ticket for somebody, and until when it may be used.

    Raises MillraceError `broker_unavailable` or `rate_limited`.
    """
    ticket, expires_at = new_ticket(), broker.now() + TICKET_TTL
    subject = ticket_subject(ticket)
    assert subject
    stored = Ticket(
        tenant=principal.tenant,
        user_id=principal.user_id,
        scopes=tuple(sorted(principal.scopes)),
        projects=None if principal.projects is None else tuple(sorted(principal.projects)),
        expires_at=principal.expires_at,
        credential=principal.credential,
        issued_at=principal.issued_at,
        ticket_expires_at=expires_at,
    )
    try:
        made = await put(broker, TICKETS, subject, json.encode(stored), 0)
    except LogFull:
        raise MillraceError(Code.RATE_LIMITED, "too many tickets wait to be used", retry_after=TICKET_TTL) from None
    except UNANSWERED:
        raise MillraceError(Code.BROKER_UNAVAILABLE) from None
    assert made, "a random ticket is there already"
    return ticket, expires_at


async def use(broker: Broker, ticket: str) -> Principal:
    """Whom the ticket lets in; it never does again.

    Raises MillraceError `unauthorized`, `token_expired` or `broker_unavailable`.
    """
    subject = ticket_subject(ticket)
    if subject is None:
        raise _refused()
    try:
        entry = await get(broker, TICKETS, subject)
        if entry is None:
            raise _refused()
        found = decode_ticket(entry.data)
        if not isinstance(found, Ticket):
            raise _refused()
        if found.ticket_expires_at <= broker.now():
            raise MillraceError(Code.TOKEN_EXPIRED, "the ticket has expired")
        if not await put(broker, TICKETS, subject, json.encode(UsedTicket(used_at=broker.now())), entry.seq):
            raise _refused()
    except (*UNANSWERED, LogFull):
        raise MillraceError(Code.BROKER_UNAVAILABLE) from None
    return Principal(
        tenant=found.tenant,
        user_id=found.user_id,
        expires_at=found.expires_at,
        scopes=frozenset(found.scopes),
        projects=None if found.projects is None else frozenset(found.projects),
        credential=found.credential,
        issued_at=found.issued_at,
    )


def _refused() -> MillraceError:
    return MillraceError(Code.UNAUTHORIZED, "the ticket is unknown or was used")
