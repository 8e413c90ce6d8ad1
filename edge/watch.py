"""Watch: what one connection is sent of its topics, and the cursor that goes with each frame.

A frame is the stored bytes with the cursor put in, made once for all connections whose other topics
stand at the same place, which is nearly always all of them.
"""

from collections.abc import Callable

from broker.feed import Feed, Item
from contracts.cursor import Cursor, base36
from edge.outbox import Outbox

Encode = Callable[[bytes], bytes]


class Watch:
    """The topics of one connection: how far each was sent, and to where the frames go."""

    def __init__(self, epoch: str, feeds: list[Feed], outbox: Outbox, encode: Encode) -> None:
        self.epoch = epoch
        self.outbox = outbox
        self.encode = encode
        self.frames_taken = 0
        self.on_lost: Callable[[], None] = lambda: None
        self.readers = [TopicReader(self, index, feed) for index, feed in enumerate(feeds)]
        self._around: dict[int, tuple[str, str]] = {}

    @property
    def cursor(self) -> str:
        """How far every topic was taken."""
        return str(Cursor(self.epoch, tuple(reader.position for reader in self.readers)))

    def start_from(self, positions: tuple[int, ...]) -> None:
        """The client has everything up to these."""
        self._around.clear()
        for reader, position in zip(self.readers, positions, strict=True):
            reader.position = reader.sent = position

    def around(self, index: int) -> tuple[str, str]:
        """What stands before and after topic `index` in the cursor."""
        around = self._around.get(index)
        if around is None:
            parts = self.cursor.split(".")
            around = ".".join(parts[: index + 1]) + ".", "".join("." + part for part in parts[index + 2 :])
            self._around = {index: around}  # the other topics' surroundings change with this topic's position
        return around

    def follow(self) -> None:
        """Give the client what the log holds beyond each position, then what comes live."""
        for reader in self.readers:
            reader.feed.follow(reader)

    def rewind(self) -> None:
        """What waits in the outbox is read from the log again, in all topics, so that each keeps its order."""
        self.outbox.drop_log_frames()
        self._around.clear()
        for reader in self.readers:
            reader.position = reader.sent
        self.follow()

    def leave(self) -> None:
        """Send nothing more of the log."""
        for reader in self.readers:
            reader.feed.leave(reader)


class TopicReader:
    """One topic of one connection. `position` is the last sequence taken, `sent` the last one written."""

    def __init__(self, watch: Watch, index: int, feed: Feed) -> None:
        self.feed = feed
        self.position = 0
        self.sent = 0
        self._watch = watch
        self._index = index

    def deliver(self, item: Item) -> bool:
        """Take a live event at once, or refuse it for want of room."""
        if not self._watch.outbox.has_room:
            return False
        self._take(item)
        return True

    async def push(self, item: Item) -> None:
        """Take an event of the log when there is room. Raises ConnectionError when the client is gone."""
        await self._watch.outbox.room()
        self._take(item)

    def rewind(self) -> None:
        """There was no room: the connection goes back to what was sent."""
        self._watch.rewind()

    def lost(self) -> None:
        """The order cannot be kept: the connection starts over with a snapshot."""
        self._watch.on_lost()

    def _take(self, item: Item) -> None:
        self.position = seq = item.seq
        watch = self._watch
        around = watch.around(self._index)
        if not item.visible:
            self.sent = max(self.sent, seq) if not watch.outbox.is_waiting else self.sent
            return
        frame = item.frames.get(around)
        if frame is None:
            cursor = f"{around[0]}{base36(seq)}{around[1]}"
            frame = watch.encode(b'%b,"cursor":"%b"}' % (item.data[:-1], cursor.encode()))
            item.frames[around] = frame
        watch.frames_taken += 1
        watch.outbox.put(frame, self, seq)

    def was_sent(self, seq: int) -> None:
        """The outbox wrote the event at `seq`."""
        self.sent = seq
