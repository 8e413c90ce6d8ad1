"""What tools are called at a provider."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runner.models.names import Names

TOOLS = st.lists(st.text(max_size=100) | st.text("ab._-/é", max_size=100), unique=True)


def test_a_tool_is_called_by_server_and_name() -> None:
    """Our choice: a person who reads what a provider records finds the tool."""
    names = Names(["demo.add_up", "files-2.read"])
    assert [names.theirs(tool) for tool in ("demo.add_up", "files-2.read")] == ["demo__add_up", "files-2__read"]


@given(TOOLS)
def test_every_tool_has_a_name_that_providers_allow_and_it_leads_back(tools: list[str]) -> None:
    """Standard: OpenAI and Anthropic allow [A-Za-z0-9_-]{1,64}. Promise: no two tools share a name."""
    names = Names(tools)
    for tool in tools:
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", names.theirs(tool))
        assert names.ours(names.theirs(tool)) == tool


@given(TOOLS)
def test_a_tool_without_a_rival_keeps_its_name_whatever_else_there_is(tools: list[str]) -> None:
    """Promise: a request that names one tool more keeps the beginning that a provider has cached."""
    assert Names(["demo.add", *tools]).theirs("demo.add") == "demo__add"


@pytest.mark.parametrize("name", ["demo.add", "no_such", ""])
def test_a_name_that_nobody_gave_stays_as_it_is(name: str) -> None:
    """Promise: who asks for a tool that does not exist is told so by the name it wrote."""
    assert Names(["demo.sub"]).ours(name) == name
