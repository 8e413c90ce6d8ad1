"""JWKS: the public keys of an issuer (RFC 7517). Pure.

A key's algorithm is fixed when the document is read: by its `alg`, else by its kind. A token chooses a key by
`kid` and never how it is used. What is no public key to verify signatures with is left out: shared secrets, private
keys, keys for encryption, RSA keys that are too short.
"""

import logging
from typing import Any

import jwt
import msgspec
from msgspec import Struct

logger = logging.getLogger(__name__)

Kind = tuple[str, str | None]
"""`kty` and `crv`."""

ALGORITHMS: dict[str, Kind] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", None)),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}
"""Every algorithm that is taken, and the kind of key that it is for."""

DEFAULTS: dict[Kind, str] = {
    ("RSA", None): "RS256",
    ("EC", "P-256"): "ES256",
    ("EC", "P-384"): "ES384",
    ("EC", "P-521"): "ES512",
    ("OKP", "Ed25519"): "EdDSA",
}

RSA_BITS = 2048


class Key(Struct, frozen=True):
    """A public key and the one algorithm that it is used with."""

    kid: str | None
    algorithm: str
    public: jwt.PyJWK


class _Document(Struct):
    keys: list[Any]


def parse(document: bytes) -> tuple[Key, ...]:
    """The keys of a document that can be used. Raises ValueError where it is none; of two with one `kid`, the first."""
    try:
        listed = msgspec.json.decode(document, type=_Document).keys
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise ValueError("not a JWKS document") from None
    found: list[Key] = []
    for jwk in listed:
        try:
            key = _key(jwk)
            if any(key.kid == other.kid is not None for other in found):
                raise ValueError("its kid is another key's")
            found.append(key)
        except ValueError as error:
            logger.warning("a key of the JWKS is left out", extra={"reason": str(error)})
    return tuple(found)


def choose(keys: tuple[Key, ...], kid: str | None) -> Key | None:
    """The key of that id; without an id the only key there is."""
    if kid is None:
        return keys[0] if len(keys) == 1 else None
    return next((key for key in keys if key.kid == kid), None)


def _key(jwk: object) -> Key:
    if not isinstance(jwk, dict):
        raise ValueError("not an object")
    kind = _kind(jwk)
    algorithm = jwk.get("alg", DEFAULTS.get(kind))
    if not isinstance(algorithm, str) or ALGORITHMS.get(algorithm) != kind:
        raise ValueError("its kind, or its algorithm for its kind, is not one that is taken")
    if "d" in jwk:
        raise ValueError("a private key")
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("not for signatures")
    kid = jwk.get("kid")
    if not (kid is None or isinstance(kid, str)):
        raise ValueError("its kid is not a text")
    return Key(kid, algorithm, _public(jwk, algorithm))


def _kind(jwk: dict[str, Any]) -> Kind:
    kty, curve = jwk.get("kty"), jwk.get("crv")
    if not isinstance(kty, str) or not (curve is None or isinstance(curve, str)):
        raise ValueError("not a kind of key")
    return kty, None if kty == "RSA" else curve


def _public(jwk: dict[str, Any], algorithm: str) -> jwt.PyJWK:
    try:
        public = jwt.PyJWK(jwk, algorithm)
    except (jwt.PyJWTError, TypeError, ValueError, KeyError, AttributeError, OverflowError):
        raise ValueError("malformed") from None
    if getattr(public.key, "key_size", RSA_BITS) < RSA_BITS and jwk["kty"] == "RSA":
        raise ValueError(f"shorter than {RSA_BITS} bits")
    return public
