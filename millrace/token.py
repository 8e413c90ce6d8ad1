"""`millrace token`: print a token for a user of a tenant. `millrace token revoke`: end tokens before they expire."""

import argparse

from millrace.datadir import DEFAULT, DataDir
from millrace.errors import CommandError
from millrace.operator import at_broker
from millrace.tokens import Rights, check_name, revoke_token, revoke_user, sign

HELP = "print a token (a JWT) for a user, or revoke what was issued"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("action", nargs="?", choices=["revoke"], help="end tokens; without it, one is printed")
    parser.add_argument("--tenant", required=True)
    parser.add_argument("--user", help="whom it is for; revoke: all that were issued to that user up to now")
    parser.add_argument("--jti", help="revoke: the one token with this id")
    parser.add_argument("--ttl", type=int, default=3600, help="seconds that it is valid (3600)")
    parser.add_argument("--scopes", help="what it allows: read,write,approve,admin (what the edge has as default)")
    parser.add_argument("--projects", help="which projects it may watch; * for every one (the edge's default)")
    parser.add_argument("--data", default=DEFAULT, help=f"the data directory (./{DEFAULT})")


def run(args: argparse.Namespace) -> int:
    """Print it, or revoke what is named."""
    data = DataDir.at(args.data)
    if args.action == "revoke":
        return _revoke(data, args.tenant, args.user, args.jti)
    if args.jti is not None or args.user is None:
        raise CommandError("--user is needed" if args.user is None else "--jti is for revoke")
    print(sign(data.jwt_secret, args.tenant, args.user, args.ttl, Rights.parse(args.scopes, args.projects)))
    return 0


def _revoke(data: DataDir, tenant: str, user: str | None, jti: str | None) -> int:
    check_name("--tenant", tenant)
    if jti and user is None:
        at_broker(data, lambda broker: revoke_token(broker, tenant, jti))
    elif user is not None and jti is None:
        check_name("--user", user)
        at_broker(data, lambda broker: revoke_user(broker, tenant, user))
    else:
        raise CommandError("revoke needs either --user or --jti")
    return 0
