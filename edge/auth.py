"""Identity: who a token says the caller is. Tenant and user come from here and from nowhere else."""

import base64
from pathlib import Path

import jwt

from contracts.errors import Code, MillraceError
from contracts.subjects import is_token
from edge.principal import Principal

__all__ = ["Principal", "Verifier", "bearer"]

ALGORITHM = "HS256"
AUDIENCE = "millrace"
ISSUER = "millrace"
LEEWAY = 2.0
"""Seconds that the issuer's clock may be wrong."""


class Verifier:
    """Checks tokens with one shared secret and one algorithm; what a token says of its algorithm counts for nothing."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    def from_file(cls, path: str) -> "Verifier":
        """A verifier with the base64 secret of that file. Raises OSError or ValueError."""
        return cls(base64.b64decode(Path(path).read_text().strip(), validate=True))

    def principal(self, token: str | None) -> Principal:
        """Who the token names. Raises MillraceError `unauthorized` or `token_expired`."""
        if not token:
            raise MillraceError(Code.UNAUTHORIZED, "a token is needed")
        try:
            claims = jwt.decode(
                token, self._secret, algorithms=[ALGORITHM], audience=AUDIENCE, issuer=ISSUER, leeway=LEEWAY
            )
        except jwt.ExpiredSignatureError:
            raise MillraceError(Code.TOKEN_EXPIRED) from None
        except jwt.InvalidTokenError:
            raise MillraceError(Code.UNAUTHORIZED, "the token is not valid") from None
        tenant, user_id = claims.get("tenant"), claims.get("sub")
        if not (isinstance(tenant, str) and isinstance(user_id, str) and is_token(tenant) and is_token(user_id)):
            raise MillraceError(Code.UNAUTHORIZED, "the token names no tenant and user [A-Za-z0-9_-]{1,64}")
        return Principal(tenant, user_id, claims.get("exp"))

    def __repr__(self) -> str:
        """Hide the secret."""
        return "Verifier()"


def bearer(authorization: str | None) -> str | None:
    """The token of an `Authorization` header."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
