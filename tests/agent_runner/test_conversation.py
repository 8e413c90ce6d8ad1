"""What a model is shown of a session."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runner.conversation import CUT, DENIED, NEVER, ROOM, UNMADE, WORDS, Conversation
from agent_runner.prompt import RESPONSE, Assistant, Prompt, Response, Result, Tool, Use, User
from contracts import events
from contracts.errors import Code, MillraceError
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


def shown(up_to: str, *facts: AnyEvent, **options: Any) -> list[str]:
    """What the model is shown to answer that message, each entry as `role content`."""
    return lines(fold(*facts).prompt(up_to, **options))


def lines(prompt: Prompt) -> list[str]:
    """Its entries as `role content`; what was called stands in brackets, a failed result has an exclamation mark."""
    told = []
    for entry in prompt.entries:
        calls = "".join(f"[{use.tool}]" for use in entry.calls) if isinstance(entry, Assistant) else ""
        mark = "!" if isinstance(entry, Result) and entry.failed else ""
        told.append(f"{type(entry).__name__.lower()}{mark} {entry.content}{calls}")
    return told


def test_instructions_are_those_of_now_and_the_message_to_answer_comes_last() -> None:
    """Our choice: not those of the first turn."""
    prompt = fold(asks("m1"), answers("m1", "yes"), ends("m1"), asks("m2")).prompt("m2", "Be brief.")
    assert prompt.instructions == "Be brief."
    assert lines(prompt) == ["user m1", "assistant yes", "user m2"]


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
    assert shown("m2", *facts) == ["user m1", f"assistant par\n\n{CUT[reason]}", "user m2"]


def test_an_answer_without_text_is_left_out() -> None:
    """Our choice: providers refuse empty messages of an assistant. So is one that was stopped before its first word."""
    assert shown("m1", asks("m1"), answers("m1", "")) == ["user m1"]
    assert shown("m1", asks("m1"), answers("m1", "", reason="cancelled")) == ["user m1"]


def test_a_message_without_text_is_shown() -> None:
    """Our choice: it is what is to be answered."""
    assert shown("m1", asks("m1", "")) == ["user "]


def test_thinking_is_shown_while_its_turn_runs() -> None:
    """Providers want it back within a loop over tools; later it belongs to the response that it led to."""
    facts = (asks("m1"), answers("m1", "yes"))
    assert Assistant("yes", "hidden") in fold(*facts).prompt("m1").entries
    assert Assistant("yes") in fold(*facts, ends("m1"), asks("m2")).prompt("m2").entries


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
    steered = ["user m1", "assistant one", "user m2", "user s"]
    assert shown("m2", *facts, ends("s", "steered")) == steered


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


def responds(reply_to: str, place: int, *uses: Use, content: str = "", answer_id: str | None = None) -> events.Step:
    """A model response with calls, as it is recorded."""
    response = Response(content, answer_id, calls=uses, finish_reason="tool_call")
    result = msgspec.to_builtins(response)
    return events.Step(**base(), reply_to=reply_to, name=RESPONSE, place=place, result=result)


def calls(reply_to: str, call_id: str, tool: str = "demo.add") -> events.ToolCall:
    """A call."""
    return events.ToolCall(**base(), reply_to=reply_to, tool_call_id=call_id, tool=tool, arguments={"a": 1})


def results(reply_to: str, call_id: str, status: events.ToolStatus = "completed", **more: Any) -> events.ToolResult:
    """What a call came to."""
    fields = {"result": {"sum": 3}, "error": None} | more
    return events.ToolResult(**base(), reply_to=reply_to, tool_call_id=call_id, status=status, **fields)


def decides(call_id: str, approved: bool, **more: Any) -> events.ToolApproval:
    """A person's decision."""
    return events.ToolApproval(
        **base(), tool_call_id=call_id, approved=approved, decided_by="u", decided_at=events.timestamp(), **more
    )


TWO = (Use("demo.add", {"a": 1}, tool_call_id="c1"), Use("demo.note", {"t": 2}, tool_call_id="c2"))


def test_a_response_with_calls_is_shown_once_with_the_result_of_each() -> None:
    """Providers: a result for each call directly after it, in the order of the calls."""
    facts = (
        asks("m1"),
        responds("m1", 1, *TWO, content="Let me see", answer_id="m1-a1"),
        answers("m1", "Let me see", reason="tool_call"),
        calls("m1", "c1"),
        calls("m1", "c2", "demo.note"),
        results("m1", "c2", result="noted"),
        results("m1", "c1"),
        answers("m1", "Three", number=2),
    )
    told = ["user m1", "assistant Let me see[demo.add][demo.note]", 'result {"sum":3}', "result noted"]
    assert shown("m1", *facts) == [*told, "assistant Three"]
    assert shown("m1", facts[0], facts[2], facts[1]) == [
        *("user m1", "assistant Let me see", "assistant [demo.add][demo.note]"),
        *["result! There is no result yet."] * 2,
    ]


def test_a_call_without_a_response_is_an_agents_in_python() -> None:
    """It is shown as a call all the same."""
    facts = (asks("m1"), calls("m1", "c1"), results("m1", "c1"))
    assert shown("m1", *facts) == ["user m1", "assistant [demo.add]", 'result {"sum":3}']


@pytest.mark.parametrize(
    ("status", "more", "text"),
    [
        ("failed", {"error": "no disk"}, "The tool failed: no disk"),
        ("failed", {"code": "tool_timeout", "error": None}, "The tool failed: tool_timeout"),
        ("failed", {"code": "tool_denied", "error": "a rule denies this tool"}, DENIED),
        ("rejected", {}, WORDS["rejected"]),
        ("expired", {}, WORDS["expired"]),
        ("cancelled", {}, WORDS["cancelled"]),
        ("unknown", {}, WORDS["unknown"]),
    ],
)
def test_what_became_of_a_call_is_told_truthfully(status: events.ToolStatus, more: dict[str, Any], text: str) -> None:
    """Our choice: in words; nothing that did not happen is shown as a result."""
    facts = (asks("m1"), calls("m1", "c1"), results("m1", "c1", status, **more))
    assert shown("m1", *facts)[-1] == f"result! {text}"


def test_what_a_person_changed_or_said_of_a_call_is_told() -> None:
    """The model asked for something else than what was done."""
    edited = (asks("m1"), calls("m1", "c1"), decides("c1", True, arguments={"a": 5}), results("m1", "c1"))
    text = 'A person changed the arguments to {"a":5}. The result of that call: {"sum":3}'
    assert shown("m1", *edited)[-1] == f"result {text}"
    failed = (*edited[:-1], results("m1", "c1", "failed", error="no disk"))
    text = 'A person changed the arguments to {"a":5}. The tool failed: no disk'
    assert shown("m1", *failed)[-1] == f"result! {text}"
    rejected = (asks("m1"), calls("m1", "c1"), decides("c1", False, reason="too dear"), results("m1", "c1", "rejected"))
    assert shown("m1", *rejected)[-1] == f"result! {WORDS['rejected']} The reason: too dear"


def test_the_first_decision_is_the_one_that_is_told() -> None:
    """P6: an approval is decided once."""
    facts = (asks("m1"), calls("m1", "c1"), decides("c1", True), decides("c1", True, arguments={"a": 9}))
    assert shown("m1", *facts, results("m1", "c1"))[-1] == 'result {"sum":3}'


def test_calls_of_an_agent_in_python_that_are_made_side_by_side_stand_together() -> None:
    """As a model would have made them; one that is made after a result stands alone."""
    facts = (asks("m1"), calls("m1", "c1"), calls("m1", "c2"), results("m1", "c2"), results("m1", "c1"))
    told = ["user m1", "assistant [demo.add][demo.add]", 'result {"sum":3}', 'result {"sum":3}']
    assert shown("m1", *facts) == told
    assert shown("m1", *facts, calls("m1", "c3"))[-2] == "assistant [demo.add]"


def test_a_result_that_comes_after_the_turn_has_ended_is_shown() -> None:
    """It is what happened, and the session is none the larger for what it replaces."""
    facts = (asks("m1"), calls("m1", "c1"), ends("m1", "cancelled"), results("m1", "c1"), asks("m2"))
    assert shown("m2", *facts)[-2] == 'result {"sum":3}'
    assert fold(*facts).size == fold(facts[0], facts[1], facts[3], facts[2]).size


def test_a_response_that_nobody_can_read_and_calls_that_are_named_twice_end_no_turn() -> None:
    """Providers refuse two calls of one id; a fold that raises would end every turn of the session."""
    garbled = events.Step(**base(), reply_to="m1", name=RESPONSE, place=1, result={"calls": 7})
    twice = responds("m1", 2, TWO[0], TWO[0], Use("demo.add", {}))
    facts = (asks("m1"), garbled, calls("m1", "c1"), results("m1", "c1"), twice)
    assert shown("m1", *facts) == ["user m1", "assistant [demo.add]", 'result {"sum":3}']


def test_what_is_said_of_a_turn_that_has_ended_is_not_shown() -> None:
    """Promise P4: who is late cannot write; what is shown of a turn does not change any more."""
    late = (answers("m1", "late"), calls("m1", "c1"), responds("m1", 3, *TWO))
    assert shown("m2", asks("m1"), ends("m1"), *late, asks("m2")) == ["user m1", "user m2"]


def test_a_call_that_the_runner_refused_or_that_never_ended_has_a_result_too() -> None:
    """Providers: no call without a result."""
    refused = Use("demo.nothing", {}, raw="{", tool_call_id="c1", refused="There is no tool of that name.")
    assert shown("m1", asks("m1"), responds("m1", 1, refused))[-1] == "result! There is no tool of that name."
    left = (asks("m1"), calls("m1", "c1"), ends("m1", "cancelled"), asks("m2"))
    assert shown("m2", *left)[-2] == f"result! {NEVER}"
    unmade = (asks("m1"), responds("m1", 1, *TWO), calls("m1", "c1"), ends("m1", "cancelled"), asks("m2"))
    assert shown("m2", *unmade)[-3:-1] == [f"result! {NEVER}", f"result! {UNMADE}"]


def test_attachments_are_told_in_words() -> None:
    """Our choice: Millrace fetches nothing."""
    one = events.Attachment(name="a.png", media_type="image/png", url="https://x")
    message = msgspec.structs.replace(asks("m1", "look"), attachments=[one])
    assert shown("m1", message) == ["user look\n[Attached: a.png, image/png, https://x]"]


def test_earlier_turns_are_left_out_whole_the_oldest_first() -> None:
    """The trimming rule: a quarter of the bytes and eight for each entry."""
    facts = [fact for n in range(1, 6) for fact in (asks(f"m{n}"), answers(f"m{n}", "x" * 400), ends(f"m{n}"))]
    told = shown("m6", *facts, asks("m6"), context_tokens=270)
    assert [line[:9] for line in told] == ["user m4", "assistant", "user m5", "assistant", "user m6"]
    assert len(shown("m6", *facts, asks("m6"), context_tokens=10_000)) == 11


def test_in_a_turn_that_is_too_long_the_oldest_results_are_left_out() -> None:
    """But those of the last response; the note says how much is missing."""
    facts: list[AnyEvent] = [asks("m1")]
    for n in range(3):
        facts += [calls("m1", f"c{n}"), results("m1", f"c{n}", result="x" * 4000)]
    told = shown("m1", *facts, context_tokens=2300)
    assert told[2] == "result [Left out to save space: 4000 characters.]"
    assert [len(line) for line in told[4::2]] == [4007, 4007]
    assert len(shown("m1", *facts, context_tokens=1200)[6]) == 4007


def test_what_cannot_be_made_short_enough_is_refused() -> None:
    """The catalogue: `context_too_long`; tools and instructions count."""
    tool = Tool("demo.add", "x" * 4000, {})
    for options in ({}, {"instructions": "x" * 4000, "context_tokens": 600}, {"tools": (tool,), "context_tokens": 600}):
        with pytest.raises(MillraceError) as refused:
            fold(asks("m1", "x" * (200_000 if not options else 4))).prompt("m1", **options)  # type: ignore[arg-type]
        assert refused.value.code == Code.CONTEXT_TOO_LONG


def test_turns_that_no_prompt_can_hold_are_forgotten() -> None:
    """The fold stays small, whatever the session's length."""
    conversation, seq = Conversation(), 0
    for n in range(100):
        for fact in (asks(f"m{n}"), answers(f"m{n}", "x" * (ROOM // 10)), ends(f"m{n}")):
            seq += 1
            conversation.apply(seq, fact)
    assert len(conversation.turns) <= 11
    assert ROOM <= conversation.size <= 1.2 * ROOM
    assert list(conversation.turns)[-1] == "m99"


_ids = st.sampled_from(["m1", "m2", "m3"])
_calls = st.sampled_from(["c1", "c2", "c3"])
_facts = st.one_of(
    st.builds(asks, _ids),
    st.builds(lambda m, n: answers(m, "text", number=n), _ids, st.integers(1, 2)),
    st.builds(ends, _ids, st.sampled_from(["completed", "failed", "cancelled", "steered"])),
    st.builds(calls, _ids, _calls),
    st.builds(results, _ids, _calls),
    st.builds(lambda c, yes: decides(c, yes), _calls, st.booleans()),
    st.builds(lambda m, place, c: responds(m, place, Use("t.x", {}, tool_call_id=c)), _ids, st.integers(1, 3), _calls),
)


@given(st.lists(_facts, max_size=25), st.integers(0, 25))
def test_whatever_the_log_holds_each_call_has_one_result_right_after_it(facts: list[AnyEvent], cut: int) -> None:
    """And folding in two parts, kept in between, gives what folding at once gives."""
    whole = fold(*facts)
    begun = fold(*facts[:cut])
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(begun), type=Conversation)
    for seq, fact in enumerate(facts[cut:], cut + 1):
        again.apply(seq, fact)
    assert again == whole
    for message_id in whole.turns:
        entries, seen = list(whole.prompt(message_id).entries), set[str]()
        assert any(isinstance(entry, User) for entry in entries)
        while entries:
            entry = entries.pop(0)
            assert not isinstance(entry, Result), "a result without a call"
            if isinstance(entry, Assistant):
                following = [entries.pop(0) for _ in entry.calls]
                ids = [each.tool_call_id for each in following if isinstance(each, Result)]
                assert ids == [use.tool_call_id for use in entry.calls]
                assert seen.isdisjoint(ids)
                assert len(set(ids)) == len(ids)
                seen.update(ids)


def shown_with(room: int, tokens: int, facts: list[AnyEvent], message_id: str) -> Prompt | None:
    """The prompt of a conversation with that room; None where the turn is too long."""
    conversation = Conversation(room=room)
    for seq, fact in enumerate(facts, 1):
        conversation.apply(seq, fact)
    try:
        return conversation.prompt(message_id, "", tokens)
    except MillraceError:
        return None


@st.composite
def _sessions(draw: st.DrawFn) -> list[AnyEvent]:
    """Turns that end one after another, with calls and late results; `now` is asked last."""
    facts: list[AnyEvent] = []
    for n in range(draw(st.integers(1, 20))):
        name, call_id = f"m{n}", f"c{n}"
        parts: list[AnyEvent] = [
            answers(name, "é" * draw(st.integers(0, 6))),
            responds(name, 1, Use("t.x", {}, tool_call_id=call_id)),
            calls(name, call_id),
            results(name, call_id, result="y" * draw(st.integers(0, 20))),
            ends(name, draw(st.sampled_from(["completed", "cancelled"]))),
            results(name, call_id, result="late" * draw(st.integers(0, 20))),
        ]
        facts.append(asks(name, "x" * draw(st.integers(0, 6))))
        facts += [part for part in parts if isinstance(part, events.TurnEnd) or draw(st.booleans())]
    return [*facts, asks("now")]


@given(_sessions(), st.integers(10, 300))
def test_no_prompt_shows_that_earlier_turns_were_forgotten(facts: list[AnyEvent], tokens: int) -> None:
    """What is forgotten is what would have been left out."""
    assert shown_with(4 * tokens, tokens, facts, "now") == shown_with(1 << 30, tokens, facts, "now")
