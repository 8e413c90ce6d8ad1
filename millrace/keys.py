"""`millrace keys`: create, list and revoke API keys. A key is printed once, when it is created."""

import argparse
from typing import Any

import msgspec

from broker.connect import Broker
from broker.entries import put
from broker.read import read
from contracts.credentials import EVERY_PROJECT, AnyEntry, ApiKey, NewKey, Scope, decode_entry, digest, is_key_id
from contracts.events import timestamp
from contracts.streams import AUTH
from contracts.subjects import AUTH_ALL, auth
from millrace.datadir import DEFAULT, DataDir
from millrace.errors import CommandError, CommandFailed
from millrace.operator import at_broker, change
from millrace.tokens import Rights, check_name

HELP = "create, list and revoke API keys"
DEFAULT_SCOPES: tuple[Scope, ...] = ("read", "write")
LONGEST_TTL = 100 * 365 * 24 * 3600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="print a new key and its id as JSON; it is not shown again")
    create.add_argument("--tenant", required=True)
    create.add_argument("--user", required=True, help="who it stands for")
    create.add_argument("--scopes", help="what it allows: read,write,approve,admin (read,write)")
    create.add_argument("--projects", help="which projects it may watch (*: every one)")
    create.add_argument("--ttl", type=int, help="seconds that it is valid (for ever)")
    create.add_argument("--name", default="", help="what it is for, for people")
    listing = actions.add_parser("list", help="print the keys as JSON lines, the revoked ones too")
    listing.add_argument("--tenant", help="only those of a tenant")
    revoke = actions.add_parser("revoke", help="end a key, on every edge within seconds, for ever")
    revoke.add_argument("id", metavar="ID")
    revoke.add_argument("--tenant", required=True)
    for action in (create, listing, revoke):
        action.add_argument("--data", default=DEFAULT, help=f"the data directory (./{DEFAULT})")


def run(args: argparse.Namespace) -> int:
    """Do what is asked."""
    data = DataDir.at(args.data)
    if args.tenant is not None:
        check_name("--tenant", args.tenant)
    match args.action:
        case "create":
            check_name("--user", args.user)
            new, rights = NewKey.make(), Rights.parse(args.scopes, args.projects)
            if args.ttl is not None and not 0 < args.ttl <= LONGEST_TTL:
                raise CommandError(f"--ttl {args.ttl}: more than 0 seconds, and not more than {LONGEST_TTL}")
            at_broker(data, lambda broker: _create(broker, new, args, rights))
            print(msgspec.json.encode({"id": new.id, "key": new.text}).decode())
        case "list":
            for key in at_broker(data, lambda broker: _keys(broker, args.tenant)):
                print(line(key))
        case "revoke":
            if not is_key_id(args.id):
                raise CommandError(f"{args.id!r:.80} is not the id of a key: 24 characters 0-9 and a-f")
            at_broker(data, lambda broker: _revoke(broker, args.tenant, args.id))
    return 0


def line(key: ApiKey) -> str:
    """A key as a line: everything but what it could be recognised by."""
    shown: dict[str, Any] = {
        "id": key.id,
        "tenant": key.tenant,
        "user": key.user_id,
        "name": key.name,
        "scopes": key.scopes,
        "projects": [EVERY_PROJECT] if key.projects is None else key.projects,
    }
    for name in ("created_at", "expires_at", "revoked_at"):
        at = getattr(key, name)
        shown[name] = None if at is None else timestamp(at)
    return msgspec.json.encode(shown).decode()


async def _create(broker: Broker, new: NewKey, args: argparse.Namespace, rights: Rights) -> None:
    now, projects = broker.now(), rights.projects
    key = ApiKey(
        tenant=args.tenant,
        id=new.id,
        user_id=args.user,
        hash=digest(new.text),
        scopes=DEFAULT_SCOPES if rights.scopes is None else rights.scopes,
        projects=None if projects is None or EVERY_PROJECT in projects else projects,
        name=args.name,
        created_at=now,
        expires_at=None if args.ttl is None else now + args.ttl,
    )
    if not await put(broker, AUTH, key.subject, msgspec.json.encode(key), 0):
        raise CommandFailed(f"there is a key {new.id} already: try again")


async def _keys(broker: Broker, tenant: str | None) -> list[ApiKey]:
    found: dict[str, ApiKey] = {}
    async for records in read(broker, AUTH_ALL, 0, stream=AUTH):
        for record in records:
            entry = decode_entry(record.subject, record.data)
            if isinstance(entry, ApiKey) and tenant in (None, entry.tenant):
                found[entry.id] = entry  # one that changes while it is read comes twice
    return sorted(found.values(), key=lambda key: key.created_at)


async def _revoke(broker: Broker, tenant: str, key_id: str) -> None:
    now = broker.now()

    def revoked(known: AnyEntry | None) -> AnyEntry | None:
        if not isinstance(known, ApiKey):
            raise CommandError(f"{tenant} has no key {key_id}")
        return None if known.revoked_at is not None else msgspec.structs.replace(known, revoked_at=now)

    await change(broker, auth(tenant, "key", key_id), revoked)
