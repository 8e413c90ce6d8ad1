"""Tokens: JWTs, signed with the shared secret (HS256) or with a key of the issuer's JWKS.

Each key has one algorithm; what a token says of its own only has to agree. A token's `kid` is looked up among the keys
that are known, and is nothing else: no path, no address. A public key is never a secret.
"""

import asyncio
import base64
import logging
import re
from pathlib import Path
from typing import Any

import jwt
import msgspec
from msgspec import Struct

from contracts.config import Auth
from contracts.errors import Code, MillraceError
from edge.identity import claims, fetch, jwks
from edge.identity.claims import refused
from edge.identity.jwks import Key
from edge.identity.refresh import Refresh
from edge.principal import Principal

logger = logging.getLogger(__name__)

MOST_CHARACTERS = 16 * 1024
"""The longest token that is looked at."""

UNKNOWN_KEY_EVERY = 10.0
"""Seconds between two fetches because of an unknown `kid`: anybody can make one up."""

RETRY = 10.0
"""Seconds until the next try where a document could not be had."""

SECRET_BYTES = 32
"""RFC 7518, 3.2: no shorter secret than the hash."""

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_TYPES = frozenset({"jwt", "at+jwt"})


class _Header(Struct):
    alg: str
    kid: str | None = None
    typ: str = "JWT"


_header = msgspec.json.Decoder(_Header)
_claims = msgspec.json.Decoder(dict[str, Any])
_jws = jwt.PyJWS()


class Tokens:
    """Verifies tokens. `keys` None: no document was read yet."""

    def __init__(self, auth: Auth, secret: bytes | None, keys: tuple[Key, ...] | None = None) -> None:
        self._auth = auth
        self._secret = secret
        self._keys = keys
        self._fetching = Refresh(self._fetch, lambda: UNKNOWN_KEY_EVERY)

    @classmethod
    def open(cls, auth: Auth, secret_file: str) -> "Tokens":
        """Read the secret, and the JWKS where it is a file; from a URL it comes with `run`, or the first token.

        Raises OSError or ValueError where they cannot be used, and where there is neither.
        """
        secret = read_secret(secret_file) if secret_file else None
        claims.projects(auth.default_projects)
        if auth.jwks is None:
            if secret is None:
                raise ValueError("there is neither a secret nor a JWKS to verify tokens with")
            return cls(auth, secret)
        if fetch.is_url(auth.jwks):
            fetch.check_url(auth.jwks)
            return cls(auth, secret)
        if not (keys := jwks.parse(fetch.fetch(auth.jwks))):
            raise ValueError(f"{auth.jwks}: no key in it can be used")
        return cls(auth, secret, keys)

    async def principal(self, token: str, now: float) -> Principal:
        """Whom the token names. Raises MillraceError `unauthorized` or `token_expired`.

        `broker_unavailable` where the issuer's keys were never to be had: the token may be good.
        """
        header = _read_header(token)
        said = self._verified(token, header)
        if said is None and self._auth.jwks:
            await self._fetch_missing()
            said = self._verified(token, header)
        if said is None:
            if self._auth.jwks and self._keys is None:
                raise MillraceError(Code.BROKER_UNAVAILABLE, "the issuer's keys cannot be had now")
            raise refused("no key is known for it")
        return claims.principal(said, self._auth, now, token.rpartition(".")[0])

    def _verified(self, token: str, header: _Header) -> dict[str, Any] | None:
        """The claims, or None where the key for them is not known. Raises MillraceError where they are not signed."""
        if self._secret is not None and header.alg == "HS256" and not (header.kid and self._auth.jwks):
            return _decode(token, self._secret, "HS256")
        key = jwks.choose(self._keys or (), header.kid)
        if key is None:
            return None
        if key.algorithm != header.alg:
            raise refused("its key has another algorithm")
        return _decode(token, key.public, key.algorithm)

    async def _fetch_missing(self) -> None:
        try:
            await self._fetching.if_due()
        except (OSError, ValueError) as error:
            logger.warning("the JWKS cannot be read", extra={"reason": _reason(error)})

    async def _fetch(self) -> None:
        assert self._auth.jwks
        keys = jwks.parse(await asyncio.to_thread(fetch.fetch, self._auth.jwks))
        if self._keys is None or {key.kid for key in keys} != {key.kid for key in self._keys}:
            logger.info("keys of the issuer", extra={"kids": [key.kid for key in keys]})
        self._keys = keys

    async def run(self) -> None:
        """Read the JWKS again and again; what was known stays until a newer document is there. Runs for ever."""
        while self._auth.jwks:
            wait = min(RETRY, self._auth.jwks_refresh)
            try:
                await self._fetching.now()
                wait = self._auth.jwks_refresh
            except (OSError, ValueError) as error:
                logger.warning("the JWKS cannot be read", extra={"reason": _reason(error)})
            except Exception:
                logger.exception("the JWKS cannot be read")
            await asyncio.sleep(wait)

    async def close(self) -> None:
        """Wait for no document any more."""
        await self._fetching.cancel()

    def __repr__(self) -> str:
        """Hide the secret."""
        return "Tokens()"


def read_secret(path: str) -> bytes:
    """The base64 secret of a file. Raises OSError or ValueError."""
    secret = base64.b64decode(Path(path).read_text().strip(), validate=True)
    if len(secret) < SECRET_BYTES:
        raise ValueError(f"{path}: the secret has fewer than {SECRET_BYTES} bytes")
    return secret


def _read_header(token: str) -> _Header:
    if len(token) > MOST_CHARACTERS or not _COMPACT.fullmatch(token):
        raise refused("it is no JWT")
    encoded = token.partition(".")[0]
    try:
        header = _header.decode(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (ValueError, RecursionError):
        raise refused("it is no JWT") from None
    if header.typ.lower().removeprefix("application/") not in _TYPES:
        raise refused("it is another kind of token")
    return header


def _decode(token: str, key: bytes | jwt.PyJWK, algorithm: str) -> dict[str, Any]:
    try:
        payload = _jws.decode_complete(token, key, algorithms=[algorithm])["payload"]
        said: dict[str, Any] = _claims.decode(payload)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise refused("its signature does not hold") from None
    return said


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]
