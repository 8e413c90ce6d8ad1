"""Which tools there are, as tool runners tell it."""

from contracts import catalogue
from contracts.catalogue import Listed
from tool_runner.listing import DESCRIPTION, SCHEMA, WHOLE, listed
from tool_runner.servers import Tool

ADD = Tool("demo.add", "Adds.", {"type": "object"}, read_only=True)
NOTE = Tool("demo.note", "Notes.", {"type": "object"})


def test_a_catalogue_is_the_same_bytes_for_the_same_tools() -> None:
    """Our choice: sorted by name, so that nothing is written again for nothing."""
    one = catalogue.encode(listed("demo", {"demo.add": ADD, "demo.note": NOTE}))
    assert one == catalogue.encode(listed("demo", {"demo.note": NOTE, "demo.add": ADD}))
    assert catalogue.decode(one).tools[0] == Listed("demo.add", "Adds.", {"type": "object"}, read_only=True)


def test_a_tool_that_is_not_offered_takes_no_others_place() -> None:
    """Our choice: one tool of a server, however wild, never hides the rest or stops the server."""
    tools = {
        "demo.a": Tool("demo.a", "", {"x": "x" * WHOLE}),
        "demo.c": Tool("demo.c", "half a pair: \ud800", {}),
        "demo.d": Tool("demo.d", "", {"x": "x" * (SCHEMA - 100)}),
    }
    assert [tool.name for tool in listed("demo", tools).tools] == ["demo.d"]


def test_a_catalogue_is_never_larger_than_the_broker_takes() -> None:
    """Our choice: of a server with very many tools the first ones, by name."""
    tools = {f"demo.t{n:03}": Tool(f"demo.t{n:03}", "", {"x": "x" * 60_000}) for n in range(40)}
    found = listed("demo", tools)
    assert [tool.name for tool in found.tools] == sorted(tools)[: len(found.tools)]
    assert WHOLE - 70_000 < len(catalogue.encode(found)) < WHOLE + 1000


def test_what_would_be_too_much_for_a_prompt_is_cut_or_left_out() -> None:
    """Our choice: a long description is cut, a huge or deep schema leaves its tool out, and no other."""
    deep: dict[str, object] = {}
    for _ in range(2000):
        deep = {"d": deep}
    tools = {
        "demo.a": Tool("demo.a", "x" * 2 * DESCRIPTION, {}),
        "demo.b": Tool("demo.b", "", {"x": "x" * SCHEMA}),
        "demo.c": Tool("demo.c", "", deep),
        "demo.d": Tool("demo.d", "", {}),
    }
    kept = listed("demo", tools).tools
    assert [tool.name for tool in kept] == ["demo.a", "demo.d"]
    assert len(kept[0].description) == DESCRIPTION
