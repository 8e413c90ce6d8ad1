"""A random workload: what clients say in one session, which tools they approve, when they drop or cancel."""

import asyncio
import json
import random
import uuid
from typing import Any

import nats.errors
from msgspec import Struct
from nats.aio.client import Client

from tests.harness.caller import Caller
from tests.harness.history import Frame, History, Published

POLICIES = ("enqueue",) * 7 + ("reject", "interrupt", "steer")
ANSWERS = ("yes", "yes", "yes", "no", "never")

Program = list[dict[str, Any]]


class Words:
    """What is said in one session: every text carries the tenant's canary and the round's mark."""

    def __init__(self, chance: random.Random, mark: str, agent: str) -> None:
        self.chance = chance
        self.mark = mark
        self._agent = agent
        self._number = 0

    def _unique(self) -> str:
        self._number += 1
        return f"{self.mark} {self._number}"

    def _step(self) -> dict[str, Any]:
        chance = self.chance
        steps: list[dict[str, Any]] = [
            {"stream": {"deltas": chance.randrange(1, 60), "interval_ms": chance.choice((0, 2, 10, 25))}},
            {"stream": {"deltas": chance.randrange(20, 60), "interval_ms": chance.choice((10, 25))}},
            {"say": f"said {self._unique()}"},
            {"tool": "demo.add", "arguments": {"a": chance.randrange(9), "b": 1}},
            {"tool": "demo.note", "arguments": {"text": f"{self._unique()} {chance.choice(ANSWERS)}"}},
            {"tool": "demo.note", "arguments": {"text": f"{self._unique()} {chance.choice(ANSWERS)}"}},
            {"tool": "demo.slow", "arguments": {"seconds": chance.choice((0.2, 0.6, 1.2))}},
            {"workflow": {"id": uuid.uuid4().hex, "steps": ["a", "b", "c"], "interval_ms": 20}},
            {"sleep_ms": chance.choice((1, 100, 400))},
        ]
        return chance.choice(steps)

    def content(self) -> str | Program:
        """What a message says: a text, or a program that may fail."""
        if self._agent == "pairing":
            return [
                {"text": f"{self._unique()} {self.chance.choice(ANSWERS)}"} for _ in range(self.chance.randrange(3))
            ]
        if self.chance.random() < 0.15:
            return f"echo {self._unique()} of several words"
        program = [self._step() for _ in range(self.chance.randrange(1, 5))]
        return program + [{"fail": "as told"}] * (self.chance.random() < 0.1)


def approve(request: Frame) -> bool | None:
    """The decision that a note asks for in its own text."""
    word = request["arguments"]["text"].rpartition(" ")[2]
    return {"yes": True, "no": False}.get(word)


async def converse(caller: Caller, words: Words, messages: int) -> None:
    """Say that many things, each until it is accepted or refused; now and then cancel, repeat or drop."""
    chance = words.chance
    for _ in range(messages):
        policy = chance.choice(POLICIES)
        sent = await caller.say(words.content(), policy)
        if chance.random() < 0.2:
            await asyncio.sleep(chance.random() * 0.5)
            await caller.cancel(chance.choice([None, *sent.message_ids]))
        if chance.random() < 0.15 and sent.outcome == "accepted":
            await caller.say(sent.content, policy, sent)
        if chance.random() < 0.25:
            await caller.drop()
        await asyncio.sleep(chance.random() * 0.3)


class Target(Struct, frozen=True):
    """Where an external event is to go."""

    tenant: str
    attributes: dict[str, str]


async def publish(client: Client, history: History, target: Target, text: str) -> None:
    """Publish an external event until there is a receipt for it."""
    event_id = uuid.uuid4().hex
    headers = {
        "ce-specversion": "1.0",
        "ce-id": event_id,
        "ce-source": "/chaos",
        "ce-type": "thing.happened",
        "ce-datacontenttype": "application/json",
        **{f"ce-{name}": value for name, value in target.attributes.items()},
    }
    subject, data = f"ingest.{target.tenant}.chaos.thing.happened", json.dumps({"text": text}).encode()
    while True:
        try:
            receipt = json.loads((await client.request(subject, data, timeout=2, headers=headers)).data)
            if "seq" in receipt:
                break
        except (nats.errors.Error, TimeoutError, OSError):
            pass
        await asyncio.sleep(0.1)
    history.published.append(Published(target.tenant, "/chaos", event_id))
