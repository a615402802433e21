"""The master problem at given lower bounds, against every assignment."""

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest

from planner.arrays import Ints
from planner.schema import Goal, Objective
from planner.solver.exact.master import MasterProblem
from planner.solver.exact.subset_costs import SubsetCosts
from planner.solver.exact.warm_start import NO_WARM_START
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.column import Column
from planner.solver.problem.instance import DEVICES, NEVER, Instance
from planner.solver.problem.objective import ObjectiveFunction
from tests.helpers.column_assignments import columns_within, covers, dearer_costs, enumerable_seeds, varied_costs
from tests.helpers.varied_instances import varied

SEEDS = enumerable_seeds()
OBJECTIVES: tuple[Objective, ...] = tuple(name for name in get_args(Objective) if name != "accuracy")


def instance_for(seed: int, objective: Objective) -> Instance:
    """Return `varied` with another objective."""
    profile, fleet, goal = varied(seed)
    limit_ms = goal.max_latency_ms or (1000 if objective == "energy" else None)
    changes = {"objective": objective, "max_latency_ms": limit_ms}
    return build_instance(profile, fleet, Goal.model_validate(goal.model_dump() | changes))


def value_of(costs: SubsetCosts, function: ObjectiveFunction, columns: list[Column]) -> int:
    """Return the objective of columns that cost their lower bounds."""
    options = [costs.instance.options[i.option] for i in columns]
    return function.value(options, [int(costs.lower_bound[i.option, i.mask]) for i in columns])


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("costs_of", [varied_costs, dearer_costs])
def test_the_optimistic_assignment_is_the_best(objective: Objective, costs_of: Callable[[int], Ints]) -> None:
    """No assignment is better, with and without a limited number of devices, and none is found below it."""
    found = limited = 0
    for seed in SEEDS:
        instance = instance_for(seed, objective)
        costs, function = SubsetCosts(instance, NO_WARM_START), ObjectiveFunction(instance, objective)
        costs.lower_bound[:] = costs_of(seed)
        values: list[tuple[int, int]] = [
            (value_of(costs, function, some), len(some)) for some in covers(instance, columns_within(costs.lower_bound))
        ]
        for max_devices in (NEVER, 1):
            max_use = np.full(instance.num_resources, NEVER)
            max_use[DEVICES] = max_devices
            best = min((value for value, n in values if n <= max_devices), default=NEVER)
            master = MasterProblem(costs, function, max_use)
            assignment = master.best_optimistic_assignment(Clock(60))
            assert (NEVER if assignment is None else assignment.value) == best, seed
            if assignment is None:
                continue
            found, limited = found + 1, limited + (max_devices == 1)
            assert value_of(costs, function, assignment.columns) == best
            assert len(assignment.columns) <= max_devices
            # With the longest times that are allowed, the objective is still attained.
            options = [instance.options[i.option] for i in assignment.columns]
            assert function.value(options, assignment.max_compute_us) == best
            assert master.best_optimistic_assignment(Clock(60), below=best) is None
    assert found >= 20
    assert limited >= 6


def test_the_best_rises_with_the_bounds() -> None:
    """From lazy bounds to exact ones, the value only rises, and ends at the optimum."""
    compared = 0
    for seed in SEEDS[::3]:
        instance = instance_for(seed, "latency")
        costs, function = SubsetCosts(instance, NO_WARM_START), ObjectiveFunction(instance)
        master, exact = MasterProblem(costs, function), varied_costs(seed)
        values = []
        while True:
            assignment = master.best_optimistic_assignment(Clock(60))
            values.append(NEVER if assignment is None else assignment.value)
            if assignment is None:
                break
            rising = [i for i in assignment.columns if costs.lower_bound[i.option, i.mask] < exact[i.option, i.mask]]
            if not rising:
                break
            for i in rising:
                costs.solve(i, Clock(60))
        assert values == sorted(values)
        costs.lower_bound[:] = exact
        possible = covers(instance, columns_within(exact))
        assert values[-1] == min((value_of(costs, function, some) for some in possible), default=NEVER)
        compared += len(values) > 1
    assert compared >= 5
