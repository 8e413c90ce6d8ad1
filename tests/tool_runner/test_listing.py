"""Which tools there are, as tool runners tell it."""

from contracts import catalogue
from contracts.catalogue import Listed
from tool_runner.listing import DESCRIPTION, SCHEMA, listed
from tool_runner.servers import Tool

ADD = Tool("demo.add", "Adds.", {"type": "object"}, read_only=True)
NOTE = Tool("demo.note", "Notes.", {"type": "object"})


def test_a_catalogue_is_the_same_bytes_for_the_same_tools() -> None:
    """Our choice: sorted by name, so that nothing is written again for nothing."""
    one = catalogue.encode(listed("demo", {"demo.add": ADD, "demo.note": NOTE}))
    assert one == catalogue.encode(listed("demo", {"demo.note": NOTE, "demo.add": ADD}))
    assert catalogue.decode(one).tools[0] == Listed("demo.add", "Adds.", {"type": "object"}, read_only=True)


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
