"""`millrace dead list`: print the dead letters, the oldest first, as JSON lines.

`millrace dead redrive SEQUENCE …`: say messages again whose turn failed. Each is a message of its own, whose id is
printed; the letter stays. To redrive the same letter again changes nothing.
"""

import argparse
from collections.abc import Iterable
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from broker.connect import Broker
from broker.dead import Letter
from broker.read import Record, page, read
from contracts import events
from contracts.errors import MillraceError
from contracts.frames import SendMessage
from contracts.streams import DEAD
from contracts.subjects import DEAD_ALL, group_of, parse
from edge.commands import Address, send_message
from edge.principal import Principal
from millrace.datadir import DEFAULT, DataDir
from millrace.errors import CommandError, CommandFailed
from millrace.operator import at_broker

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
        again = at_broker(data, partial(_find, args.sequence))
        at_broker(data, partial(_say, again), user="edge")
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


class Again(Struct, frozen=True):
    """A message that is to be said again, where and by whom."""

    said_by: Principal
    to: Address
    frame: SendMessage


async def _find(sequences: Iterable[int], broker: Broker) -> list[Again]:
    return [again(sequence, await _letter(sequence, broker)) for sequence in sequences]


async def _letter(sequence: int, broker: Broker) -> Letter:
    records, _ = await page(broker, DEAD_ALL, sequence - 1, messages=1, stream=DEAD) if sequence > 0 else ([], False)
    if not records or records[0].seq != sequence:
        raise CommandError(f"there is no dead letter {sequence}")
    try:
        return msgspec.json.decode(records[0].data, type=Letter)
    except msgspec.MsgspecError as error:
        raise CommandError(f"the dead letter {sequence} cannot be read: {error}") from None


def again(sequence: int, letter: Letter) -> Again:
    """What is said again of a letter. Raises CommandError where it is no message, or not whole."""
    if letter.message_id is None:
        raise CommandError(
            f"the dead letter {sequence} is no message of a session: correct the event, and publish it again"
        )
    try:
        message = events.decode(letter.payload)
    except ValueError:
        message = None
    if not isinstance(message, events.Message):
        raise CommandError(f"of the message in the dead letter {sequence} only a part was kept: {letter.size} bytes")
    topic, _ = parse(letter.subject)
    frame = SendMessage(
        content=message.content,
        client_message_id=f"redrive-{letter.id}",
        attachments=message.attachments,
        metadata={**(message.metadata or {}), "redrive_of": message.message_id},
        policy="enqueue",
    )
    return Again(
        Principal(topic.tenant, message.user_id, None), Address(topic, group_of(letter.subject), "enqueue"), frame
    )


async def _say(messages: list[Again], broker: Broker) -> None:
    for message in messages:
        try:
            accepted = await send_message(broker, message.said_by, message.to, message.frame)
        except MillraceError as error:
            raise CommandFailed(str(error)) from None
        print(accepted.message_id)
