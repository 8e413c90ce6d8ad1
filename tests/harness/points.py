"""Every point at which a process may die or hang, with the scenarios that surely reach it.

A new point is one line here: the random rounds take it from this table, and the directed ones too.
"""

import random
from fnmatch import fnmatchcase
from typing import Any, Literal

from msgspec import Struct

Act = Literal["", "cancel", "steer", "interrupt", "stop", "take over"]


class Scenario(Struct, frozen=True):
    """A program for the agent `script`, and what happens while it runs. `NOTE` becomes a text of its own.

    Another `agent` takes it as any text.
    `stop`: the service is told to stop in mid-stream, or while it waits for an approval. `take over`: it dies there,
    and the one with the fault comes next.
    """

    program: list[dict[str, Any]]
    act: Act = ""
    agent: str = "script"


def _stream(deltas: int) -> dict[str, Any]:
    return {"stream": {"deltas": deltas, "interval_ms": 15}}


def _note(decision: str) -> dict[str, Any]:
    return {"tool": "demo.note", "arguments": {"text": f"NOTE {decision}"}}


_ADD = {"tool": "demo.add", "arguments": {"a": 2, "b": 3}}
_SLOW = {"tool": "demo.slow", "arguments": {"seconds": 0.8}}
_FLOW = {"workflow": {"id": "NOTE flow", "steps": ["a", "b", "c"], "interval_ms": 40}}
_DONE = {"say": "done"}

SCENARIOS = {
    "stream": Scenario([_stream(40), _DONE]),
    "two answers": Scenario([_stream(20), _ADD, _stream(20)]),
    "add": Scenario([_ADD, _DONE]),
    "slow": Scenario([{"say": "wait"}, _SLOW, _DONE]),
    "note": Scenario([{"say": "may I?"}, _note("yes"), _DONE]),
    "no note": Scenario([_note("no"), _DONE]),
    "workflow": Scenario([_FLOW, _DONE]),
    "failure": Scenario([_stream(10), {"fail": "as told"}]),
    "cancel": Scenario([_stream(120)], "cancel"),
    "steer": Scenario([_stream(40), _ADD, _DONE], "steer"),
    "late steer": Scenario([_stream(40)], "steer"),
    "interrupt": Scenario([_stream(120)], "interrupt"),
    "steps": Scenario([], agent="stepping"),
    "side by side": Scenario([{"text": "NOTE yes"}, {"text": "NOTE no"}], agent="pairing"),
    "overdue": Scenario([_stream(200)], agent="overdue"),
    "stop asking": Scenario([_note("later")], "stop"),
    "stop": Scenario([_stream(90), _DONE], "stop"),
    "take over": Scenario([_stream(90), _DONE], "take over"),
}

TOOLS = ("note", "add", "slow", "side by side")

POINTS: dict[str, dict[str, tuple[str, ...]]] = {
    "agent_runner": {
        "append:turn_start": ("stream", "side by side"),
        "append:agent_status": ("note", "add", "side by side"),
        "append:stream_start": ("stream", "two answers"),
        "append:stream_delta": ("stream", "two answers"),
        "append:stream_reset": ("take over",),
        "append:stream_end": ("two answers", "cancel", "interrupt", "steps"),
        "append:tool_call": ("note", "add", "side by side", "side by side:2", "steps"),
        "append:workflow_progress": ("workflow", "workflow:2"),
        "append:steer_applied": ("steer",),
        "append:steer_missed": ("late steer",),
        "append:step": ("steps", "steps:2"),
        "append:turn_end": ("stream", "note", "failure", "cancel", "steer", "steer:2", "interrupt", "overdue"),
        "append:letter": ("overdue",),
        "append:turn_release": ("stop",),
        "append:error": ("failure",),
        "settle:ack": ("stream", "cancel", "interrupt", "failure"),
        "settle:nak": ("stop",),
    },
    "tool_runner": {
        "append:tool_approval_request": ("note", "no note", "side by side", "side by side:2"),
        "append:tool_started": TOOLS,
        "append:tool_progress": ("slow", "side by side"),
        "append:tool_result": (*TOOLS, "no note", "side by side:2", "side by side:3"),
        "call": TOOLS,
        "settle:ack": (*TOOLS, "no note"),
        "settle:nak": ("stop asking",),
    },
    "edge": {
        "append:message": ("stream", "side by side"),
        "append:cancel": ("cancel",),
        "append:tool_approval": ("note", "no note", "side by side", "side by side:2"),
    },
    "event_ingest": {
        "append:external_event": (),
        "settle:ack": (),
    },
}
"""Where a turn may be hit, and by which scenarios, of `name:2` the second time that it comes there.

Those of event_ingest have none: they are for the random rounds, and tests/event_ingest.
"""

ACTS = ("kill", "pause")
SIDES = ("before", "after")


class Combination(Struct, frozen=True):
    """One point, what happens there, and the scenario that reaches it for the `nth` time."""

    service: str
    point: str
    act: str
    scenario: str
    nth: int = 1

    @property
    def name(self) -> str:
        """How a person asks for it: `--crash-points NAME`."""
        return f"{self.service}:{self.point}:{self.act}"

    def __str__(self) -> str:
        """With its scenario."""
        return f"{self.name} ({self.scenario}, {self.nth})"


def deck(service: str, chance: random.Random, kind: int) -> list[Combination]:
    """Every combination of a service in a random order, in which no point comes again before each has come.

    A point takes its scenarios in turn: another before than after, by kill than by pause, and for another `kind`.
    """
    points = [(point, side) for point in POINTS[service] for side in (0, 1)]
    chance.shuffle(points)
    first = chance.randrange(8)
    combinations = []
    for turn in range(len(ACTS)):
        for number, (point, side) in enumerate(points):
            act = (number + turn) % len(ACTS)
            scenarios = POINTS[service][point]
            scenario, _, nth = scenarios[(first + 4 * side + 2 * kind + act) % len(scenarios)].partition(":")
            combinations.append(Combination(service, f"{point}:{SIDES[side]}", ACTS[act], scenario, int(nth or "1")))
    return combinations


def hands(chance: random.Random, wanted: str, offset: float) -> list[tuple[Combination, ...]]:
    """What is done in each round: a combination of several services at once, as far as there are any.

    `wanted`: how many rounds, `all` or a pattern of names. `offset`: where in the order to begin, from 0 to 1; the
    upper half has other scenarios.
    """
    decks = []
    for service in ("agent_runner", "tool_runner", "edge"):
        cards = deck(service, chance, kind=int(offset * 2))
        first = int(len(cards) * offset)
        cards = cards[first:] + cards[:first]
        decks.append(cards if wanted == "all" or wanted.isdigit() else _named(cards, wanted))
    assert any(decks), f"no point is named {wanted}"
    rounds = max(map(len, decks)) if not wanted.isdigit() else int(wanted)
    # the shorter decks last for part of the rounds, as in all of them together
    longest = max(map(len, decks))
    dealt = [cards[: -(-rounds * len(cards) // longest)] if longest else [] for cards in decks]
    return [tuple(cards[n] for cards in dealt if n < len(cards)) for n in range(min(rounds, longest))]


def _named(cards: list[Combination], pattern: str) -> list[Combination]:
    return [card for card in cards if fnmatchcase(card.name, pattern)]
