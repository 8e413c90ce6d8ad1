"""`millrace publish`: publish a CloudEvent as a tenant's external system would."""

import argparse
import asyncio
import os
import sys
import uuid

import msgspec

from broker.connect import Unavailable
from broker.publish import CloudEvent, Refused, publish
from contracts.subjects import ingest, is_token
from millrace.datadir import DEFAULT, DataDir
from millrace.errors import CommandError, CommandFailed

HELP = "publish a CloudEvent to a session, a user, a project or the tenant"
TARGETS = ("session", "user", "project")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--tenant", required=True)
    target = parser.add_mutually_exclusive_group()
    for name in TARGETS:
        target.add_argument(f"--{name}", help=f"whom it is for: a {name}")
    parser.add_argument("--type", required=True, help="dotted names, e.g. build.finished")
    parser.add_argument("--source", default="cli", help="what it comes from (cli)")
    parser.add_argument("--id", default=None, help="the same id again is not delivered again")
    parser.add_argument("--data", default=DEFAULT, help=f"the data directory (./{DEFAULT})")
    parser.add_argument("json", metavar="JSON", help="the event's data; - reads it from stdin")


def run(args: argparse.Namespace) -> int:
    """Publish it and print its id once the broker has stored it."""
    data = DataDir.at(args.data)
    url = data.broker_url(os.environ)
    event = _event(args)
    seed = data.credentials.tenant(args.tenant)
    if not seed.exists():
        raise CommandError(f"no tenant {args.tenant}: there is no {seed}")
    try:
        asyncio.run(publish(url, str(seed), args.tenant, event))
    except (Unavailable, Refused) as error:
        raise CommandFailed(str(error)) from None
    print(event.id)
    return 0


def _event(args: argparse.Namespace) -> CloudEvent:
    """The event that the arguments describe. Raises CommandError."""
    text = sys.stdin.read() if args.json == "-" else args.json
    target = {f"{name}id": value for name in TARGETS if (value := getattr(args, name)) is not None}
    for name, value in target.items():
        if not is_token(value):
            raise CommandError(f"{name} {value!r:.80}: a name is [A-Za-z0-9_-]{{1,64}}")
    try:
        ingest(args.tenant, args.source, args.type)
        payload = msgspec.json.encode(msgspec.json.decode(text))
    except msgspec.DecodeError as error:
        raise CommandError(f"not JSON: {error}") from None
    except ValueError as error:
        raise CommandError(str(error)) from None
    identity = args.id or uuid.uuid4().hex
    return CloudEvent(id=identity, source=args.source, type=args.type, data=payload, target=target)
