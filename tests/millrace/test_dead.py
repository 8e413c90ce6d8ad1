"""`millrace dead`: what could not be accepted, or failed, is looked at and said again."""

import json
from base64 import b64encode

import msgspec
import pytest

from broker.dead import KEPT_DATA, Letter
from contracts import events
from contracts.events import AnyEvent
from contracts.subjects import Topic, dead
from millrace.redrive import again
from tests.harness.history import read_log
from tests.harness.nats_server import NatsServer
from tests.millrace.conftest import Millrace, refused, said

pytestmark = pytest.mark.anyio

TOPIC = Topic.session("acme", "s1")
MESSAGE = events.Message(
    id="e1",
    timestamp=events.timestamp(),
    session_id="s1",
    message_id="m1",
    role="user",
    content="try this",
    user_id="ann",
    client_message_id="c1",
    policy="steer",
    metadata={"colour": "blue"},
)

WHOLE = events.encode(MESSAGE)


def letter(payload: bytes = WHOLE, *, message_id: str | None = "m1", subject: str = "") -> Letter:
    """The letter of a message whose turn failed."""
    return Letter(
        id="0" * 32,
        tenant="acme",
        reason="model_unavailable",
        error="the model cannot be reached",
        subject=subject or TOPIC.message(),
        headers={},
        data=b64encode(payload[:KEPT_DATA]).decode(),
        size=len(payload),
        received_at=events.timestamp(),
        session_id="s1",
        message_id=message_id,
    )


async def store(nats: NatsServer, *payloads: bytes) -> None:
    """Store dead letters."""
    client = await nats.client("agent_runner")
    for payload in payloads:
        await client.request(dead("acme"), payload)
    await client.close()


SESSION = events.SessionUpdated(
    id="e0", timestamp=events.timestamp(), session_id="s1", user_id="ann", title=None, state="active"
)


async def happened(nats: NatsServer, *more: AnyEvent, status: events.TurnStatus | None = "failed") -> None:
    """What the log holds of that message: its session, itself, how its turn ended, and what came then."""
    facts: list[AnyEvent] = [SESSION, MESSAGE]
    if status:
        for message_id in ("m0", "m1"):
            told = events.TurnEnd(
                id=f"t-{message_id}", timestamp=events.timestamp(), session_id="s1", reply_to=message_id, status=status
            )
            facts.append(told if message_id == "m1" else msgspec.structs.replace(told, status="steered"))
    edge, runner = await nats.client("edge"), await nats.client("agent_runner")
    for fact in (*facts, *more):
        client, lane = edge, "client"
        if isinstance(fact, events.TurnEnd):
            client, lane = runner, "agent"
        subject = TOPIC.message() if isinstance(fact, events.Message) else TOPIC.fact(lane)  # type: ignore[arg-type]
        await client.request(subject, events.encode(fact))
    await edge.close()
    await runner.close()


async def messages(nats: NatsServer) -> list[dict[str, object]]:
    """What was said in the log."""
    client = await nats.client("provisioner")
    log = await read_log(client, 0)
    await client.close()
    return [record.event for record in log if record.type == "message"]


async def test_dead_letters_are_printed_as_json_lines_the_oldest_first(nats: NatsServer, millrace: Millrace) -> None:
    """WIRE 6: `millrace dead list`."""
    client = await nats.client("event_ingest")
    for number in range(700):
        letter = json.dumps({"reason": "no such session", "n": number}).encode()
        await client.publish("dead.acme", letter)
    await client.request("dead.acme", b"not JSON", timeout=20)
    await client.close()
    letters = [json.loads(line) for line in (await said(millrace, "dead", "list")).splitlines()]
    assert letters[0] == {"reason": "no such session", "n": 0, "sequence": 1}
    assert [letter["sequence"] for letter in letters] == list(range(1, 702))
    assert letters[-1]["payload"] == "not JSON"


async def test_without_dead_letters_nothing_is_printed(nats: NatsServer, millrace: Millrace) -> None:
    """Our choice: silence is for scripts."""
    assert await said(millrace, "dead", "list") == ""


async def test_a_message_is_said_again_once_however_often_it_is_redriven(nats: NatsServer, millrace: Millrace) -> None:
    """Our choice: by the same person, as a message of its own that names the one before; the letter stays."""
    await happened(nats)
    await store(nats, msgspec.json.encode(letter()))
    first = await said(millrace, "dead", "redrive", "1")
    assert await said(millrace, "dead", "redrive", "1", "1") == f"{first}\n{first}"
    _, message = await messages(nats)
    assert message["message_id"] == first != "m1"
    assert (message["content"], message["user_id"], message.get("policy", "enqueue")) == ("try this", "ann", "enqueue")
    assert message["metadata"] == {"colour": "blue", "redrive_of": "m1"}
    assert len((await said(millrace, "dead", "list")).splitlines()) == 1


async def test_what_cannot_be_redriven_is_one_line_and_nothing_is_said(nats: NatsServer, millrace: Millrace) -> None:
    """Our choice: all of the letters that were asked for, or none."""
    await happened(nats)
    whole, event = letter(), letter(message_id=None)
    cut = letter(b'{"type":"message","content":"' + b"x" * KEPT_DATA)
    odd = letter(b'{"type":"cancel"}')
    await store(nats, *map(msgspec.json.encode, (whole, event, cut, odd)), b"not JSON")
    for sequences, words in (
        (["2"], ["2", "no message"]),
        (["1", "3"], ["3", "a part"]),
        (["4"], ["4", "a part"]),
        (["5"], ["5", "cannot be read"]),
        (["6"], ["6", "no dead letter"]),
        (["0"], ["0", "no dead letter"]),
        ([], ["sequences"]),
    ):
        async with millrace("dead", "redrive", *sequences) as running:
            await refused(running, 2, *words)
    async with millrace("dead", "list", "1") as running:
        await refused(running, 2, "takes none")
    assert len(await messages(nats)) == 1


@pytest.mark.parametrize(
    ("status", "more", "words"),
    [
        ("completed", [], "ended as completed"),
        ("cancelled", [], "ended as cancelled"),
        (None, [], "has not ended"),
        ("failed", [msgspec.structs.replace(SESSION, id="e9", state="closed")], "s1 is closed"),
        ("failed", [msgspec.structs.replace(SESSION, id="e9", state="deleted")], "s1 is gone"),
    ],
    ids=["completed", "cancelled", "running", "closed", "deleted"],
)
async def test_a_message_is_not_said_again_where_it_was_answered_or_nobody_would_see_it(
    nats: NatsServer, millrace: Millrace, status: events.TurnStatus | None, more: list[AnyEvent], words: str
) -> None:
    """Promise P1: answered once. The letter is there before its turn ends, and may have been overtaken."""
    await happened(nats, *more, status=status)
    await store(nats, msgspec.json.encode(letter()))
    async with millrace("dead", "redrive", "1") as running:
        await refused(running, 2, "dead letter 1", words)
    assert len(await messages(nats)) == 1


async def test_where_one_is_not_said_again_none_is(nats: NatsServer, millrace: Millrace) -> None:
    """Our choice: all of the letters that were asked for, or none."""
    await happened(nats)
    other = Topic.session("acme", "never")
    await store(nats, msgspec.json.encode(letter()), msgspec.json.encode(letter(subject=other.message())))
    async with millrace("dead", "redrive", "1", "2") as running:
        await refused(running, 2, "dead letter 2", "never is gone")
        assert running.text == ""
    assert len(await messages(nats)) == 1


def test_a_message_goes_to_the_group_that_it_went_to() -> None:
    """Whose runner it waits for; see groups of agents."""
    redriven = again(1, letter(subject=TOPIC.message("cpu")))
    assert (redriven.to.group, redriven.to.topic) == ("cpu", TOPIC)
    assert again(1, letter()).to.group == "default"
