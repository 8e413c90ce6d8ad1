"""An issuer of tokens: its secret, its keys, and a web server with its JWKS that also misbehaves."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

SECRET = b"0123456789abcdef0123456789abcdef"
MISSING = object()


@cache
def private_key(algorithm: str, number: int = 0, bits: int = 2048) -> Any:
    """A private key for that algorithm; another one for another number."""
    match algorithm:
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "ES384":
            return ec.generate_private_key(ec.SECP384R1())
        case "ES512":
            return ec.generate_private_key(ec.SECP521R1())
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return rsa.generate_private_key(65537, bits)


def pem(algorithm: str) -> bytes:
    """The public key, as anybody may have it."""
    public: bytes = private_key(algorithm).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return public


def jwk(algorithm: str, kid: object = "k1", number: int = 0, **more: object) -> dict[str, Any]:
    """The public key as a JWK. A member that is MISSING is left out."""
    public = private_key(algorithm, number).public_key()
    shown: dict[str, Any] = json.loads(get_default_algorithms()[algorithm].to_jwk(public))
    members = {**shown, "alg": algorithm, "use": "sig", "kid": kid or MISSING, **more}
    return {name: value for name, value in members.items() if value is not MISSING}


def private_jwk(algorithm: str) -> dict[str, Any]:
    """The private key as a JWK, which nobody should publish."""
    shown: dict[str, Any] = json.loads(get_default_algorithms()[algorithm].to_jwk(private_key(algorithm)))
    return {**shown, "key_ops": ["verify"], "alg": algorithm, "kid": "k1"}


def document(*keys: object) -> bytes:
    """A JWKS."""
    return json.dumps({"keys": keys}).encode()


def claims(**more: object) -> dict[str, Any]:
    """What a good token says; a claim that is MISSING is left out."""
    now = int(time.time())
    said: dict[str, Any] = {
        "iss": "millrace",
        "aud": "millrace",
        "sub": "ann",
        "tenant": "acme",
        "iat": now - 10,
        "exp": now + 60,
        **more,
    }
    return {name: value for name, value in said.items() if value is not MISSING}


def token(algorithm: str = "HS256", kid: str | None = None, number: int = 0, /, **more: object) -> str:
    """A token with those claims."""
    key = SECRET if algorithm == "HS256" else private_key(algorithm, number)
    return jwt.encode(claims(**more), key, algorithm, {"kid": kid} if kid else None)


def part(content: object) -> str:
    """A part of a token: an object, or bytes."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(header: object, payload: object, key: bytes = SECRET) -> str:
    """A token of any header and payload, with an HMAC that holds."""
    text = f"{part(header)}.{part(payload)}"
    signature = get_default_algorithms()["HS256"].sign(text.encode(), key)
    return f"{text}.{part(signature)}"


class Jwks:
    """The web server: what it answers, and how often it was asked."""

    def __init__(self) -> None:
        self.body = document(jwk("RS256"))
        self.status = 200
        self.headers: dict[str, str] = {}
        self.asked = 0
        self.release = threading.Event()
        self.release.set()
        self.drips = False
        self.url = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer a request, when it is released."""
        self.asked += 1
        self.release.wait()
        request.send_response(self.status)
        for name, value in self.headers.items():
            request.send_header(name, value)
        request.send_header("content-length", str(len(self.body)))
        request.end_headers()
        for byte in self.body if self.drips else ():
            request.wfile.write(bytes((byte,)))
            request.wfile.flush()
        if not self.drips:
            request.wfile.write(self.body)


@contextmanager
def serving() -> Iterator[Jwks]:
    """A web server until the block ends."""
    jwks = Jwks()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                jwks.answer(self)
            except OSError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    jwks.url = f"http://127.0.0.1:{server.server_port}/jwks"
    try:
        yield jwks
    finally:
        jwks.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
