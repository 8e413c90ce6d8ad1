"""`millrace token`: print a token for a user of a tenant."""

import argparse

from millrace.datadir import DEFAULT, DataDir
from millrace.tokens import sign

HELP = "print a token (a JWT) for a user"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--tenant", required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--ttl", type=int, default=3600, help="seconds that it is valid (3600)")
    parser.add_argument("--data", default=DEFAULT, help=f"the data directory (./{DEFAULT})")


def run(args: argparse.Namespace) -> int:
    """Print it."""
    print(sign(DataDir.at(args.data).jwt_secret, args.tenant, args.user, args.ttl))
    return 0
