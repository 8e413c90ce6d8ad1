"""Folds: a session's view at the end of its facts, begun from the one that was kept beside the log.

What is kept is a cache in the stream STATE, one a session, written by whichever edge has just folded much. It is used
only if it is of this log (the epoch) and the fact that it ends with still stands where it stood; else the facts are
folded from the first one. So nothing rests on it: an older one costs a longer read, none costs a whole one.
"""

import logging

from broker import kept as beside
from broker.connect import Broker
from broker.read import last, read
from contracts import events
from contracts.subjects import Topic
from contracts.view import View

logger = logging.getLogger(__name__)

KEEP_AFTER = 64
"""Facts beyond the kept view from which on a new one is kept: a joiner reads about so many, and one page more."""

KEPT_BYTES = 512 * 1024
"""The largest view that is kept. What makes one larger is an open turn with large results; it ends."""

Kept = tuple[View, int]
"""A view and the sequence of the last fact in it."""


async def fold(broker: Broker, topic: Topic, upto: int | None = None) -> tuple[View, int]:
    """A session's view and the last fact in it, 0 if there is none: the facts up to `upto`, all of them by default.

    Called now and then for a session that is watched, it keeps joining cheap. A deleted session's view is final; its
    sequence may be an earlier one. Raises Unavailable or TimeoutError while the broker is away.
    """
    begun = await kept(broker, topic)
    if begun and begun[0].is_deleted and upto is None:
        return begun
    if upto is None:
        upto = await last(broker, topic.facts)
    return await onwards(broker, topic, begun, upto)


async def kept(broker: Broker, topic: Topic) -> Kept | None:
    """The view that was kept, if there is one of this log. Ask for it before asking how far to read."""
    stored = await beside.load(broker, topic.state)
    return None if stored is None else View.again(stored, beside.epoch(broker))


async def onwards(broker: Broker, topic: Topic, begun: Kept | None, upto: int) -> tuple[View, int]:
    """The view with every fact up to `upto`, begun from a kept one if that is any good, and the last fact in it.

    Keeps it, in the background, where it took many facts. `upto` must be of the leader.
    """
    view, seq = begun or (View(), 0)
    known, number = seq, 0
    # from the last fact that is known already: that it still stands there, and not beyond, shows that it is the same
    # history
    async for records in read(broker, topic.facts, max(0, seq - 1), upto):
        for record in records:
            if known:
                if record.seq != known:
                    return await onwards(broker, topic, None, upto)
                known = 0
            elif record.seq <= upto:
                seq, number = record.seq, number + 1
                if (event := events.decode(record.data)) is not None:
                    view.apply(seq, event, record.data)
    if known:
        return await onwards(broker, topic, None, upto)
    if number >= KEEP_AFTER:
        keep(broker, topic, view, seq)
    return view, seq


async def without_repeats(broker: Broker, topic: Topic, view: View) -> None:
    """Close every open message that was stored before, however long ago. Reads the session's messages from the first.

    Where a view has forgotten ended messages (`forgot`), one of them that is stored again looks like a new one.
    """
    waiting = {message_id: turn.seq for message_id, turn in view.session.turns.items() if not turn.claim}
    for subject in await messages_of(broker, topic):
        async for records in read(broker, subject, 0, max(waiting.values(), default=0)):
            for record in records:
                event = events.decode(record.data)
                if isinstance(event, events.Message) and record.seq < waiting.get(event.message_id, 0):
                    view.drop(event.message_id)
                    del waiting[event.message_id]


async def place_of(broker: Broker, topic: Topic, message_id: str, upto: int, *, thorough: bool) -> int:
    """Where a message that is stored at `upto`, or before, was stored first: there its turn begins.

    A session of thousands of turns is read from its beginning only if that is to be `thorough`; else a very late
    repeat passes for a new message. Raises Unavailable or TimeoutError while the broker is away.
    """
    view, _ = await fold(broker, topic, upto)
    if view.forgot and not thorough:
        return upto
    if view.forgot and view.session.turns:
        await without_repeats(broker, topic, view)
    if turn := view.session.turns.get(message_id):
        return turn.seq
    places = [upto]
    for subject in await messages_of(broker, topic):  # its turn had ended by then
        async for records in read(broker, subject, 0, upto):
            found = [record.seq for record in records if _is_message(record.data, message_id)]
            places += found[:1]
            if found:
                break
    return min(places)


def _is_message(data: bytes, message_id: str) -> bool:
    event = events.decode(data)
    return isinstance(event, events.Message) and event.message_id == message_id


async def messages_of(broker: Broker, topic: Topic) -> tuple[str, ...]:
    """The subjects that hold a session's messages, whatever groups its agent was in over time."""
    lane = topic.message()
    return (lane, topic.grouped) if await last(broker, topic.grouped) else (lane,)


def keep(broker: Broker, topic: Topic, view: View, upto: int) -> None:
    """Keep a view, in the background; if that fails, the next one may succeed."""
    try:
        payload = view.kept(beside.epoch(broker), upto)
    except (OverflowError, TypeError, ValueError) as error:
        logger.debug("a view cannot be kept", extra={"topic": topic.id, "reason": str(error)})
        return
    if len(payload) > KEPT_BYTES:
        logger.debug("a view is too large to be kept", extra={"topic": topic.id, "bytes": len(payload)})
        return
    beside.keep(broker, topic.state, payload)
