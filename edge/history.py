"""History: a session's messages and answers, a page at a time, back to the first one."""

from typing import Any

import msgspec

from broker.backwards import at, block
from broker.connect import Broker
from contracts.errors import Code, MillraceError
from contracts.subjects import Topic
from contracts.view import shown_as
from edge.folds import fold, messages_of

FACTS_A_MESSAGE = 4
"""Facts of the runner's that are read for each message wanted: a turn without tools has about as many."""

ROUNDS = 16
"""Blocks that are read for a page at most. Only a session with hundreds of facts between messages needs so many."""


async def messages(
    broker: Broker, topic: Topic, before: int | None, limit: int
) -> tuple[list[dict[str, Any]], str | None]:
    """The last `limit` messages before a place, ascending, and where the page before them ends; None at the start.

    Costs the same wherever in the session the page is. A page may be shorter, even empty, where messages lie far
    apart. Raises MillraceError `session_not_found` where the session was deleted.
    """
    view, upto = await fold(broker, topic)
    if view.is_deleted:
        raise MillraceError(Code.SESSION_NOT_FOUND)
    repeats = frozenset(view.repeats)
    end = upto + 1 if before is None else min(before, upto + 1)
    found: dict[int, bytes] = {}
    if known := [message for message in view.messages if message[0] < end][-limit - 1 :]:
        end = known[0][0] if view.more or known[0] != view.messages[0] else 1
        stored = await at(broker, [seq for seq, shown in known if not shown])
        found = {seq: text for seq, shown in known if (text := shown or shown_as(stored.get(seq)))}
    lanes = [(topic.fact("agent"), FACTS_A_MESSAGE * (limit + 1))]
    if end > 1 and len(found) <= limit:
        lanes += [(subject, limit + 1) for subject in await messages_of(broker, topic)]
    for _ in range(ROUNDS):
        if end <= 1 or len(found) > limit:
            break
        blocks = [await block(broker, subject, end, wanted) for subject, wanted in lanes]
        end = max(part.start for part in blocks)  # from here on all are complete
        for record in (record for part in blocks for record in part.records):
            if record.seq >= end and record.seq not in repeats and (shown := shown_as(record.data)):
                found[record.seq] = shown
    page = sorted(found)[-limit:]
    if len(found) > limit:
        earlier: str | None = str(page[0])
    else:
        earlier = str(end) if end > 1 else None
    return [msgspec.json.decode(found[seq]) for seq in page], earlier


def place(before: str | None) -> int | None:
    """Where a page ends, from what a snapshot or another page gave. Raises MillraceError `bad_request`."""
    if before is None:
        return None
    if not (before.isascii() and before.isdigit() and len(before) < 19):
        raise MillraceError(Code.BAD_REQUEST, "`before` is what another page gave")
    return int(before)
