"""The agent `script`: which messages are programs, and of what steps."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_runner.script import ScriptFailed, Step, Stream, Workflow, parse

JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("step", "parsed"),
    [
        ({"stream": {"deltas": 3}}, Step(stream=Stream(deltas=3))),
        (
            {"stream": {"deltas": 3, "interval_ms": 1.5, "size": 64}},
            Step(stream=Stream(deltas=3, interval_ms=1.5, size=64)),
        ),
        ({"say": ""}, Step(say="")),
        ({"tool": "demo.add"}, Step(tool="demo.add")),
        ({"tool": "demo.add", "arguments": {"a": 1}}, Step(tool="demo.add", arguments={"a": 1})),
        ({"workflow": {"id": "w", "steps": ["a", "b"]}}, Step(workflow=Workflow("w", ["a", "b"]))),
        ({"sleep_ms": 0}, Step(sleep_ms=0)),
        ({"fail": "text"}, Step(fail="text")),
    ],
)
def test_a_list_of_steps_is_a_program(step: dict[str, Any], parsed: Step) -> None:
    """WIRE section 6: every kind of step."""
    assert parse(json.dumps([step, {"say": "x"}])) == [parsed, Step(say="x")]


def test_an_empty_list_is_a_program_that_does_nothing() -> None:
    """WIRE: a message whose content is a JSON list."""
    assert parse(" [] ") == []


@pytest.mark.parametrize("content", ["", "hello", '{"say": "x"}', "[1", '"[]"', "null", "3", "[] x"])
def test_any_other_content_is_no_program(content: str) -> None:
    """WIRE: it is echoed."""
    assert parse(content) is None


@pytest.mark.parametrize(
    "step",
    [
        1,
        None,
        [],
        {},
        {"dance": 1},
        {"say": "x", "fail": "y"},
        {"say": "x", "other": 1},
        {"say": None},
        {"say": 1},
        {"arguments": {}},
        {"say": "x", "arguments": {}},
        {"tool": "demo.add", "arguments": [1]},
        {"stream": {}},
        {"stream": {"deltas": -1}},
        {"stream": {"deltas": 1, "size": 0}},
        {"stream": {"deltas": 1, "interval_ms": -1}},
        {"stream": {"deltas": 1, "colour": "red"}},
        {"workflow": {"id": "", "steps": []}},
        {"workflow": {"id": "w"}},
        {"sleep_ms": -1},
        {"sleep_ms": 86_400_001},
    ],
    ids=str,
)
def test_a_list_with_anything_else_in_it_is_a_program_that_fails(step: object) -> None:
    """Our choice: a misspelt step is not echoed, and nothing before it is done."""
    with pytest.raises(ScriptFailed):
        parse(json.dumps([{"say": "x"}, step]))


@given(JSON.map(json.dumps) | st.text())
@settings(deadline=None)
def test_whatever_a_message_says_it_is_a_program_or_fails_or_is_none(content: str) -> None:
    """A user's message must not break the runner."""
    try:
        program = parse(content)
    except ScriptFailed:
        return
    assert program is None or all(isinstance(step, Step) for step in program)
