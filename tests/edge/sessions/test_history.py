"""History: pages of messages and answers back to the first one, each shown once."""

from typing import Any

import msgspec
import pytest

from contracts import events
from contracts import view as viewing
from contracts.errors import Code, MillraceError
from contracts.subjects import Topic
from edge import folds, history, snapshot
from tests.contracts import facts as a
from tests.edge.sessions.writers import Writers, kept_upto, turns, updated
from tests.harness.counted import counted

pytestmark = pytest.mark.anyio

Page = tuple[list[str], str | None]


async def page(log: Writers, topic: Topic, before: str | None, limit: int) -> Page:
    """The ids of one page, and where the page before it ends."""
    found, earlier = await history.messages(log.edge, topic, int(before) if before else None, limit)
    return [message["message_id"] for message in found], earlier


async def pages(log: Writers, topic: Topic, limit: int, before: str | None = None) -> list[list[str]]:
    """All pages, the last one first. `before` always gets smaller, so this ends."""
    found: list[list[str]] = []
    while True:
        ids, earlier = await page(log, topic, before, limit)
        found.append(ids)
        if earlier is None:
            return found
        assert before is None or int(earlier) < int(before)
        before = earlier


def in_order(found: list[list[str]]) -> list[str]:
    """The pages as one conversation."""
    return [message_id for ids in reversed(found) for message_id in ids]


def of_turns(number: int) -> list[str]:
    """What `turns` shows."""
    return [message_id for place in range(number) for message_id in (f"m{place}", f"a-m{place}")]


@pytest.fixture(scope="module")
async def long(log: Writers) -> Topic:
    """A session of 130 messages and answers, among facts of another one."""
    topic, other = Topic.session("acme", "long"), Topic.session("acme", "beside")
    await log.write(topic, updated())
    for part in range(13):
        await log.write(topic, *turns(5, first=5 * part))
        await log.write(other, *turns(5))
    return topic


@pytest.mark.parametrize("limit", [1, 7, 50, 129, 130, 200])
async def test_pages_lead_back_to_the_first_message_and_miss_and_repeat_nothing(
    log: Writers, long: Topic, limit: int
) -> None:
    """Promise: history pages backwards. Only the page with the first message may be shorter."""
    found = await pages(log, long, limit)
    assert in_order(found) == of_turns(65)
    assert [len(ids) for ids in found if ids] == [limit] * (130 // limit) + ([130 % limit] if 130 % limit else [])


async def test_a_page_begins_before_a_place_and_there_is_none_before_the_start(log: Writers, long: Topic) -> None:
    """A place beyond the end is the end; before the first place there is nothing."""
    whole = of_turns(65)
    ids, earlier = await page(log, long, None, 10)
    assert ids == whole[-10:]
    assert (await page(log, long, earlier, 3))[0] == whole[-13:-10]
    assert await page(log, long, str(10**15), 10) == (ids, earlier)
    assert await page(log, long, "1", 10) == ([], None)
    assert await history.messages(log.edge, long, 0, 10) == ([], None)


async def test_the_page_before_a_snapshot_joins_on_to_it(log: Writers, long: Topic) -> None:
    """A client scrolls up from what it was shown when it joined."""
    view, active, _ = await snapshot.take(log.edge, long)
    frame = view.frame(long, "cursor", active)
    shown = [message["message_id"] for message in msgspec.to_builtins(frame)["messages"]]
    assert frame.before
    assert in_order([shown, *await pages(log, long, 30, frame.before)]) == of_turns(65)


async def test_any_page_costs_a_bounded_number_of_requests(log: Writers, long: Topic) -> None:
    """Promise: however far back it is, and whether the view has it or the log is read."""
    before: str | None = None
    for _ in range(13):
        with counted(log.edge) as cost:
            ids, before = await page(log, long, before, 10)
        assert len(ids) == 10
        assert cost.requests <= 30
        assert cost.records <= 250
    assert before is None


async def test_a_long_message_of_a_kept_view_is_read_again(log: Writers, topic: Topic) -> None:
    """The view has its place only. One that the log has no more is left out, and the page goes further back."""
    long = "x" * (2 * viewing.LONG)
    said = [msgspec.structs.replace(a.message(f"long{number}"), content=long) for number in range(2)]
    last = (await log.write(topic, *turns(20), *said, *[a.cancel("nobody")] * 2))[-1]
    await folds.fold(log.edge, topic)
    await kept_upto(log, topic, last)
    found, _ = await history.messages(log.edge, topic, None, 3)
    assert [message["content"] for message in found] == ["x", long, long]
    await log.operate("PURGE.LOG", filter=topic.fact("message"))
    assert in_order(await pages(log, topic, 7))[-3:] == ["a-m18", "m19", "a-m19"]


async def test_messages_come_as_they_were_said(log: Writers, topic: Topic) -> None:
    """A question as it is stored, an answer as a message of the assistant."""
    attached = events.Attachment(name="a.txt", media_type="text/plain", url="https://x.test/a")
    said = msgspec.structs.replace(a.message("m"), attachments=[attached], metadata={"n": [1, None]})
    thought = msgspec.structs.replace(a.stream_end("a", "m"), content="Grüße", thinking="Hm.", finish_reason="length")
    await log.write(topic, said, a.turn_start("m"), a.stream_start("a", "m"), thought, a.turn_end("m"))
    found, earlier = await history.messages(log.edge, topic, None, 10)
    question: dict[str, Any] = found[0]
    assert (question["content"], question["metadata"], question["user_id"]) == ("m", {"n": [1, None]}, "u")
    assert question["attachments"] == [msgspec.to_builtins(attached)]
    answer = {name: found[1][name] for name in ("role", "content", "thinking", "reply_to", "finish_reason")}
    assert list(answer.values()) == ["assistant", "Grüße", "Hm.", "m", "length"]
    assert earlier is None


@pytest.mark.parametrize("in_view", [1, 5, viewing.MESSAGES])
@pytest.mark.parametrize("limit", [1, 3, 50])
async def test_what_was_stored_again_is_shown_where_it_was_first(
    log: Writers, topic: Topic, limit: int, in_view: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client or a runner that does not know whether it was stored stores it again."""
    monkeypatch.setattr(viewing, "MESSAGES", in_view)
    await log.write(topic, *turns(2), a.message("m0"), *turns(2, first=2), a.message("m1"), a.message("m3"))
    await log.write(topic, a.message("m4"), a.turn_start("m4"), a.stream_start("a-m4", "m4"))
    await log.write(topic, *[a.stream_end("a-m4", "m4")] * 3, a.message("m4"))
    assert in_order(await pages(log, topic, limit)) == of_turns(5)


@pytest.mark.parametrize("limit", [1, 3, 50])
async def test_messages_of_an_agent_that_changed_its_group_are_one_history(
    log: Writers, topic: Topic, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our choice: old messages stay in the subject of the old group, new ones go to that of the new."""
    monkeypatch.setattr(viewing, "MESSAGES", 1)
    for part, group in enumerate(["default", "cpu", "default", "gpu"]):
        await log.write(topic, *turns(5, first=5 * part), group=group)
    await log.write(topic, a.message("m3"), group="cpu")  # stored again
    assert in_order(await pages(log, topic, limit)) == of_turns(20)


async def test_messages_that_lie_far_apart_are_all_found_on_short_pages(
    log: Writers, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page may be shorter, even empty, and is not the last one while it says where to go on."""
    monkeypatch.setattr(history, "ROUNDS", 3)
    monkeypatch.setattr(viewing, "MESSAGES", 1)
    for number in range(3):
        called = [a.tool_call(f"c{number}", "m1"), a.tool_result(f"c{number}", "m1")] * 30
        told = [a.step("m1", f"step {place}") for place in range(250)]
        await log.write(topic, a.message(f"m{number}"), *called, *told, a.stream_end(f"a-m{number}", f"m{number}"))
    found = await pages(log, topic, 1)
    assert in_order(found) == of_turns(3)
    assert [] in found[:-1], "no page was empty before the last: the facts are too few for this test"
    assert in_order(await pages(log, topic, 4)) == of_turns(3)


async def test_a_session_without_messages_has_one_empty_page(log: Writers, topic: Topic) -> None:
    """Also one of which there is nothing at all."""
    assert await page(log, topic, None, 10) == ([], None)
    await log.write(topic, updated())
    assert await page(log, topic, None, 10) == ([], None)


async def test_a_deleted_session_has_no_history(log: Writers, topic: Topic) -> None:
    """Promise: reads answer 404."""
    await log.write(topic, *turns(3), updated("deleted"))
    with pytest.raises(MillraceError) as refused:
        await page(log, topic, None, 10)
    assert refused.value.code is Code.SESSION_NOT_FOUND
