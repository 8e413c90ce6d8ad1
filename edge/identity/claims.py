"""Claims: what a token whose signature holds says of its bearer. Pure."""

from collections.abc import Iterable
from typing import Any

from contracts.config import Auth
from contracts.credentials import EVERY_PROJECT, LATEST, SCOPES, token_hash
from contracts.errors import Code, MillraceError
from contracts.subjects import is_token
from edge.principal import Principal


def principal(claims: dict[str, Any], auth: Auth, now: float, signed: str) -> Principal:
    """Whom the claims name. `signed`: the part of the token that its signature is for.

    Raises MillraceError `token_expired`, or `unauthorized` for whatever else does not hold.
    """
    _check_issuer(claims, auth)
    expires_at, issued_at = _check_times(claims, auth, now)
    names, jti = auth.claims, claims.get("jti")
    if jti is not None and not (isinstance(jti, str) and jti):
        raise refused("jti is not a text")
    return Principal(
        tenant=_name(claims, names.tenant),
        user_id=_name(claims, names.user),
        expires_at=expires_at,
        scopes=_scopes(reach(claims, names.scopes), auth),
        projects=_projects(reach(claims, names.projects), auth),
        credential=f"token:{token_hash(jti or signed)}",
        issued_at=issued_at,
    )


def reach(claims: dict[str, Any], path: str) -> object:
    """The claim of that name, or the one that its dots lead to; None where there is none."""
    if path in claims:
        return claims[path]
    head, _, rest = path.partition(".")
    below = claims.get(head)
    return reach(below, rest) if rest and isinstance(below, dict) else None


def projects(names: Iterable[object]) -> frozenset[str] | None:
    """The projects of a list, None for every one. Raises ValueError."""
    found: set[str] = set()
    every = False
    for name in names:
        if name == EVERY_PROJECT:
            every = True
        elif isinstance(name, str) and is_token(name):
            found.add(name)
        else:
            raise ValueError(f"not a project: {name!r:.80}")
    return None if every else frozenset(found)


def refused(why: str) -> MillraceError:
    """What is told of a token that is not believed."""
    return MillraceError(Code.UNAUTHORIZED, f"the token is not valid: {why}")


def _check_issuer(claims: dict[str, Any], auth: Auth) -> None:
    if claims.get("iss") != auth.issuer:
        raise refused("it is from another issuer")
    audience = claims.get("aud")
    if audience != auth.audience and not (isinstance(audience, list) and auth.audience in audience):
        raise refused("it is for another audience")


def _check_times(claims: dict[str, Any], auth: Auth, now: float) -> tuple[float, float | None]:
    expires_at, issued_at, not_before = (_time(claims, name) for name in ("exp", "iat", "nbf"))
    if expires_at is None:
        raise refused("exp is missing")
    if not_before is not None and not_before > now + auth.leeway:
        raise refused("its time has not come")
    if issued_at is not None and issued_at > now + auth.leeway:
        raise refused("it is from the future")
    if expires_at + auth.leeway <= now:
        raise MillraceError(Code.TOKEN_EXPIRED)
    return expires_at, issued_at


def _time(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LATEST:
        raise refused(f"{name} is not a time")
    return float(value)


def _name(claims: dict[str, Any], path: str) -> str:
    value = reach(claims, path)
    if not (isinstance(value, str) and is_token(value)):
        raise refused("it names no tenant and user [A-Za-z0-9_-]{1,64}")
    return value


def _scopes(value: object, auth: Auth) -> frozenset[str]:
    if value is None:
        return frozenset(auth.default_scopes)
    named = value.split() if isinstance(value, str) else value
    if not (isinstance(named, list) and all(isinstance(scope, str) for scope in named)):
        raise refused("the scopes are neither a text nor a list")
    return frozenset(named) & frozenset(SCOPES)


def _projects(value: object, auth: Auth) -> frozenset[str] | None:
    if value is None:
        return projects(auth.default_projects)
    if not isinstance(value, list):
        raise refused("the projects are not a list")
    try:
        return projects(value)
    except ValueError:
        raise refused("a project is not [A-Za-z0-9_-]{1,64}") from None
