"""What a broker may answer to an append, beside that it is stored or refused: tried again, or told to the caller."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker import append as appending
from broker.append import Append, LogFull, OutcomeUnknown, Stored, append, conditional
from broker.connect import Broker, Rejected, connect
from contracts.subjects import Topic
from tests.harness.fake_nats import FakeConnection, FakeNats, fake_nats
from tests.harness.nats_server import NatsServer, nats_server
from tests.harness.wire import Message

pytestmark = pytest.mark.anyio

TOPIC = Topic.session("acme", "s1")
WHAT = conditional(TOPIC, TOPIC.delta, b"what", "id", 0, ttl=3600)

NOBODY = " 503"
SILENCE = ""
STORED = '{"stream":"LOG","seq":7}'


def error(code: int, err_code: int, description: str = "") -> str:
    """A refusal in the broker's words."""
    return json.dumps({"stream": "LOG", "error": {"code": code, "err_code": err_code, "description": description}})


FULL = error(503, 10077, "maximum bytes exceeded")
FORGETS = error(400, 10071, "wrong last sequence: 9")


class Script:
    """A fake broker's answers to appends, one after the other; the last one stays."""

    def __init__(self, fake: FakeNats, broker: Broker) -> None:
        self.broker = broker
        self.answers: list[str] = []
        self.appends: list[Message] = []
        fake.on_publish = self._answer

    def _answer(self, connection: FakeConnection, message: Message) -> None:
        if not message.subject.startswith("log."):
            return
        self.appends.append(message)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer == NOBODY:
            connection.send(message.reply, b"", headers=answer)
        elif answer != SILENCE:
            connection.send(message.reply, answer.encode())


@pytest.fixture
async def script(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Script]:
    monkeypatch.setattr(appending, "ATTEMPT_TIMEOUT", 0.1)
    monkeypatch.setattr(appending, "BACKOFF", (0.001, 0.01))
    async with fake_nats() as fake, connect(fake.url, "agent_runner") as broker:
        yield Script(fake, broker)


@pytest.mark.parametrize(
    "answer",
    [
        NOBODY,
        error(409, 10158, "duplicate message id is in process"),
        error(400, 10164, "wrong last sequence"),
        error(503, 10008, "JetStream system temporarily unavailable"),
        error(503, 10077, "store is closed"),
        error(429, 10167, "too many requests"),
    ],
)
async def test_what_may_pass_is_tried_again_with_the_same_bytes(answer: str, script: Script) -> None:
    """FACTS P16: nats-py gives up when there is no leader; an election takes seconds."""
    script.answers = [answer] * 5 + [STORED]
    assert await append(script.broker, WHAT) == Stored(7)
    first, *more = script.appends
    assert len(more) == 5
    assert all((again.headers, again.data) == (first.headers, first.data) for again in more)


async def test_what_may_pass_is_tried_again_also_when_it_is_in_doubt(script: Script) -> None:
    script.answers = [SILENCE, NOBODY, STORED]
    assert await append(script.broker, WHAT) == Stored(7)


async def test_a_log_that_is_full_is_said_to_be(script: Script) -> None:
    script.answers = [FULL]
    with pytest.raises(LogFull):
        await append(script.broker, WHAT)
    assert len(script.appends) == 1


@pytest.mark.parametrize("answer", [FULL, error(400, 10054, "message size exceeds maximum allowed")])
async def test_an_append_in_doubt_is_never_said_not_to_be_stored(answer: str, script: Script) -> None:
    """The first try may be stored, or be stored yet: what is true of the second says nothing of it."""
    script.answers = [SILENCE, answer]
    with pytest.raises(OutcomeUnknown):
        await append(script.broker, WHAT, deadline=0.3)


async def test_an_append_that_is_never_stored_is_rejected(script: Script) -> None:
    script.answers = [error(400, 10054, "message size exceeds maximum allowed")]
    with pytest.raises(Rejected):
        await append(script.broker, WHAT)
    assert len(script.appends) == 1


async def test_a_refusal_in_doubt_is_not_taken_for_one_while_the_log_cannot_be_read(script: Script) -> None:
    script.answers = [SILENCE, FORGETS]
    with pytest.raises(OutcomeUnknown):
        await append(script.broker, WHAT, deadline=0.5)


async def test_a_full_log_takes_appends_again_when_it_has_room(tmp_path: Path) -> None:
    """A real one: what was refused is not stored."""
    async with (
        nats_server(tmp_path / "nats", log_bytes=1 << 20) as nats,
        connect(nats.url, "agent_runner", seed_file=nats.seed("agent_runner")) as broker,
    ):
        number = await _fill(broker)
        with pytest.raises(LogFull):
            await append(broker, Append(TOPIC.fact("agent"), b"x" * 64_000, "refused"))
        await _purge(nats)
        assert await append(broker, WHAT) == Stored(number + 1)


async def _fill(broker: Broker) -> int:
    number = 0
    while True:
        try:
            await append(broker, Append(TOPIC.delta, b"x" * 64_000, f"{number}"))
        except LogFull:
            break
        number += 1
    while True:
        try:
            await append(broker, Append(TOPIC.delta, b"x", f"{number}"))
        except LogFull:
            return number
        number += 1


async def _purge(nats: NatsServer) -> None:
    client = await nats.client("provisioner")
    assert json.loads((await client.request("$JS.API.STREAM.PURGE.LOG", b"")).data)["success"]
    await client.close()
