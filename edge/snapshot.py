"""Snapshot: what a joiner is shown of a session at one place in the log, whatever the session's length."""

import msgspec

from broker.backwards import at
from broker.connect import Broker
from broker.read import last, read
from contracts import events
from contracts.frames import Active
from contracts.subjects import Topic
from contracts.view import View
from edge import folds


async def take(broker: Broker, topic: Topic) -> tuple[View, Active | None, int]:
    """The session's view, its open answer with the text so far, and the sequence up to which both hold."""
    kept = await folds.kept(broker, topic)
    upto = await last(broker, topic.all)
    view, _ = await folds.onwards(broker, topic, kept, upto)
    if missing := view.missing():
        view.fill(await at(broker, missing))
    opened = view.open_answer()
    if opened is None:
        return view, None, upto
    active, since = opened
    texts: dict[str, list[str]] = {"text": [], "thinking": []}
    async for records in read(broker, topic.delta, since, upto):
        for record in records:
            delta = events.decode(record.data) if record.seq <= upto else None
            if isinstance(delta, events.StreamDelta) and delta.message_id == active.message_id:
                texts[delta.kind].append(delta.delta)
                view.saw(record.seq, delta.id)
    text, thinking = "".join(texts["text"]), "".join(texts["thinking"])
    return view, msgspec.structs.replace(active, content=text, thinking=thinking), upto
