"""Tokens: what a client shows the edge, signed with the data directory's secret."""

import base64
import time
from pathlib import Path

import jwt

from contracts.subjects import is_token
from millrace.errors import CommandError

ISSUER = AUDIENCE = "millrace"


def sign(secret_file: Path, tenant: str, user: str, ttl: int) -> str:
    """A token that says who somebody is, for `ttl` seconds. Raises CommandError."""
    for name, value in (("tenant", tenant), ("user", user)):
        if not is_token(value):
            raise CommandError(f"--{name} {value!r:.80}: a name is [A-Za-z0-9_-]{{1,64}}")
    try:
        secret = base64.b64decode(secret_file.read_text())
    except OSError:
        raise CommandError(f"{secret_file} cannot be read: run `millrace up`, or give --data") from None
    now = int(time.time())
    claims = {
        "sub": user,
        "tenant": tenant,
        "iat": now,
        "exp": now + ttl,
        "iss": ISSUER,
        "aud": AUDIENCE,
    }
    return jwt.encode(claims, secret, algorithm="HS256")
