"""What a model is shown of a session."""

from typing import Any

import pytest

from agent_runner.conversation import Conversation, Entry
from contracts import events
from contracts.events import AnyEvent


def base() -> dict[str, Any]:
    """What every event has."""
    return {"id": events.new_id(), "timestamp": events.timestamp(), "session_id": "s"}


def asks(message_id: str, content: str | None = None) -> events.Message:
    """A user's message; its content is its id unless it matters."""
    return events.Message(
        **base(),
        message_id=message_id,
        role="user",
        content=message_id if content is None else content,
        user_id="u",
        client_message_id=message_id,
    )


def answers(reply_to: str, content: str, *, number: int = 1, reason: events.FinishReason = "stop") -> events.StreamEnd:
    """A whole answer."""
    return events.StreamEnd(
        **base(),
        message_id=f"{reply_to}-a{number}",
        reply_to=reply_to,
        content=content,
        finish_reason=reason,
        thinking="hidden",
    )


def ends(reply_to: str, status: events.TurnStatus = "completed") -> events.TurnEnd:
    """The end of a turn."""
    return events.TurnEnd(**base(), reply_to=reply_to, status=status)


def fold(*facts: AnyEvent) -> Conversation:
    """The conversation after those facts."""
    conversation = Conversation()
    for seq, fact in enumerate(facts, 1):
        conversation.apply(seq, fact)
    return conversation


def shown(up_to: str, *facts: AnyEvent, instructions: str = "") -> list[str]:
    """What the model is shown to answer that message, each as `role content`."""
    return [f"{entry.role} {entry.content}" for entry in fold(*facts).entries(instructions, up_to)]


def test_instructions_come_first_and_the_message_to_answer_last() -> None:
    """Our choice: the instructions are those of now, not those of the first turn."""
    facts = (asks("m1"), answers("m1", "yes"), ends("m1"), asks("m2"))
    assert shown("m2", *facts, instructions="Be brief.") == [
        "system Be brief.",
        "user m1",
        "assistant yes",
        "user m2",
    ]


def test_without_instructions_there_is_no_system_entry() -> None:
    """Our choice."""
    assert fold(asks("m1")).entries("", "m1") == [Entry("user", "m1")]


def test_an_answer_stands_with_its_question_though_others_were_queued_before_it() -> None:
    """Promise: the model sees each question before its answer."""
    facts = (asks("m1"), asks("m2"), answers("m1", "one"), ends("m1"), answers("m2", "two"))
    assert shown("m2", *facts) == ["user m1", "assistant one", "user m2", "assistant two"]


def test_messages_queued_behind_are_not_shown() -> None:
    """Promise: a turn answers its own message."""
    assert shown("m1", asks("m1"), asks("m2")) == ["user m1"]


def test_several_answers_of_a_turn_stand_in_their_order() -> None:
    """WIRE: text before a tool call and text after it are two answers."""
    facts = (asks("m1"), answers("m1", "first"), answers("m1", "second", number=2))
    assert shown("m1", *facts) == ["user m1", "assistant first", "assistant second"]


@pytest.mark.parametrize(("reason", "status"), [("cancelled", "cancelled"), ("error", "failed")])
def test_a_turn_that_was_broken_off_keeps_its_partial_answer(
    reason: events.FinishReason, status: events.TurnStatus
) -> None:
    """Our choice: the user saw it, so the model knows it."""
    facts = (asks("m1"), answers("m1", "par", reason=reason), ends("m1", status), asks("m2"))
    assert shown("m2", *facts) == ["user m1", "assistant par", "user m2"]


def test_an_answer_without_text_is_left_out() -> None:
    """Our choice: providers refuse empty messages of an assistant."""
    assert shown("m1", asks("m1"), answers("m1", "")) == ["user m1"]


def test_a_message_without_text_is_shown() -> None:
    """Our choice: it is what is to be answered."""
    assert shown("m1", asks("m1", "")) == ["user "]


def test_thinking_is_not_shown() -> None:
    """Our choice: it belongs to the response that it led to."""
    assert not any("hidden" in line for line in shown("m1", asks("m1"), answers("m1", "yes")))


def test_a_message_that_stands_twice_in_the_log_is_shown_once_at_its_first_place() -> None:
    """WIRE: the same `client_message_id` again gives the same message and never a second turn."""
    facts = (asks("m1"), asks("m2"), asks("m1", "again"), answers("m1", "one"), ends("m1"))
    assert shown("m2", *facts) == ["user m1", "assistant one", "user m2"]


def test_a_message_that_steered_stands_where_it_was_taken_in() -> None:
    """WIRE: a steered message ends as `steered`, and the running turn goes on with it."""
    facts = (
        asks("m1"),
        asks("m2"),
        asks("s"),
        answers("m1", "before"),
        ends("s", "steered"),
        answers("m1", "after", number=2),
    )
    assert shown("m1", *facts) == ["user m1", "assistant before", "user s", "assistant after"]
    assert shown("m2", *facts, ends("m1"))[-2:] == ["assistant after", "user m2"]


def test_a_message_that_steered_is_taken_into_the_turn_that_runs() -> None:
    """Promise: turns run in the order of their messages, so the first open one runs."""
    facts = (asks("m1"), answers("m1", "one"), ends("m1"), asks("m2"), asks("s"))
    lines = ["user m1", "assistant one", "user m2", "user s"]
    assert shown("m2", *facts, ends("s", "steered")) == lines


def test_a_message_that_steered_is_not_shown_again_when_it_is_read_again() -> None:
    """Promise: a message is its first fact."""
    facts = (asks("m1"), asks("s"), ends("s", "steered"), asks("s"))
    assert shown("m1", *facts) == ["user m1", "user s"]
    with pytest.raises(KeyError):
        fold(*facts).entries("", "s")


def test_a_message_that_missed_the_running_turn_has_a_turn_of_its_own() -> None:
    """WIRE: `steer_missed` came too late; the message is answered as its own."""
    missed = events.SteerMissed(**base(), message_id="s", reply_to="m1")
    facts = (asks("m1"), asks("s"), answers("m1", "one"), ends("m1"), missed)
    assert shown("s", *facts) == ["user m1", "assistant one", "user s"]


def test_facts_that_nobody_said_change_nothing() -> None:
    """Promise: only messages and whole answers are shown, no deltas and no statuses."""
    silent: tuple[AnyEvent, ...] = (
        events.TurnStart(**base(), reply_to="m1", attempt=1),
        events.StreamStart(**base(), message_id="m1-a1", reply_to="m1", agent="a"),
        events.StreamDelta(**base(), message_id="m1-a1", delta="x", offset=0),
        events.StreamReset(**base(), message_id="m1-a1", attempt=2, reason="r"),
        events.Cancel(**base(), user_id="u"),
        answers("unknown", "lost"),
        ends("unknown"),
    )
    assert fold(asks("m1"), *silent) == fold(asks("m1"))


def test_folding_in_two_parts_gives_what_folding_at_once_gives() -> None:
    """Promise: a holder may drop its state and fold on from a copy."""
    facts = (asks("m1"), asks("s"), answers("m1", "one"), ends("s", "steered"), ends("m1"))
    for cut in range(len(facts) + 1):
        conversation = fold(*facts[:cut])
        for seq, fact in enumerate(facts[cut:], cut + 1):
            conversation.apply(seq, fact)
        assert conversation == fold(*facts)
