"""What a connection is sent: one encoding for all, a cursor that fits each, and the log as the buffer of the slow."""

import json
from collections.abc import AsyncIterator, Callable

import pytest

from broker.append import Append, append
from broker.connect import Broker, connect
from broker.feed import Feed, Feeds
from contracts.cursor import Cursor
from contracts.subjects import Topic
from edge.outbox import LIMIT, Outbox
from edge.watch import Watch
from tests.harness.nats_server import NatsServer
from tests.harness.wait import until

pytestmark = pytest.mark.anyio

SESSION, USER = Topic.session("acme", "s"), Topic.user("acme", "u")
EPOCH = "e"


class Client:
    """Where frames go; it stops reading when told to."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.on_room: Callable[[], None] | None = None
        self.has_room = True
        self.is_open = True

    def write_frame(self, frame: bytes) -> None:
        self.frames.append(frame)

    def read_again(self) -> None:
        """There is room."""
        self.has_room = True
        assert self.on_room
        self.on_room()

    @property
    def numbers(self) -> list[int]:
        """What was sent, in order."""
        return [json.loads(frame)["n"] for frame in self.frames]


class Plain:
    """What is sent, as it is."""

    key: str | None = "plain"

    def event(self, stored: bytes, cursor: bytes) -> bytes:
        return b'%b,"cursor":"%b"}' % (stored[:-1], cursor)

    def own(self, payload: bytes, cursor: str | None = None) -> bytes:
        return payload

    def beat(self) -> bytes:
        return b""


PLAIN = Plain()


class Log:
    """A writer of numbered events, and the feeds of an edge."""

    def __init__(self, broker: Broker, writer: Broker) -> None:
        self.feeds = Feeds(broker)
        self._writer = writer
        self._count = 0

    async def write(self, topic: Topic = SESSION, *, type_: str = "external_event", size: int = 0) -> int:
        """Store the next event; its number."""
        self._count += 1
        payload = {"type": type_, "id": str(self._count), "n": self._count, "padding": "x" * size}
        data = json.dumps(payload, separators=(",", ":")).encode()
        stored = await append(self._writer, Append(topic.fact("event"), data, f"id-{self._count}"))
        assert stored
        return self._count

    async def watch(self, client: Client) -> Watch:
        """A connection that joins now."""
        feeds: list[Feed] = [await self.feeds.acquire(topic) for topic in (SESSION, USER)]
        watch = Watch(EPOCH, feeds, Outbox(client), PLAIN)
        watch.start_from(tuple(feed.head for feed in feeds))
        watch.follow()
        return watch


@pytest.fixture
async def log(nats: NatsServer) -> AsyncIterator[Log]:
    """The log, with an edge's connection and one that may write events."""
    async with (
        connect(nats.url, "edge", seed_file=nats.seed("edge")) as edge,
        connect(nats.url, "event_ingest", seed_file=nats.seed("event_ingest")) as ingest,
    ):
        yield Log(edge, ingest)


async def test_a_frame_is_encoded_once_for_all_sockets_of_a_topic(log: Log) -> None:
    """The very same bytes go to every socket whose other topics stand at the same place."""
    clients = [Client() for _ in range(5)]
    for client in clients:
        await log.watch(client)
    await log.write()
    await log.write()
    await until(lambda: all(len(client.frames) == 2 for client in clients))
    for client in clients[1:]:
        assert [a is b for a, b in zip(client.frames, clients[0].frames, strict=True)] == [True, True]


async def test_a_cursor_tells_how_far_every_topic_was_sent(log: Log) -> None:
    """Each frame's cursor holds the position of its own topic and of the others at that moment."""
    client = Client()
    await log.watch(client)
    for topic in (SESSION, USER, USER, SESSION):
        await log.write(topic)
    await until(lambda: len(client.frames) == 4)
    positions = [Cursor.parse(json.loads(frame)["cursor"]).positions for frame in client.frames]
    assert positions == [(1, 0), (1, 2), (1, 3), (4, 3)]


async def test_internal_types_are_passed_over_and_the_cursor_moves_on(log: Log) -> None:
    """What the services tell one another reaches no client."""
    client = Client()
    watch = await log.watch(client)
    await log.write(type_="step")
    await log.write()
    await until(lambda: len(client.frames) == 1)
    assert client.numbers == [2]
    assert Cursor.parse(watch.cursor).positions == (2, 0)


async def test_a_client_that_stops_reading_costs_a_bounded_outbox_and_gets_everything(log: Log) -> None:
    """The outbox is dropped and the log is read again from what was last sent, in every topic."""
    slow, quick = Client(), Client()
    watch = await log.watch(slow)
    await log.watch(quick)
    await log.write()
    await until(lambda: len(slow.frames) == 1)
    slow.has_room = False
    size = LIMIT // 8
    for number in range(40):
        await log.write(USER if number % 5 == 0 else SESSION, size=size)
    await until(lambda: len(quick.frames) == 41)
    assert len(slow.frames) == 1
    assert watch.outbox.waiting_bytes < LIMIT + 2 * size
    slow.read_again()
    await until(lambda: len(slow.frames) == 41)
    for topic_numbers in ([n for n in quick.numbers if (n - 2) % 5], [n for n in quick.numbers if not (n - 2) % 5]):
        assert [number for number in slow.numbers if number in topic_numbers] == topic_numbers
    await log.write()
    await until(lambda: slow.numbers[-1] == quick.numbers[-1] == 42)


async def test_an_answer_to_the_client_is_not_dropped_with_the_log_frames(log: Log) -> None:
    """A client that asked is answered, however full its outbox was."""
    client = Client()
    watch = await log.watch(client)
    client.has_room = False
    watch.outbox.put(b'{"n":"answer"}')
    for _ in range(20):
        await log.write(size=LIMIT // 8)
    client.read_again()
    await until(lambda: len(client.frames) == 21)
    assert client.numbers.count("answer") == 1  # type: ignore[arg-type]
    assert [number for number in client.numbers if number != "answer"] == list(range(1, 21))  # type: ignore[comparison-overlap]


async def test_a_connection_that_left_is_sent_nothing_more(log: Log) -> None:
    """Also where it was still catching up when it left."""
    client, other = Client(), Client()
    watch = await log.watch(client)
    await log.watch(other)
    client.has_room = False
    for _ in range(20):
        await log.write(size=LIMIT // 8)
    watch.leave()
    client.read_again()
    sent = len(client.frames)
    await log.write()
    await until(lambda: len(other.frames) == 21)
    assert len(client.frames) == sent
