"""Tokens: what is believed, and every way in which one was ever forged."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from contracts.config import Auth
from contracts.errors import Code, MillraceError
from edge.identity import jwks
from edge.identity.tokens import MOST_CHARACTERS, Tokens
from edge.principal import Principal
from tests.edge.identity.issuer import MISSING, SECRET, claims, document, jwk, part, pem, private_jwk, signed, token

pytestmark = pytest.mark.anyio

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
SECRET_ONLY = Tokens(Auth(), SECRET)


def with_keys(*keys: object, secret: bytes | None = None) -> Tokens:
    """A verifier with those keys of an issuer whose document is not to be had again."""
    return Tokens(Auth(jwks="/nowhere/jwks.json"), secret, jwks.parse(document(*keys)))


async def principal(tokens: Tokens, text: str) -> Principal:
    """Whom a token names now."""
    return await tokens.principal(text, time.time())


async def refusal(tokens: Tokens, text: str) -> Code:
    """The code that a token is refused with."""
    with pytest.raises(MillraceError) as refused:
        await principal(tokens, text)
    return refused.value.code


async def test_a_token_of_the_secret_names_tenant_and_user() -> None:
    """WIRE 6: `millrace token` prints one."""
    said = await principal(SECRET_ONLY, token(exp=int(time.time()) + 60, iat=1000, jti="j"))
    assert (said.tenant, said.user_id, said.issued_at) == ("acme", "ann", 1000.0)
    assert said.credential == "token:189f40034be7a199f1fa9891668ee3ab"


async def test_two_tokens_without_an_id_are_told_apart() -> None:
    """The brief: the credential is the token's id, or its hash."""
    one, other = token(iat=1), token(iat=2)
    assert (await principal(SECRET_ONLY, one)).credential != (await principal(SECRET_ONLY, other)).credential
    assert (await principal(SECRET_ONLY, one)).credential == (await principal(SECRET_ONLY, one)).credential


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_token_of_an_issuers_key_is_believed(algorithm: str) -> None:
    """Issue 3: RS256, ES256 and EdDSA, and what else the key itself says."""
    tokens = with_keys(jwk(algorithm), jwk("ES256" if algorithm != "ES256" else "RS256", "k2"))
    assert (await principal(tokens, token(algorithm, "k1"))).user_id == "ann"


@pytest.mark.parametrize(("algorithm", "default"), [("RS256", "RS256"), ("ES384", "ES384"), ("EdDSA", "EdDSA")])
async def test_a_key_that_names_no_algorithm_has_the_one_of_its_kind(algorithm: str, default: str) -> None:
    """RFC 7517: `alg` is optional."""
    (key,) = jwks.parse(document(jwk(algorithm, alg=MISSING)))
    assert key.algorithm == default


async def test_the_secret_and_a_key_may_both_be_believed() -> None:
    """Our choice: `millrace token` goes on working beside an issuer."""
    tokens = with_keys(jwk("RS256"), secret=SECRET)
    assert await principal(tokens, token())
    assert await principal(tokens, token("RS256", "k1"))
    assert await principal(tokens, token("RS256"))


async def test_without_a_key_id_the_only_key_is_meant() -> None:
    """Our choice: of several none is."""
    assert await principal(with_keys(jwk("RS256")), token("RS256"))
    assert await refusal(with_keys(jwk("RS256"), jwk("ES256", "k2")), token("RS256")) == Code.UNAUTHORIZED


@pytest.mark.parametrize(
    "kid", ["k9", "../../dev/null", "/etc/passwd", "http://evil/jwks", "'; drop table", "x" * 5000]
)
async def test_a_key_id_is_only_looked_up(kid: str) -> None:
    """OWASP: `kid` is no path, no address and no query."""
    assert await refusal(with_keys(jwk("RS256")), token("RS256", kid)) == Code.UNAUTHORIZED
    forged = signed({"alg": "HS256", "kid": kid}, claims(), b"")
    assert await refusal(with_keys(jwk("RS256"), secret=SECRET), forged) == Code.UNAUTHORIZED


async def test_a_key_id_that_is_not_known_is_not_the_secrets() -> None:
    """Our choice: beside an issuer, a token with a key id is the issuer's; without one there is nothing to look up."""
    text = token("HS256", "k9")
    assert await refusal(with_keys(jwk("RS256"), secret=SECRET), text) == Code.UNAUTHORIZED
    assert await principal(SECRET_ONLY, text)


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", "HS384", "HS512", "RS256", "hs256"])
async def test_a_token_cannot_choose_its_algorithm(alg: str) -> None:
    """RFC 8725, 3.1: one algorithm for each key."""
    header = {"alg": alg, "typ": "JWT"}
    assert await refusal(SECRET_ONLY, signed(header, claims())) == Code.UNAUTHORIZED
    assert await refusal(SECRET_ONLY, f"{part(header)}.{part(claims())}.") == Code.UNAUTHORIZED
    assert await refusal(with_keys(jwk("RS256")), f"{part(header)}.{part(claims())}.{part(b'x')}") == Code.UNAUTHORIZED


@pytest.mark.parametrize("kid", [None, "k1"])
@pytest.mark.parametrize("secret", [None, SECRET], ids=["issuer", "issuer and secret"])
async def test_a_public_key_is_no_secret(kid: str | None, secret: bytes | None) -> None:
    """RFC 8725, 2.1: the key that everybody has would sign whatever anybody wants."""
    header = {"alg": "HS256", "kid": kid} if kid else {"alg": "HS256"}
    for known in (pem("RS256"), json.dumps(jwk("RS256")).encode()):
        assert (
            await refusal(with_keys(jwk("RS256"), secret=secret), signed(header, claims(), known)) == Code.UNAUTHORIZED
        )


async def test_a_key_is_used_with_no_algorithm_but_its_own() -> None:
    """RFC 8725, 3.1: also not with another that would fit."""
    assert await refusal(with_keys(jwk("RS256")), token("RS512", "k1")) == Code.UNAUTHORIZED
    mixed = with_keys(jwk("RS256", "rsa"), jwk("ES256", "ec"))
    assert await refusal(mixed, token("RS256", "ec")) == Code.UNAUTHORIZED
    assert await refusal(mixed, token("ES256", "rsa")) == Code.UNAUTHORIZED


async def test_a_key_in_the_tokens_own_header_is_not_looked_at() -> None:
    """RFC 8725, 3.10: `jwk`, `jku` and `x5u` are an attacker's."""
    header = {"alg": "HS256", "jwk": {"kty": "oct", "k": part(b"x" * 32)}, "jku": "http://127.0.0.1:1/"}
    assert await refusal(SECRET_ONLY, signed(header, claims(), b"x" * 32)) == Code.UNAUTHORIZED


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "HS256", "crit": ["exp"]},
        {"alg": "HS256", "b64": False, "crit": ["b64"]},
        {"alg": "HS256", "typ": "logout+jwt"},
        {"alg": "HS256", "kid": 1},
        {"alg": "HS256", "kid": ["k1"]},
        {"alg": ["HS256"]},
        {},
        [],
        b"not JSON",
        b"\xff\xfe",
        b'{"alg": "HS256", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
async def test_a_header_that_is_not_understood_is_refused(header: object) -> None:
    """RFC 7515, 4.1.11; RFC 8725, 3.11: a token of another kind is not one of ours."""
    assert await refusal(SECRET_ONLY, signed(header, claims())) == Code.UNAUTHORIZED


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "application/at+JWT"])
async def test_a_token_may_say_that_it_is_an_access_token(typ: str) -> None:
    """RFC 9068, 2.1."""
    assert await principal(SECRET_ONLY, signed({"alg": "HS256", "typ": typ}, claims()))


@pytest.mark.parametrize(
    "text",
    ["", "x", "a.b", "a.b.c.d", "..", "a..b", "é.é.é", "\ud800.a.b", "a.b.c\n", " ", "a" * 70000, "\x00.a.b", "a.a.a"],
)
async def test_what_is_no_token_is_refused(text: str) -> None:
    """Our choice: with a code, and never with a stack trace."""
    assert await refusal(SECRET_ONLY, text) == Code.UNAUTHORIZED


async def test_a_huge_token_is_not_even_looked_at() -> None:
    """Our choice: 16 KiB, although it is signed."""
    assert await refusal(SECRET_ONLY, token(padding="x" * MOST_CHARACTERS)) == Code.UNAUTHORIZED
    assert await principal(SECRET_ONLY, token(padding="x" * (MOST_CHARACTERS // 2)))


async def test_a_token_that_was_changed_is_refused() -> None:
    """The point of a signature."""
    header, payload, signature = token().split(".")
    other = token(sub="bob").split(".")[1]
    assert await refusal(SECRET_ONLY, f"{header}.{other}.{signature}") == Code.UNAUTHORIZED
    assert await refusal(SECRET_ONLY, f"{header}.{payload}.{part(b'x' * 32)}") == Code.UNAUTHORIZED


@pytest.mark.parametrize(
    "payload", [[], "text", 1, None, b"", b"not JSON", b'{"exp": NaN}', b'{"exp": 1e999}', b"[" * 5000 + b"]" * 5000]
)
async def test_a_payload_that_is_no_object_is_refused(payload: object) -> None:
    """RFC 7519, 7.2: the claims are an object."""
    assert await refusal(SECRET_ONLY, signed({"alg": "HS256"}, payload)) == Code.UNAUTHORIZED


@pytest.mark.parametrize(
    "key",
    [
        {"kty": "oct", "k": part(SECRET), "kid": "k1", "alg": "HS256"},
        {"kty": "oct", "k": part(SECRET), "kid": "k1"},
        jwk("RS256", alg="HS256"),
        jwk("RS256", alg="none"),
        jwk("RS256", alg="ES256"),
        jwk("RS256", alg="RSA-OAEP"),
        jwk("RS256", alg=["RS256"]),
        jwk("ES256", alg="ES384"),
        jwk("RS256", use="enc"),
        jwk("RS256", key_ops=["encrypt"]),
        jwk("RS256", key_ops="verify"),
        jwk("RS256", kid=7),
        jwk("RS256", n="!"),
        jwk("RS256", n=7),
        jwk("RS256", n=MISSING),
        jwk("ES256", x=part(b"1" * 32)),
        jwk("ES256", crv="P-999", alg=MISSING),
        jwk("EdDSA", crv=["Ed25519"], alg=MISSING),
        private_jwk("RS256"),
        private_jwk("ES256"),
        private_jwk("EdDSA"),
        jwk("RS256", n=part(b"\xff" * 128)),
        "text",
        None,
    ],
)
async def test_what_is_no_public_key_for_signatures_is_left_out_of_a_document(key: object) -> None:
    """RFC 7517: a reader ignores what it cannot use; the others stay."""
    found = jwks.parse(document(key, jwk("ES512", "good")))
    assert [known.kid for known in found] == ["good"]


async def test_of_two_keys_with_one_id_the_first_counts() -> None:
    """RFC 7517, 4.5: ids should be distinct."""
    (key,) = jwks.parse(document(jwk("RS256"), jwk("ES256")))
    assert key.algorithm == "RS256"


@pytest.mark.parametrize("text", [b"", b"x", b"[]", b"{}", b'{"keys": {}}', b"\xff", b"[" * 5000])
async def test_what_is_no_document_is_an_error(text: bytes) -> None:
    """Our choice: so that what was known before stays."""
    with pytest.raises(ValueError, match="JWKS"):
        jwks.parse(text)


def opened(tmp_path: Path, secret: bytes | None, **auth: Any) -> Tokens:
    """A verifier with a secret file of that content."""
    if secret is None:
        return Tokens.open(Auth(**auth), "")
    (tmp_path / "secret").write_bytes(secret)
    return Tokens.open(Auth(**auth), str(tmp_path / "secret"))


@pytest.mark.parametrize("secret", [b"", b"AAAA", b"not base64!", b"\xff"])
async def test_a_secret_that_could_be_guessed_is_an_error_at_the_start(tmp_path: Path, secret: bytes) -> None:
    """RFC 7518, 3.2: 32 bytes at least; an empty file would let everybody in."""
    with pytest.raises(ValueError):  # noqa: PT011 - base64's own, or ours
        opened(tmp_path, secret)


@pytest.mark.parametrize("content", [b"{}", document(), document({"kty": "oct", "k": "AAAA"})])
async def test_a_document_without_a_key_is_an_error_at_the_start(tmp_path: Path, content: bytes) -> None:
    """Our choice: a mistake shows when the edge starts."""
    (tmp_path / "jwks.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"key|JWKS"):
        opened(tmp_path, None, jwks=str(tmp_path / "jwks.json"))


async def test_without_anything_to_verify_with_there_is_no_start(tmp_path: Path) -> None:
    """Our choice: neither is a mistake, either is enough."""
    with pytest.raises(ValueError, match="secret"):
        opened(tmp_path, None)
    with pytest.raises(OSError, match="nowhere"):
        opened(tmp_path, None, jwks=str(tmp_path / "nowhere"))
    with pytest.raises(OSError, match="nowhere"):
        Tokens.open(Auth(), str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="project"):
        opened(tmp_path, b"QUJD" * 11, default_projects=("a.b",))


@pytest.mark.parametrize("url", ["http://127.0.0.1:80@evil.example/", "https:///x", "ftp://x/y", "file:///etc/passwd"])
async def test_keys_do_not_come_over_an_open_network(tmp_path: Path, url: str) -> None:
    """Our choice: https, or this machine."""
    auth = {"jwks": url} if url.startswith("http") else {}
    if auth:
        with pytest.raises(ValueError, match="https"):
            opened(tmp_path, None, **auth)
    else:
        with pytest.raises(ValueError, match="jwks"):
            Auth(jwks=url)
