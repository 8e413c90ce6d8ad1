"""Targets: what is known of the topics that events go to: which events they have, are they there.

It is folded from the log and kept for the topics that were written to lately. What is kept may be
behind: an append names the last event that was folded, and is refused where there is a later one.
"""

from broker.connect import Broker
from broker.read import last, page, read
from contracts import events
from contracts.events import SessionUpdated, unix_time
from contracts.subjects import Topic

KEPT_IDS = 200_000
"""How many ids of events a process keeps (about 120 bytes each), of one topic and of all."""

KEPT_TARGETS = 4096

SHORT = 64
"""A lane with fewer events is read from its beginning."""


class Target:
    """A topic. `ids`: its events stored at `since` or later; `seq`: the last one, 0 if none is."""

    def __init__(self, broker: Broker, topic: Topic) -> None:
        self.topic = topic
        self.seq = 0
        self.since = float("inf")
        self.ids: dict[str, None] = {}
        self._broker = broker
        self._is_open = False
        self._client_seq = 0

    @property
    def lane(self) -> str:
        """Where events are appended."""
        return self.topic.fact("event")

    def add(self, event_id: str, seq: int) -> None:
        """Take in an event that was appended as the lane's last."""
        self._keep(event_id)
        self.seq = seq

    async def know(self, since: float) -> None:
        """Know every event stored since then, up to the last that the leader names."""
        if since >= self.since:
            return
        self.ids.clear()
        self.since = float("inf")
        upto = await last(self._broker, self.lane)
        await self._read(await self._before(since, upto) if upto else 0, upto)
        self.since = since

    async def read_on(self) -> None:
        """Take in what others appended."""
        await self._read(self.seq, await last(self._broker, self.lane))

    async def exists(self) -> bool:
        """Whether the topic may be told something: a session must be there and not deleted."""
        if self.topic.kind != "session":
            return True
        lane = self.topic.fact("client")
        upto = await last(self._broker, lane)
        if upto < self._client_seq:  # purged
            self._is_open, self._client_seq = False, 0
        async for records in read(self._broker, lane, self._client_seq, upto):
            for record in records:
                event = events.decode(record.data)
                if isinstance(event, SessionUpdated):
                    self._is_open = event.state != "deleted"
        self._client_seq = upto
        return self._is_open

    async def _read(self, after: int, upto: int) -> None:
        async for records in read(self._broker, self.lane, after, upto):
            for record in records:
                self._keep(record.message_id)
        self.seq = upto

    def _keep(self, event_id: str) -> None:
        self.ids[event_id] = None
        if len(self.ids) > KEPT_IDS:
            del self.ids[next(iter(self.ids))]

    async def _before(self, since: float, upto: int) -> int:
        """A sequence of the log with no event of this lane between it and `since`."""
        _, is_long = await page(self._broker, self.lane, 0, messages=SHORT)
        low, high = 0, upto if is_long else 0
        while high - low > 1:
            middle = (low + high) // 2
            records, _ = await page(self._broker, self.lane, middle, messages=1)
            if records and unix_time(records[0].time) < since:
                low = records[0].seq
            else:
                high = middle
        return low


class Targets:
    """The topics that a process wrote to lately."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._targets: dict[Topic, Target] = {}

    def of(self, topic: Topic) -> Target:
        """The topic as far as it is known; what was used least lately is forgotten."""
        target = self._targets.pop(topic, None)
        if target is None:
            target = Target(self._broker, topic)
            known = sum(len(other.ids) for other in self._targets.values())
            while self._targets and (known > KEPT_IDS or len(self._targets) >= KEPT_TARGETS):
                known -= len(self._targets.pop(next(iter(self._targets))).ids)
        self._targets[topic] = target
        return target
