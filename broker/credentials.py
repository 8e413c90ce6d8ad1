"""Credentials: NKey seeds in files that only their owner can read.

    <directory>/services/<user>.nk     the services, the provisioner, the operator
    <directory>/<tenant>.nk            what a tenant's external systems publish with

A seed is never replaced: who has one keeps access until its file is deleted.
"""

import os
from pathlib import Path

import nkeys  # type: ignore[import-untyped]
from msgspec import Struct

from contracts.streams import USERS
from contracts.subjects import token


class Credentials(Struct, frozen=True):
    """The seeds of one broker."""

    directory: Path

    def user(self, name: str) -> Path:
        """The seed of a service, the provisioner or the operator."""
        return self.directory / "services" / f"{token(name)}.nk"

    def tenant(self, name: str) -> Path:
        """The seed of a tenant's external systems."""
        return self.directory / f"{token(name)}.nk"

    def make(self, tenants: tuple[str, ...]) -> None:
        """Write the seeds that are missing."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in USERS:
            _ensure(self.user(name))
        for tenant in tenants:
            _ensure(self.tenant(tenant))


def public_key(seed_file: Path) -> str:
    """The public half of a seed: what the server's configuration names a user by."""
    return str(nkeys.from_seed(seed_file.read_bytes().strip()).public_key.decode())


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read: it is on the disk, and never half-written."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _ensure(path: Path) -> None:
    if not path.exists():
        write_secret(path, nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER) + b"\n")
