"""Redriving: a message whose turn failed, as its dead letter holds it, is said again.

The letter is written before the turn ends, so that none is missing; a later attempt or a cancel may have ended the turn
otherwise since. What became of it stands in the log, and that decides.
"""

import msgspec
from msgspec import Struct

from broker.connect import Broker
from broker.dead import Letter
from broker.read import page, read
from contracts import events
from contracts.errors import Code, MillraceError
from contracts.frames import SendMessage
from contracts.streams import DEAD
from contracts.subjects import DEAD_ALL, group_of, parse
from edge import sessions
from edge.commands import Address, send_message
from edge.principal import Principal
from millrace.errors import CommandError, CommandFailed


class Again(Struct, frozen=True):
    """A message that is to be said again, where and by whom; `sequence` is of its letter, `after` where it stands."""

    sequence: int
    message_id: str
    after: int
    said_by: Principal
    to: Address
    frame: SendMessage


async def letter(sequence: int, broker: Broker) -> Letter:
    """The dead letter of that sequence. Raises CommandError."""
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
        sequence,
        message.message_id,
        letter.log_sequence or 0,
        Principal(topic.tenant, message.user_id, None, frozenset({"admin"})),  # who said it was allowed to, then
        Address(topic, group_of(letter.subject), "enqueue"),
        frame,
    )


async def say(messages: list[Again], broker: Broker) -> None:
    """Say them all, and print their ids; or none, where one is not to be said again. Raises CommandError."""
    try:
        for message in messages:
            await _look(broker, message)
        for message in messages:
            accepted = await send_message(broker, message.said_by, message.to, message.frame)
            print(accepted.message_id)
    except MillraceError as error:
        raise CommandFailed(str(error)) from None


async def _look(broker: Broker, message: Again) -> None:
    """Raises CommandError where its turn did not fail, or nothing may be said in its session any more."""
    name, topic = f"the dead letter {message.sequence}", message.to.topic
    try:
        session = await sessions.find(broker, message.said_by, topic.id)
    except MillraceError as error:
        if error.code != Code.SESSION_NOT_FOUND:
            raise
        raise CommandError(f"{name}: its session {topic.id} is gone") from None
    if session.is_closed:
        raise CommandError(f"{name}: its session {topic.id} is closed")
    status = await _end(broker, message)
    if status is None:
        raise CommandError(f"{name}: its turn has not ended; it runs, or waits for a runner")
    if status != "failed":
        raise CommandError(f"{name}: its turn was gone on with, and ended as {status}")


async def _end(broker: Broker, message: Again) -> events.TurnStatus | None:
    """How the message's turn ended; None if it has not."""
    async for records in read(broker, message.to.topic.fact("agent"), message.after):
        for record in records:
            event = events.decode(record.data)
            if isinstance(event, events.TurnEnd) and event.reply_to == message.message_id:
                return event.status
    return None
