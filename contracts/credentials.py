"""Credentials: API keys, what was revoked, and tickets, as the streams AUTH and TICKETS keep them.

    mr_<id>_<secret>      an API key: a public id and 256 random bits; stored is only its hash

What names its own subject is believed only where it stands there.
"""

import hashlib
import hmac
import re
import secrets
from typing import Literal, Self, get_args

import msgspec
from msgspec import Struct

from contracts import subjects

Scope = Literal["read", "write", "approve", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

EVERY_PROJECT = "*"
LATEST = 253_402_300_799.0
"""The last second of the year 9999: no time of a credential is later."""

TICKET_TTL = 30.0
"""Seconds in which a ticket may be used."""

_KEY = re.compile(r"mr_([0-9a-f]{24})_([0-9a-f]{64})")
_KEY_ID = re.compile(r"[0-9a-f]{24}")
_TICKET = re.compile(r"[A-Za-z0-9_-]{43}")


class Entry(Struct, frozen=True, kw_only=True, tag_field="kind", omit_defaults=True):
    """Base of what AUTH keeps: one message for each subject, the newest."""

    tenant: str


class ApiKey(Entry, frozen=True, kw_only=True, tag="key"):
    """An API key, revoked or not. Times: Unix seconds. `projects` None: every one of the tenant."""

    id: str
    user_id: str
    hash: str
    scopes: tuple[Scope, ...]
    created_at: float
    projects: tuple[str, ...] | None = None
    name: str = ""
    expires_at: float | None = None
    revoked_at: float | None = None

    @property
    def subject(self) -> str:
        """Where it is kept."""
        return subjects.auth(self.tenant, "key", self.id)

    def opens_with(self, key: str) -> bool:
        """Whether `key` is this one; takes as long whatever is wrong with it."""
        return hmac.compare_digest(self.hash, digest(key))

    def __repr__(self) -> str:
        """Hide the hash."""
        return f"ApiKey({self.tenant}, {self.id}, {self.user_id})"


class RevokedUser(Entry, frozen=True, kw_only=True, tag="user"):
    """Tokens of that user which were issued at `until` or before are refused, and those that do not say when."""

    user_id: str
    until: float

    @property
    def subject(self) -> str:
        """Where it is kept."""
        return subjects.auth(self.tenant, "user", self.user_id)


class RevokedToken(Entry, frozen=True, kw_only=True, tag="token"):
    """One token is refused, for ever. `hash` is that of its `jti` (`token_hash`)."""

    hash: str
    revoked_at: float

    @property
    def subject(self) -> str:
        """Where it is kept."""
        return subjects.auth(self.tenant, "token", self.hash)


AnyEntry = ApiKey | RevokedUser | RevokedToken


class Ticket(Struct, frozen=True, kw_only=True, tag_field="kind", tag="ticket"):
    """A ticket that was not used yet, and whom it lets in. `expires_at`: of the credentials that it was made with."""

    tenant: str
    user_id: str
    scopes: tuple[str, ...]
    projects: tuple[str, ...] | None
    expires_at: float | None
    credential: str
    issued_at: float | None
    ticket_expires_at: float


class UsedTicket(Struct, frozen=True, kw_only=True, tag_field="kind", tag="used"):
    """What takes a ticket's place."""

    used_at: float


_entry = msgspec.json.Decoder(AnyEntry)
_ticket = msgspec.json.Decoder(Ticket | UsedTicket)


def decode_entry(subject: str, data: bytes) -> AnyEntry:
    """What is kept at that subject. Raises ValueError where it cannot be read or belongs somewhere else."""
    entry: AnyEntry = _entry.decode(data)
    if entry.subject != subject:
        raise ValueError(f"not the entry of {subject}")
    return entry


def decode_ticket(data: bytes) -> Ticket | UsedTicket:
    """What is kept of a ticket. Raises ValueError."""
    ticket: Ticket | UsedTicket = _ticket.decode(data)
    return ticket


class NewKey(Struct, frozen=True):
    """An API key that was just made. `text` is shown once and never stored."""

    id: str
    text: str

    @classmethod
    def make(cls) -> Self:
        """A random key."""
        key_id = secrets.token_hex(12)
        return cls(key_id, f"mr_{key_id}_{secrets.token_hex(32)}")

    def __repr__(self) -> str:
        """Hide the key."""
        return f"NewKey({self.id})"


def key_id(key: str) -> str | None:
    """The id of an API key, or None where it is none."""
    found = _KEY.fullmatch(key)
    return found[1] if found else None


def is_key_id(text: str) -> bool:
    """Whether an API key may have this id."""
    return _KEY_ID.fullmatch(text) is not None


def digest(text: str) -> str:
    """The SHA-256 of a random secret. It has 256 bits, so a slow hash would add nothing."""
    return hashlib.sha256(text.encode()).hexdigest()


def token_hash(text: str) -> str:
    """What a token is named by: of its `jti`, or of itself where it has none."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def new_ticket() -> str:
    """256 random bits that may stand in a URL."""
    return secrets.token_urlsafe(32)


def ticket_subject(ticket: str) -> str | None:
    """Where a ticket waits, or None where it is none."""
    return subjects.ticket(digest(ticket)) if _TICKET.fullmatch(ticket) else None
