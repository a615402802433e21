"""Assignment of least energy by Dantzig-Wolfe column generation over all class subsets.

Where the slowest device counts, only the largest subsets matter; where costs add up, any may. There are thousands for
each option, and few are needed:

1. Solve the linear relaxation of `problem.covering` over the columns at hand (GLOP), the restricted master. Its duals
   price classes, devices and resources. Columns of negative reduced cost would help: add them, until there are none.
   The value is then a bound.
2. Choose among the columns at hand (CP-SAT): a plan.
3. A column whose reduced cost exceeds the distance between plan and bound is in no better plan (reduced-cost fixing).
   Choose among all others (CP-SAT): the best plan.

Source: Dantzig and Wolfe, Decomposition principle for linear programs, doi:10.1287/opre.8.1.101.
"""

from collections.abc import Callable, Sequence

import numpy as np
from ortools.linear_solver import pywraplp

from planner.arrays import Floats, Ints
from planner.solver.exact.subset_costs import LP_S, SubsetCosts
from planner.solver.problem.assignment import cover
from planner.solver.problem.clock import Clock
from planner.solver.problem.column import Column
from planner.solver.problem.covering import cover_rows, group_rows, resource_rows
from planner.solver.problem.instance import NEVER, Instance

# Columns that each option adds in a round.
_PER_ROUND = 6
_EPSILON = 1e-9


def cheapest_cover(subset_costs: SubsetCosts, limits: Ints, max_use: Ints, clock: Clock) -> list[Column] | None:
    """Return columns, one for each used device, that serve all classes with the least energy at their lower bounds.

    None if there is no such choice.

    Args:
        subset_costs: Lower bounds, which are raised by relaxations on the way.
        limits: Most compute time [us] of each option, (O,).
        max_use: Limit of each resource, (R,).
        clock: Time for it.

    Raises:
        TimeoutError: If neither was found in time.
    """
    instance = subset_costs.instance
    rates = np.array([option.energy_per_us for option in instance.options])[:, None]

    def costs() -> Ints:
        table: Ints = np.where(subset_costs.lower_bound <= limits[:, None], subset_costs.lower_bound * rates, NEVER)
        return table

    if (costs() >= NEVER).all():
        return None
    cap = _cost_cap(instance, limits)
    master = _RestrictedMaster(instance, max_use, cap)
    bound = master.solve(costs, subset_costs, clock)
    if bound > cap:
        return None

    def choose(columns: Sequence[Column]) -> list[Column] | None:
        weights = costs()
        possible = [i for i in columns if weights[i.option, i.mask] < NEVER]
        return cover(instance, possible, [int(weights[i.option, i.mask]) for i in possible], max_use, clock)

    while True:
        # Costs rise with every relaxation that is solved: what was chosen before is chosen anew.
        plan, table = choose(master.columns), costs()
        value = cap if plan is None else sum(int(table[i.option, i.mask]) for i in plan)
        # In scaled numbers the prices are off by this much at most.
        slack = value - bound + 1e-6 * cap + 1
        reduced = master.reduced_costs(table) * cap
        promising = [Column(int(o), int(mask)) for o, mask in np.argwhere(reduced <= slack)]
        unrelaxed = [i for i in promising if not subset_costs.is_relaxed(i)]
        if not unrelaxed:
            break
        _relax(subset_costs, unrelaxed, clock)
    if plan is not None and set(promising) <= set(master.columns):
        return plan
    better = choose(promising)
    return plan if better is None else better


def _relax(subset_costs: SubsetCosts, columns: Sequence[Column], clock: Clock) -> None:
    for column in columns:
        if clock.expired():
            raise TimeoutError
        clock.spend(LP_S)
        subset_costs.relax(column)


def _cost_cap(instance: Instance, limits: Ints) -> int:
    """Return more than any assignment costs at any bounds: whole models, within the limits."""
    by_group = [0] * len(instance.groups)
    whole = range(len(instance.units))
    for option, limit_us in zip(instance.options, limits.tolist(), strict=True):
        dearest = option.energy_per_us * min(limit_us, instance.compute_us(option, whole))
        by_group[option.group] = max(by_group[option.group], dearest)
    return 1 + sum(dearest * len(group.names) for dearest, group in zip(by_group, instance.groups, strict=True))


class _RestrictedMaster:
    """Linear relaxation of `problem.covering` over the columns at hand, costs scaled by the cap."""

    def __init__(self, instance: Instance, max_use: Ints, cap: int) -> None:
        self._instance, self._cap = instance, cap
        self.columns: list[Column] = []
        masks = np.arange(2**instance.num_classes)
        self._member = (masks[:, None] >> np.arange(instance.num_classes) & 1).astype(np.float64)  # (2^C, C)
        self._lp = lp = pywraplp.Solver.CreateSolver("GLOP")
        unbounded = lp.infinity()
        lp.Objective().SetMinimization()
        self._covers = [
            (row, lp.Constraint(row.min_devices, unbounded))
            for row in cover_rows(instance.survival_rules, instance.num_classes)
        ]
        self._groups = [
            lp.Constraint(row.min_devices or -unbounded, row.max_devices) for row in group_rows(instance.groups)
        ]
        self._resources = [(row, lp.Constraint(-unbounded, row.max_use)) for row in resource_rows(max_use)]
        # Artificial columns keep the relaxation feasible, at a price that no plan would pay.
        for _, constraint in self._covers:
            self._artificial(constraint)
        for constraint, group in zip(self._groups, instance.groups, strict=True):
            if group.pinned:
                self._artificial(constraint)

    def _artificial(self, constraint: pywraplp.Constraint) -> None:
        variable = self._lp.NumVar(0, self._lp.infinity(), "")
        self._lp.Objective().SetCoefficient(variable, 10.0)
        constraint.SetCoefficient(variable, 1)

    def solve(self, costs: Callable[[], Ints], subset_costs: SubsetCosts, clock: Clock) -> float:
        """Add columns until none would help, and return a bound on the cost of any assignment."""
        have: set[Column] = set()
        while True:
            clock.spend(LP_S)
            if clock.expired():
                raise TimeoutError
            self._lp.Solve()
            while True:
                table = costs()
                reduced = self.reduced_costs(table)
                new = [i for i in self._best(reduced) if i not in have]
                unrelaxed = [i for i in new if not subset_costs.is_relaxed(i)]
                if not unrelaxed:
                    break
                _relax(subset_costs, unrelaxed, clock)
            if not new:
                return self._bound(reduced) * self._cap
            for column in new:
                self._add(column, int(table[column.option, column.mask]))
            have.update(new)

    def reduced_costs(self, costs: Ints) -> Floats:
        """Return the reduced cost of every column, scaled, (O, 2^C)."""
        reduced = np.where(costs < NEVER, costs / self._cap, np.inf)
        for o, option in enumerate(self._instance.options):
            prices = np.zeros(self._instance.num_classes)
            for row, constraint in self._covers:
                if row.counts(option.group):
                    prices[row.class_index] += constraint.dual_value()
            reduced[o] -= self._member @ prices
            reduced[o] -= self._groups[option.group].dual_value()
            reduced[o] -= sum(constraint.dual_value() * row.use(option) for row, constraint in self._resources)
        return reduced

    def _bound(self, reduced: Floats) -> float:
        """Return the Lagrangian bound: the dual value with each device at its best column's reduced cost."""
        instance = self._instance
        value: float = sum(constraint.dual_value() * constraint.lb() for _, constraint in self._covers)
        others = [*self._groups, *(constraint for _, constraint in self._resources)]
        value += sum(constraint.dual_value() * constraint.ub() for constraint in others)
        for g, group in enumerate(instance.groups):
            least = min(float(reduced[o].min()) for o, option in enumerate(instance.options) if option.group == g)
            value += len(group.names) * min(0.0, least)
        return value

    def _best(self, reduced: Floats) -> list[Column]:
        best = []
        for o, row in enumerate(reduced):
            order = np.argpartition(row, _PER_ROUND)[:_PER_ROUND] if len(row) > _PER_ROUND else np.arange(len(row))
            best += [Column(o, int(mask)) for mask in order if row[mask] < -_EPSILON]
        return best

    def _add(self, column: Column, cost: int) -> None:
        option = self._instance.options[column.option]
        self.columns.append(column)
        x = self._lp.NumVar(0, self._lp.infinity(), "")
        self._lp.Objective().SetCoefficient(x, cost / self._cap)
        for row, constraint in self._covers:
            if row.counts(option.group) and column.mask >> row.class_index & 1:
                constraint.SetCoefficient(x, 1)
        self._groups[option.group].SetCoefficient(x, 1)
        for resource_row, constraint in self._resources:
            constraint.SetCoefficient(x, resource_row.use(option))
