"""Watch: what one connection is sent of its topics, and the cursor that goes with each frame.

A frame is the stored bytes with the cursor put in, made once for all connections whose other topics
stand at the same place, which is nearly always all of them.
"""

from collections.abc import Callable

from broker.feed import Feed, Item
from contracts.cursor import Cursor, base36
from edge.outbox import Outbox
from edge.spelling import Spelling

Around = tuple[bytes, bytes, object]

SESSION_FACTS = frozenset({"session_updated", "session_listed"})
"""What a connection itself heeds: the session is another now, or the user has one more."""


class Watch:
    """The topics that one cursor tells of: how far each was sent, and to where the frames go.

    `slots` are in the order of the cursor. Those in `readers` are this watch's to follow; others belong to another
    watch of the same connection, whose events come once however many sessions are watched.
    """

    def __init__(
        self, epoch: str, feeds: list[Feed], outbox: Outbox, spelling: Spelling, shared: "Watch | None" = None
    ) -> None:
        self.epoch = epoch
        self.outbox = outbox
        self.spelling = spelling
        self.frames_taken = 0
        self.on_lost: Callable[[], None] = lambda: None
        self.on_session: Callable[[Item], None] = lambda _item: None
        self.readers = [TopicReader(self, feed) for feed in feeds]
        self.slots = self.readers
        self._shared = shared
        self.sharers: set[Watch] = set()
        self._around: dict[TopicReader, Around] = {}
        self._behind_since: float | None = None
        if shared:
            self.slots = [self.readers[0], *shared.readers, *self.readers[1:]]
            shared.sharers.add(self)

    @property
    def cursor(self) -> str:
        """How far every topic was taken."""
        # of what is shared, what was written: what waits may yet be dropped and come after this cursor's frame
        positions = (reader.position if reader.watch is self else reader.sent for reader in self.slots)
        return str(Cursor(self.epoch, tuple(positions)))

    def start_from(self, positions: tuple[int, ...]) -> None:
        """The client has everything up to these, one for each of `slots`; what is shared stays where it is."""
        self._around.clear()
        for reader, position in zip(self.slots, positions, strict=True):
            if reader.watch is self:
                reader.position = reader.sent = position

    def around(self, reader: "TopicReader") -> Around:
        """What stands before and after a reader's position in the cursor, and who writes the same."""
        around = self._around.get(reader)
        if around is None:
            index, parts = self.slots.index(reader), self.cursor.encode().split(b".")
            before = b".".join(parts[: index + 1]) + b"."
            around = before, b"".join(b"." + part for part in parts[index + 2 :]), self.spelling.key
            self._around = {reader: around}  # the other topics' surroundings change with this topic's position
        return around

    def follow(self) -> None:
        """Give the client what the log holds beyond each position, then what comes live."""
        for reader in self.readers:
            reader.feed.follow(reader)

    def rewind(self) -> None:
        """What waits in the outbox is read from the log again, in all topics, so that each keeps its order."""
        self.outbox.drop_frames_of(self.readers)
        self._around = {}
        for reader in self.readers:
            reader.position = reader.sent
        self.follow()

    def moved(self) -> None:
        """What is shared stands elsewhere now."""
        self._around = {}

    def leave(self) -> None:
        """Send nothing more of the log, for good."""
        if self._shared:
            self._shared.sharers.discard(self)
        self.stop()

    def stop(self) -> None:
        """Send nothing more of the log until `follow`."""
        for reader in self.readers:
            reader.feed.leave(reader)

    def seconds_behind(self, now: float) -> float:
        """For how long the client has not had everything there is, by the loop's time; asked every second or so."""
        level = not self.outbox.is_waiting and all(reader.position >= reader.feed.head for reader in self.readers)
        if level:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = now
        return 0.0 if self._behind_since is None else now - self._behind_since


class TopicReader:
    """One topic of one connection. `position` is the last sequence taken, `sent` the last one written."""

    __slots__ = ("feed", "position", "sent", "watch")

    def __init__(self, watch: Watch, feed: Feed) -> None:
        self.feed = feed
        self.position = 0
        self.sent = 0
        self.watch = watch

    def deliver(self, item: Item) -> bool:
        """Take a live event at once, or refuse it for want of room."""
        if not self.watch.outbox.has_room:
            return False
        self._take(item)
        return True

    async def push(self, item: Item) -> None:
        """Take an event of the log when there is room. Raises ConnectionError when the client is gone."""
        await self.watch.outbox.room()
        self._take(item)

    def rewind(self) -> None:
        """There was no room: the connection goes back to what was sent."""
        self.watch.rewind()

    def lost(self) -> None:
        """The order cannot be kept: the connection starts over with a snapshot."""
        self.watch.on_lost()

    def _take(self, item: Item) -> None:
        watch, seq = self.watch, item.seq
        self.position = seq
        around = watch.around(self)  # also where nothing is written: the other topics' surroundings have changed
        if item.visible:
            self._put(item, around)
        elif not watch.outbox.is_waiting:
            self.was_sent(max(self.sent, seq))
        if item.type in SESSION_FACTS:
            watch.on_session(item)

    def _put(self, item: Item, around: Around) -> None:
        watch, seq = self.watch, item.seq
        frame = item.frames.get(around)
        if frame is None:
            cursor = b"%b%b%b" % (around[0], base36(seq).encode(), around[1])
            frame = watch.spelling.event(item.data, cursor)
            if around[2]:
                item.frames[around] = frame
        watch.frames_taken += 1
        watch.outbox.put(frame, self, seq)  # an empty one keeps its place: the cursor moves when it is its turn

    def was_sent(self, seq: int) -> None:
        """The client has everything up to `seq`, so far as this edge can tell."""
        self.sent = seq
        for sharer in self.watch.sharers:
            sharer.moved()
