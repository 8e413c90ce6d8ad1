"""Rules: whether a tool runs, is refused, or a person is asked. Pure; no I/O."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Literal

from msgspec import Struct

from contracts.config import DEFAULT_EXPIRES, Rule


class Decision(Struct, frozen=True):
    """What is to be done with a tool call. A question expires after `expires` seconds."""

    action: Literal["allow", "deny", "ask"]
    expires: float = DEFAULT_EXPIRES


def decide(  # noqa: PLR0913 - all that a rule may look at
    rules: Iterable[Rule], tool_name: str, tenant: str, user: str, *, read_only: bool, trusted: bool
) -> Decision:
    """The decision of the first rule that matches.

    Without one, only a read-only tool of a trusted server runs unasked: what an untrusted server
    says of its own tools counts for nothing.
    """
    for rule in rules:
        if _matches(rule, tool_name, tenant, user):
            return Decision(rule.decision, rule.expires)
    return Decision("allow" if read_only and trusted else "ask")


def _matches(rule: Rule, tool_name: str, tenant: str, user: str) -> bool:
    return fnmatchcase(tool_name, rule.tool) and rule.tenant in (None, tenant) and rule.user in (None, user)
