"""Bounds on the cost of every class subset: below and above the enumerated costs, whatever was solved."""

import numpy as np
import pytest

from planner.solver.exact.subset_costs import SubsetCosts
from planner.solver.exact.warm_start import NO_WARM_START
from planner.solver.problem.clock import Clock
from planner.solver.problem.column import Column
from planner.solver.problem.instance import NEVER
from tests.helpers.column_assignments import enumerable_seeds, varied_costs
from tests.helpers.sub_model_enumeration import SEEDS, exact_costs, instance_of
from tests.helpers.varied_instances import varied_instance


@pytest.mark.parametrize("seed", SEEDS[::3])
def test_bounds_enclose_the_costs(seed: int) -> None:
    """After any relaxations and solves, lower bound <= cost <= upper bound; bounds only get closer."""
    instance, rng = instance_of(seed), np.random.default_rng(seed)
    exact, costs = exact_costs(instance), SubsetCosts(instance, NO_WARM_START)
    lower, upper = costs.lower_bound.copy(), costs.upper_bound.copy()
    for step in range(40):
        column = Column(int(rng.integers(len(exact))), int(rng.integers(1, exact.shape[1])))
        if step % 2:
            costs.solve(column, Clock(60))
            assert costs.lower_bound[column.option, column.mask] >= min(NEVER, exact[column.option, column.mask])
        else:
            costs.relax(column)
            assert costs.is_relaxed(column)
        assert (costs.lower_bound >= lower).all()
        assert (costs.upper_bound <= upper).all()
        lower, upper = costs.lower_bound.copy(), costs.upper_bound.copy()
    assert (lower <= exact).all()
    allowed = exact < NEVER
    assert (upper[allowed] >= exact[allowed]).all()
    for column, kept in costs.kept.items():
        option = instance.options[column.option]
        assert upper[column.option, column.mask] == instance.compute_us(option, kept)
        assert instance.fits(option, kept)
        assert instance.meets_floors(option, column.classes, kept)


def test_forbidden_subsets_cost_too_much() -> None:
    """From the beginning, subsets that the demands forbid on a device can never be used there."""
    forbidden = 0
    for seed in enumerable_seeds():
        instance = varied_instance(seed)
        costs = SubsetCosts(instance, NO_WARM_START)
        for o, option in enumerate(instance.options):
            for mask in range(1, 2**instance.num_classes):
                if not instance.allows(option.group, Column(o, mask).classes):
                    assert costs.lower_bound[o, mask] == NEVER
                    forbidden += 1
        assert (costs.lower_bound <= varied_costs(seed))[:, 1:].all()
    assert forbidden > 50


@pytest.mark.parametrize("seed", SEEDS[1::6])
def test_the_largest_subsets_within_limits(seed: int) -> None:
    """They are the subsets whose relaxation is within the limit and that no larger such subset contains."""
    instance, rng = instance_of(seed), np.random.default_rng(seed)
    relaxed = SubsetCosts(instance, NO_WARM_START)
    for o in range(len(instance.options)):
        for mask in range(1, 2**instance.num_classes):
            relaxed.relax(Column(o, mask))
    bounds = relaxed.lower_bound
    for _ in range(4):
        limits = np.array([int(rng.choice(row[row < NEVER])) if (row < NEVER).any() else 0 for row in bounds])
        costs = SubsetCosts(instance, NO_WARM_START)
        largest = costs.largest_within(limits, Clock(60))
        expected = [
            Column(o, mask)
            for o, row in enumerate(bounds)
            for mask in range(1, len(row))
            if row[mask] <= limits[o]
            and not any(row[other] <= limits[o] for other in range(len(row)) if other & mask == mask != other)
        ]
        assert sorted(largest) == expected
        # Fewer relaxations than there are subsets settle it.
        assert costs.num_relaxed < relaxed.num_relaxed


def test_out_of_time_is_an_error() -> None:
    """Without any time, nothing is claimed of subsets whose relaxations are not solved."""
    instance = instance_of(3)
    limits = np.full(len(instance.options), NEVER - 1)
    with pytest.raises(TimeoutError):
        SubsetCosts(instance, NO_WARM_START).largest_within(limits, Clock(0))


def test_only_cheaper_sub_models_are_kept() -> None:
    """A slower sub-model for the same column changes nothing."""
    instance = instance_of(7)
    costs, column = SubsetCosts(instance, NO_WARM_START), Column(0, 1)
    costs.solve(column, Clock(60))
    cheapest, cost = costs.kept[column], costs.upper_bound[0, 1]
    costs.add(column, tuple(range(len(instance.units))))
    assert (costs.kept[column], costs.upper_bound[0, 1]) == (cheapest, cost)
