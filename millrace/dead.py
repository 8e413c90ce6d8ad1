"""`millrace dead list`: print the dead letters, the oldest first, as JSON lines.

`millrace dead redrive SEQUENCE …`: say messages again whose turn failed. Each is a message of its own, whose id is
printed; the letter stays. To redrive the same letter again changes nothing.
"""

import argparse
from collections.abc import Iterable
from functools import partial
from typing import Any

import msgspec

from broker.connect import Broker
from broker.read import Record, read
from contracts.streams import DEAD
from contracts.subjects import DEAD_ALL
from millrace.datadir import DEFAULT, DataDir
from millrace.errors import CommandError
from millrace.operator import at_broker
from millrace.redrive import Again, again, letter, say

HELP = "look at what could not be accepted, and why; have messages answered again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("action", choices=["list", "redrive"])
    parser.add_argument("sequence", nargs="*", type=int, help="redrive: of the letters, as `dead list` prints them")
    parser.add_argument("--data", default=DEFAULT, help=f"the data directory (./{DEFAULT})")


def run(args: argparse.Namespace) -> int:
    """Print the letters, or the ids of the messages that are said again: all of those, or none."""
    data = DataDir.at(args.data)
    if (args.action == "redrive") != bool(args.sequence):
        raise CommandError("`dead redrive` takes the sequences that `dead list` prints, `dead list` takes none")
    if args.action == "list":
        at_broker(data, _print_all)
    else:
        messages = at_broker(data, partial(_find, args.sequence))
        at_broker(data, partial(say, messages), user="edge")
    return 0


async def _print_all(broker: Broker) -> None:
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


async def _find(sequences: Iterable[int], broker: Broker) -> list[Again]:
    return [again(sequence, await letter(sequence, broker)) for sequence in sequences]
