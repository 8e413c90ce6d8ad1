"""What the exploration of the turn mechanism finds, and that it would find what is wrong."""

from dataclasses import replace

import pytest

from tests.model.adapter import Agreed, Real
from tests.model.cases import CASES, MUTATIONS
from tests.model.explore import check
from tests.model.mutants import MUTANTS
from tests.model.reference import Reference
from tests.model.rules import Case, Rules

WHOLE = {
    **{replace(case, rules=Rules(), slots=9): name for name, case in MUTATIONS.items()},
    **{mutant.case: name for name, mutant in MUTANTS.items()},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_interleaving_keeps_the_promises_and_the_code_does_what_the_design_says(
    case: Case,
) -> None:
    """Promises P1, P4, P5, P6, P8, whoever crashes, is paused or is told to stop; every decision is the code's own."""
    wrong, trace, _ = check(case, Agreed)
    assert wrong is None, "\n".join(trace)


@pytest.mark.parametrize("case", MUTATIONS.values(), ids=MUTATIONS)
def test_a_rule_of_the_design_that_is_left_out_is_objected_to(case: Case) -> None:
    """The exploration has teeth."""
    assert check(case, Reference).wrong


@pytest.mark.parametrize("name", MUTANTS)
def test_a_rule_that_the_code_breaks_is_objected_to(name: str) -> None:
    """The exploration has teeth for the code, also where it is not compared with the reference."""
    with MUTANTS[name].applied():
        assert check(MUTANTS[name].case, Real).wrong


@pytest.mark.parametrize("name", MUTANTS)
def test_a_decision_of_the_code_that_is_not_the_designs_is_told(name: str) -> None:
    """Model and code are kept in step."""
    with MUTANTS[name].applied():
        wrong, _, _ = check(MUTANTS[name].case, Agreed)
    assert wrong
    assert "the code says" in wrong


@pytest.mark.parametrize("case", WHOLE, ids=WHOLE.values())
def test_with_all_the_rules_the_same_case_holds(case: Case) -> None:
    """What is objected to above is the broken rule, not the case."""
    assert check(case, Agreed).wrong is None
