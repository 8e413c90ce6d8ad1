"""`python -m tests.model [--long] [NAME…]`: explore the cases, or these, and print what is found.

Without a name: every case, then every mutation; `--long` adds the long cases (minutes, a few GiB).
A name gives the trace of what is found.
"""

import sys
import time

from tests.model.adapter import Agreed
from tests.model.cases import CASES, LONG, MUTATIONS
from tests.model.explore import check
from tests.model.reference import Reference


def main(arguments: list[str]) -> int:
    """The number of cases that went otherwise than they must."""
    asked = [argument for argument in arguments if not argument.startswith("-")]
    cases = CASES | MUTATIONS | (LONG if asked or "--long" in arguments else {})
    failures = 0
    for name in asked or cases:
        began, mutation = time.perf_counter(), name in MUTATIONS
        wrong, trace, states = check(cases[name], Reference if mutation else Agreed)
        failures += bool(wrong) != mutation
        verdict = f"found: {wrong}" if wrong else "holds"
        took = time.perf_counter() - began
        kind = "mutation" if mutation else "case"
        print(f"{kind:8} {name:20} {states:>8} states {took:6.1f} s  {verdict}", flush=True)
        if asked or not mutation:
            print(*(f"    {label}\n" for label in trace), sep="", end="")
    return failures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
