"""`millrace dead list`: print the dead letters, the oldest first, as JSON lines."""

import argparse
import asyncio
import os
from typing import Any

import msgspec

from broker.connect import Unavailable, connect
from broker.read import Record, read
from contracts.streams import DEAD, OPERATOR
from contracts.subjects import DEAD_ALL
from millrace.datadir import DEFAULT, DataDir
from millrace.errors import CommandFailed

HELP = "look at what could not be accepted, and why"
PATIENCE = 3.0
"""How long to wait for the broker."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("action", choices=["list"])
    parser.add_argument("--data", default=DEFAULT, help=f"the data directory (./{DEFAULT})")


def run(args: argparse.Namespace) -> int:
    """Print them."""
    data = DataDir.at(args.data)
    url = data.broker_url(os.environ)
    try:
        asyncio.run(_print_all(url, str(data.credentials.user(OPERATOR))))
    except (Unavailable, TimeoutError):
        raise CommandFailed(f"no answer from {url}: is `millrace up` running?") from None
    return 0


async def _print_all(url: str, seed_file: str) -> None:
    async with (
        asyncio.timeout(PATIENCE) as patience,
        connect(url, OPERATOR, seed_file=seed_file) as broker,
    ):
        patience.reschedule(None)
        async for records in read(broker, DEAD_ALL, 0, stream=DEAD):
            for record in records:
                print(line(record))


def line(record: Record) -> str:
    """One dead letter as a line: what is stored, and where. Redriving names the sequence."""
    letter: dict[str, Any]
    try:
        letter = msgspec.json.decode(record.data, type=dict[str, Any])
    except msgspec.DecodeError:
        letter = {"payload": record.data.decode(errors="replace")}
    return msgspec.json.encode({**letter, "sequence": record.seq}).decode()
