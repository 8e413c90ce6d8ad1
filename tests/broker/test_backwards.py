"""Backwards: whatever the log looks like, going back misses nothing, repeats nothing and costs a bounded number of
requests."""

import asyncio
import json
import random
from math import log2

import pytest

from broker import backwards
from broker.backwards import ROOM, Block, at, block
from broker.connect import Broker, connect
from contracts.subjects import Topic
from tests.harness.counted import counted
from tests.harness.fake_nats import FakeConnection, fake_nats
from tests.harness.nats_server import NatsServer
from tests.harness.wire import Message

pytestmark = pytest.mark.anyio

TOPICS = [Topic.session("acme", f"s{number}") for number in range(4)]
TOPIC, OTHER = TOPICS[:2]
LANE = TOPIC.fact("message")


async def store(broker: Broker, *subjects: str, data: bytes = b"x") -> list[int]:
    """Store one message for each subject, in order; where they stand."""
    answers = [broker.ask(subject, data) for subject in subjects]
    return [json.loads((await answer).data)["seq"] for answer in answers]


async def back(broker: Broker, subject: str, wanted: int, before: int | None = None) -> list[Block]:
    """The blocks on the way to the first message, the last one first."""
    blocks = [await block(broker, subject, before, wanted)]
    while blocks[-1].start > 1:
        assert before is None or blocks[-1].start < before
        before = blocks[-1].start
        blocks.append(await block(broker, subject, before, wanted))
    return blocks


def seqs(blocks: list[Block]) -> list[int]:
    """What was found, in the order of the log."""
    return [record.seq for found in reversed(blocks) for record in found.records]


async def purge(nats: NatsServer, **what: object) -> None:
    """Take something out of the log, as an operator may."""
    client = await nats.client("provisioner")
    reply = await client.request("$JS.API.STREAM.PURGE.LOG", json.dumps(what).encode())
    assert json.loads(reply.data)["success"]
    await client.close()


@pytest.mark.parametrize("wanted", [1, 7, 100])
async def test_going_back_finds_every_message_once_and_in_order_among_those_of_other_topics(
    edge: Broker, wanted: int
) -> None:
    """Promise: history pages backwards. A block has what was wanted, and not much more."""
    lots = random.Random(wanted)
    subjects = [lots.choice(TOPICS).fact(lots.choice(("message", "client"))) for _ in range(600)]
    stored = await store(edge, *subjects)
    for subject in (LANE, TOPIC.facts):
        mine = [seq for seq, name in zip(stored, subjects, strict=True) if name.startswith(subject.rstrip(">"))]
        blocks = await back(edge, subject, wanted)
        assert seqs(blocks) == mine
        assert all(wanted <= len(found.records) <= ROOM * wanted for found in blocks[:-1])
        assert {record.subject for found in blocks for record in found.records} <= set(subjects)


async def test_messages_that_lie_far_apart_in_a_long_log_are_all_found(edge: Broker) -> None:
    """A topic of a week ago is no other than one of today."""
    mine: list[int] = []
    for gap in (0, 1000, 3, 500, 0, 300):
        await store(edge, *[OTHER.fact("message")] * gap)
        mine += await store(edge, LANE, LANE)
    await store(edge, *[OTHER.fact("message")] * 1200)
    for wanted in (1, 2, 50):
        assert seqs(await back(edge, LANE, wanted)) == mine


async def test_it_begins_before_a_place_wherever_that_is(edge: Broker) -> None:
    """None is the end; nothing is before the first place; beyond the end there is nothing more to find."""
    mine = (await store(edge, *[LANE, OTHER.fact("message")] * 20))[::2]
    assert (await block(edge, LANE, None, 3)).records[-1].seq == mine[-1]
    for nowhere in (1, 0, -5):
        assert await block(edge, LANE, nowhere, 3) == Block(1, [])
    for before in (2, mine[7], mine[7] + 1, mine[-1], mine[-1] + 1, 10**15):
        assert seqs(await back(edge, LANE, 2, before)) == [seq for seq in mine if seq < before]
    assert await block(edge, TOPICS[3].facts, None, 3) == Block(1, [])
    assert await block(edge, TOPICS[3].facts, 30, 3) == Block(1, [])


async def test_what_was_purged_from_the_log_is_no_end_and_no_hole(edge: Broker, nats: NatsServer) -> None:
    """An operator takes messages out; what is left is found."""
    mine: list[int] = []
    for _ in range(10):
        mine += await store(edge, *[LANE] * 5)
        await store(edge, *[OTHER.fact("message"), TOPIC.fact("client")] * 20)
    await purge(nats, filter=OTHER.fact("message"))
    await purge(nats, filter=TOPIC.fact("client"))
    await purge(nats, filter=LANE, seq=mine[3])
    for wanted in (1, 4, 30):
        for subject in (LANE, TOPIC.facts):
            assert seqs(await back(edge, subject, wanted)) == mine[3:]
    await purge(nats, filter=LANE)
    assert seqs(await back(edge, LANE, 4, mine[-1])) == []


async def test_a_block_begins_later_where_its_messages_are_large(edge: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a page costs a bounded amount of memory. One that is larger than that alone is found."""
    monkeypatch.setattr(backwards, "MOST_BYTES", 3500)
    mine = await store(edge, *[LANE] * 10, data=b"x" * 1000)
    mine += await store(edge, LANE, data=b"x" * 5000)
    mine += await store(edge, *[LANE] * 10, data=b"x" * 1000)
    blocks = await back(edge, LANE, 8)
    assert seqs(blocks) == mine
    assert max(len(found.records) for found in blocks) == 3


async def test_what_is_stored_meanwhile_does_not_disturb(edge: Broker) -> None:
    """Counts are taken while others write: they decide how large a block is, not what is in it."""
    mine = await store(edge, *[LANE, OTHER.fact("message")] * 100)
    found, before = list[int](), mine[-1]
    while before > 1:
        earlier, _ = await asyncio.gather(block(edge, LANE, before, 5), store(edge, *[LANE] * 10))
        found = [*(record.seq for record in earlier.records), *found]
        before = earlier.start
    assert found == mine[:-1:2]


async def test_a_block_costs_the_same_in_a_log_of_5000_messages_as_in_one_of_200(edge: Broker) -> None:
    """Promise: any page of a long session costs what that of a short one costs. Older messages cost no scan either."""
    costs: list[tuple[int, int]] = []
    for topic, number in ((TOPIC, 200), (OTHER, 5000)):
        stored = await store(edge, *[topic.fact("message")] * number)
        for before in (stored[-1] + 1, stored[number // 2]):
            with counted(edge) as count:
                found = await block(edge, topic.fact("message"), before, 20)
            assert 20 <= len(found.records) <= ROOM * 20
            costs.append((count.requests, count.records))
    assert max(requests for requests, _ in costs) <= 6  # one more where a page ended early
    assert max(records for _, records in costs) <= 6 + ROOM * 20
    with counted(edge) as count:
        found = await block(edge, LANE, None, 20)
    assert found.records[-1].seq == 200
    assert count.requests <= 2 * log2(5200) + 5
    assert count.records <= count.requests + ROOM * 20


async def test_what_stands_at_places_is_read_and_what_is_gone_is_left_out(edge: Broker, nats: NatsServer) -> None:
    """A snapshot reads its long messages again; the log may hold one no more."""
    for number in range(5):
        await store(edge, OTHER.fact("message") if number == 2 else LANE, data=b"%d" % number)
    await purge(nats, filter=OTHER.fact("message"))
    assert await at(edge, [5, 3, 1, 99]) == {5: b"4", 1: b"0"}
    assert await at(edge, []) == {}


async def test_a_replica_that_is_behind_is_waited_for() -> None:
    """FACTS 1.2: any replica may answer; what the leader has told of is not missed."""
    held, behind = list(range(1, 31)), iter([12, 12, 12, 12, 20, 20, 20])
    pages: list[int] = []

    def answer(connection: FakeConnection, message: Message) -> None:
        if message.subject == "$JS.API.STREAM.MSG.GET.LOG":
            connection.send(message.reply, json.dumps({"message": {"seq": held[-1]}}).encode())
        elif message.subject == "$JS.API.DIRECT.GET.LOG":
            known = next(behind, held[-1])
            asked = json.loads(message.data)
            there = [seq for seq in held if asked["seq"] <= seq <= known]
            for place, seq in enumerate(there[: asked["batch"]], 1):
                left = len(there) - place
                stored = f"\r\nNats-Sequence: {seq}\r\nNats-Subject: {LANE}\r\nNats-Num-Pending: {left}"
                connection.send(message.reply, b"x", headers=stored)
            connection.send(message.reply, b"", headers=" 204 EOB" if there else " 404 Not Found")
            pages.append(len(there))

    async with fake_nats() as fake, connect(fake.url, "edge") as broker:
        fake.on_publish = answer
        found = await block(broker, LANE, None, 5)
    assert [record.seq for record in found.records] == held[-ROOM * 5 :]
    assert found.start == found.records[0].seq, "more than was counted came: the block begins later"
    assert 0 in pages, "no replica was behind"
