"""The rules: a table of what is decided."""

import pytest

from contracts.config import Rule
from tool_runner.rules import Decision, decide

RULES = (
    Rule("files.delete", "deny"),
    Rule("files.*", "ask", user="ann", expires=60),
    Rule("files.*", "allow", tenant="acme"),
    Rule("*.search", "allow"),
    Rule("mail.[!r]*", "deny"),
)


@pytest.mark.parametrize(
    ("tool", "tenant", "user", "expected"),
    [
        pytest.param("files.delete", "acme", "bob", Decision("deny"), id="exact name"),
        pytest.param("files.delete", "acme", "ann", Decision("deny"), id="first match wins"),
        pytest.param("files.read", "acme", "ann", Decision("ask", 60), id="user and expiry"),
        pytest.param("files.read", "acme", "bob", Decision("allow"), id="tenant"),
        pytest.param("files.read", "globex", "bob", Decision("ask"), id="another tenant"),
        pytest.param("web.search", "globex", "bob", Decision("allow"), id="any server"),
        pytest.param("web.v2.search", "globex", "bob", Decision("allow"), id="star spans dots"),
        pytest.param("Files.delete", "acme", "bob", Decision("ask"), id="case matters"),
        pytest.param("mail.send", "acme", "bob", Decision("deny"), id="character class"),
        pytest.param("mail.read", "acme", "bob", Decision("ask"), id="no rule"),
    ],
)
def test_the_first_rule_that_matches_decides(tool: str, tenant: str, user: str, expected: Decision) -> None:
    assert decide(RULES, tool, tenant, user, read_only=False, trusted=True) == expected


@pytest.mark.parametrize(
    ("read_only", "trusted", "action"),
    [(True, True, "allow"), (True, False, "ask"), (False, True, "ask"), (False, False, "ask")],
)
def test_without_a_rule_only_a_read_only_tool_of_a_trusted_server_runs_unasked(
    read_only: bool, trusted: bool, action: str
) -> None:
    decision = decide((), "any.tool", "acme", "bob", read_only=read_only, trusted=trusted)
    assert decision.action == action
    assert decision.expires == 300


def test_a_rule_outweighs_what_the_tool_says_of_itself() -> None:
    rules = (Rule("any.tool", "deny"),)
    decision = decide(rules, "any.tool", "acme", "bob", read_only=True, trusted=True)
    assert decision.action == "deny"
