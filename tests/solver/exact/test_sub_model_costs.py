"""The subproblem of the decomposition against enumeration: bounds by relaxation, exact costs, and too little memory."""

import pytest

from planner.solver.exact.sub_model_costs import SubModelCosts
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER
from tests.helpers.sub_model_enumeration import (
    NO_SUB_MODEL,
    SEEDS,
    cases,
    cheapest_by_enumeration,
    instance_of,
    subsets,
    table_of,
)


@pytest.mark.parametrize("seed", SEEDS[::3])
def test_bounds_hold_for_every_subset_with_their_binding_classes(seed: int) -> None:
    """No bound is above the cost of a subset that holds its binding classes; none at all means no sub-model."""
    instance = instance_of(seed)
    costs = SubModelCosts(instance)
    for _, o, _, classes in cases(seed):
        bound = costs.bound(o, classes)
        if bound is None:
            assert cheapest_by_enumeration(seed, o, classes) == NO_SUB_MODEL
            continue
        for others in subsets(instance):
            if set(bound.binding) <= set(others):
                # `NEVER` is less than `NO_SUB_MODEL`, and more than any time.
                assert bound.by_count[len(others) - 1] <= cheapest_by_enumeration(seed, o, others)


def test_a_short_budget_is_proven_by_what_is_needed_of_it() -> None:
    """A bound on what is needed of a budget says for which other subsets it is too short too."""
    proven = [0, 0]
    for seed in SEEDS:
        costs = SubModelCosts(instance_of(seed))
        for _, o, _, classes in cases(seed):
            if cheapest_by_enumeration(seed, o, classes) < NO_SUB_MODEL:
                continue
            bound = costs.bound(o, classes)
            if bound is not None and bound.by_count[len(classes) - 1] >= NEVER:
                assert bound.cut is not None
                assert bound.cut.budget is not None
                table, later = table_of(seed, o), bound.cut.budget + 1
                within = (table.used_bytes <= table.budget_bytes)[:, later - 1 :].all(axis=1)
                assert not (within & table.meets_floors(classes)).any()
                proven[bound.cut.budget] += 1
    assert proven[0] > 50
    assert proven[1] > 20


@pytest.mark.parametrize("seed", SEEDS[2::8])
def test_costs_are_exact_or_good_enough(seed: int) -> None:
    """A solve returns the least cost; with `enough`, any sub-model that is at most that, where there is one."""
    instance = instance_of(seed)
    costs = SubModelCosts(instance)
    for _, o, _, classes in cases(seed):
        exact = cheapest_by_enumeration(seed, o, classes)
        result = costs.solve(o, classes, Clock(60), 0)
        assert (NO_SUB_MODEL if result.bound is None else result.bound) == exact
        if result.kept is not None:
            assert costs.of(o, result.kept) == exact
            soon = costs.solve(o, classes, Clock(60), exact * 2)
            assert soon.kept is not None
            assert exact <= costs.of(o, soon.kept) <= exact * 2
            assert soon.bound is not None
            assert soon.bound <= exact
