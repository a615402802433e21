"""Compute time [us] of sub-models by option and class subset: bounded by relaxation, solved by branching.

Latency and energy both follow from it.
"""

import numpy as np

from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER, Instance
from planner.solver.submodels.by_counts import CheapestSubModels
from planner.solver.submodels.knapsack import SubModelResult
from planner.solver.submodels.relaxation import LinearBound, Relaxation


class SubModelCosts:
    """The subproblem of the decomposition, with warm relaxations."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._relaxations: dict[tuple[int, int | None], Relaxation] = {}
        self._cheapest: dict[int, CheapestSubModels] = {}

    def bound(self, option: int, classes: tuple[int, ...]) -> LinearBound | None:
        """Return a bound for these classes and others like them; None if the option cannot serve them."""
        of_time = self._relaxation(option, None).bound(classes)
        if of_time is not None:
            return of_time
        # A budget is too short: the least that is needed of it tells for which other subsets it is too short as well.
        for budget, free in enumerate(self._instance.options[option].free_grains.tolist()):
            of_budget = self._relaxation(option, budget).bound(classes)
            if of_budget is not None and of_budget.by_count[len(classes) - 1] > free:
                return LinearBound(of_budget.binding, np.where(of_budget.by_count > free, NEVER, 0), of_budget.cut)
        return None

    def _relaxation(self, option: int, budget: int | None) -> Relaxation:
        key = option, budget
        if key not in self._relaxations:
            self._relaxations[key] = Relaxation(self._instance, self._instance.options[option], budget)
        return self._relaxations[key]

    def solve(
        self, option: int, classes: tuple[int, ...], clock: Clock, enough: int, beyond: int = NEVER
    ) -> SubModelResult:
        """Return the least cost of a sub-model for these classes; what is at most `enough` or `beyond` will do."""
        if option not in self._cheapest:
            self._cheapest[option] = CheapestSubModels(self._instance, self._instance.options[option])
        return self._cheapest[option].cheapest(classes, clock, enough, beyond)

    def of(self, option: int, kept: tuple[int, ...]) -> int:
        """Return the cost of a sub-model."""
        return self._instance.compute_us(self._instance.options[option], kept)
