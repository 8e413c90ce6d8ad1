"""Tokens: what a client shows the edge, signed with the data directory's secret; and ending them early."""

import base64
import time
from pathlib import Path

import jwt
import msgspec
from msgspec import Struct

from broker.connect import Broker
from contracts.credentials import EVERY_PROJECT, SCOPES, AnyEntry, RevokedToken, RevokedUser, Scope, token_hash
from contracts.events import new_id
from contracts.subjects import is_token
from millrace.errors import CommandError
from millrace.operator import change

ISSUER = AUDIENCE = "millrace"


class Rights(Struct, frozen=True):
    """What credentials allow; None where they do not say, and defaults hold."""

    scopes: tuple[Scope, ...] | None = None
    projects: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, scopes: str | None, projects: str | None) -> "Rights":
        """Read `--scopes` and `--projects`: names between commas. Raises CommandError."""
        try:
            named = None if scopes is None else msgspec.convert(_names(scopes), tuple[Scope, ...])
        except msgspec.ValidationError:
            raise CommandError(f"--scopes {scopes!r:.80}: a scope is {', '.join(SCOPES)}") from None
        watched = None if projects is None else _names(projects)
        for project in watched or ():
            if project != EVERY_PROJECT:
                check_name("--projects", project)
        return cls(named, watched)


def sign(secret_file: Path, tenant: str, user: str, ttl: int, rights: Rights = Rights()) -> str:  # noqa: B008 - frozen
    """A token that says who somebody is, for `ttl` seconds. Raises CommandError."""
    check_name("--tenant", tenant)
    check_name("--user", user)
    try:
        secret = base64.b64decode(secret_file.read_text())
    except OSError:
        raise CommandError(f"{secret_file} cannot be read: run `millrace up`, or give --data") from None
    now = int(time.time())
    claims: dict[str, object] = {
        "sub": user,
        "tenant": tenant,
        "iat": now,
        "exp": now + ttl,
        "jti": new_id(),
        "iss": ISSUER,
        "aud": AUDIENCE,
    }
    if rights.scopes is not None:
        claims["scope"] = " ".join(rights.scopes)
    if rights.projects is not None:
        claims["projects"] = list(rights.projects)
    return jwt.encode(claims, secret, algorithm="HS256")


async def revoke_user(broker: Broker, tenant: str, user: str) -> None:
    """Refuse every token of a user that was issued up to now. What was revoked stays so."""
    revoked = RevokedUser(tenant=tenant, user_id=user, until=broker.now())

    def later(known: AnyEntry | None) -> AnyEntry | None:
        return None if isinstance(known, RevokedUser) and known.until >= revoked.until else revoked

    await change(broker, revoked.subject, later)


async def revoke_token(broker: Broker, tenant: str, jti: str) -> None:
    """Refuse the token with that `jti`, for ever."""
    revoked = RevokedToken(tenant=tenant, hash=token_hash(jti), revoked_at=broker.now())
    await change(broker, revoked.subject, lambda known: None if known else revoked)


def check_name(option: str, value: str) -> None:
    """Raises CommandError for what cannot stand in a subject."""
    if not is_token(value):
        raise CommandError(f"{option} {value!r:.80}: a name is [A-Za-z0-9_-]{{1,64}}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
