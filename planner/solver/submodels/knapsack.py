"""Least-cost sub-model for a device and a class subset: a covering knapsack with fixed charges, solved by CP-SAT.

Parameters, for option o and class subset S of n classes (see `problem.cost_table`): ticks t_u, grains w_mu of each
budget m (memory, and storage on a device that has a budget for it), importance I_cu, need r_c = need[c, n]; unit sets P
(the attention and the MLP half of each block) with charges and activations a_Pu.

Variables
    y_u   unit u is kept                                    binary
    s_P   some unit of P is kept                            binary
    A     peak activations of the kept units [grains]       integer
    T     compute time [us]                                 integer

Constraints
    (1) sum_u I_cu y_u >= r_c                               for c in S
    (2) sum_u w_mu y_u + [m is memory] A <= free grains_m    for each budget m
    (3) A >= sum_{u in P} a_Pu y_u                          for each P
    (4) y_u <= s_P                                          for u in P, where P has a charge
    (5) ticks_per_us T >= t_fixed + sum_u t_u y_u + sum_P charge_P s_P

    (6) y_u = 1                                             for the anchor head, whose t_u and w_mu are 0

Objective: least T (`cheapest`), least of a budget (`smallest`) or none, with the numbers of units and charges of each
cost given (`with_counts`). For the relaxation see `relaxation`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ortools.sat.python import cp_model

from planner.solver.problem.clock import Clock
from planner.solver.problem.cost_table import MEMORY
from planner.solver.problem.instance import NEVER, Instance
from planner.solver.problem.option import Option
from planner.solver.submodels.relaxation import RelaxedSubModel

# A unit is kept in part if it is this far from being kept and from being removed.
_PART = 1e-6

# Numbers of kept units by their ticks, and of unit sets in use by their charges.
KeptCounts = tuple[Mapping[int, int], Mapping[int, int]]


@dataclass(frozen=True)
class SubModelResult:
    """Proven bound of a least value, and a sub-model where one was found."""

    bound: int | None  # None: there is no such sub-model
    kept: tuple[int, ...] | None


def cheapest(
    instance: Instance,
    option: Option,
    classes: Sequence[int],
    clock: Clock,
    max_s: float = math.inf,
    enough_us: int = 0,
    within_us: tuple[int, int] = (0, NEVER),
) -> SubModelResult:
    """Return the least compute time [us] of a sub-model for these classes, or any that is at most `enough_us`.

    Args:
        instance: Problem.
        option: Device, embed dim and precision.
        classes: Class subset.
        clock: Time for it.
        max_s: Most of it [s].
        enough_us: Time that is good enough [us].
        within_us: Times that are looked at [us]: from the first to below the second.
    """
    model = _Model(instance, option, classes)
    ticks_per_us = option.costs.ticks_per_us
    low, high = within_us[0], min(math.ceil(option.costs.max_ticks / ticks_per_us), within_us[1] - 1)
    if low > high:
        return SubModelResult(None, None)
    time_us = model.cp.new_int_var(low, high, "T")
    model.cp.add(ticks_per_us * time_us >= model.ticks)  # (5)
    model.cp.minimize(time_us)
    return model.solve(clock, max_s, enough_us)


def with_counts(
    instance: Instance, option: Option, classes: Sequence[int], counts: KeptCounts, clock: Clock
) -> SubModelResult:
    """Return any sub-model for these classes with given counts; its bound is 0, whatever it takes.

    Args:
        instance: Problem.
        option: Device, embed dim and precision.
        classes: Class subset.
        counts: How many units of each number of ticks are kept, and how many sets of each charge have some.
        clock: Time for it.
    """
    model = _Model(instance, option, classes)
    costs, (units, charges) = option.costs, counts
    for ticks, members in alike(costs.unit_ticks.tolist()).items():
        model.cp.add(sum(model.y[u] for u in members) == units[ticks])
    for ticks, members in alike(costs.charges.tolist()).items():
        model.cp.add(sum(model.charged[p] for p in members if p in model.charged) == charges[ticks])
    return model.solve(clock)


def alike(costs: Sequence[int]) -> dict[int, list[int]]:
    """Return the positions of each cost that is not zero."""
    found: dict[int, list[int]] = {}
    for i, cost in enumerate(costs):
        if cost:
            found.setdefault(cost, []).append(i)
    return found


def cheapest_near(
    instance: Instance,
    option: Option,
    classes: Sequence[int],
    relaxed: RelaxedSubModel,
    clock: Clock,
    max_s: float,
    core: int = 64,
) -> tuple[int, ...] | None:
    """Return the best sub-model near a relaxed one, or None if none is found: only a core of units is open.

    The core are the units whose reduced cost is nearest to zero, with those kept in part; all others stay as they are
    in the relaxed sub-model. Source: Balas and Zemel, doi:10.1287/opre.28.5.1130.

    Args:
        instance: Problem.
        option: Option.
        classes: Class subset.
        relaxed: Relaxed sub-model for these classes.
        clock: Time for it.
        max_s: Time limit [s].
        core: Number of open units.
    """
    model = _Model(instance, option, classes)
    model.keep_to_core(relaxed, core)
    model.cp.minimize(model.ticks)
    return model.solve(clock, max_s).kept


def smallest(instance: Instance, option: Option, classes: Sequence[int], budget: int, clock: Clock) -> SubModelResult:
    """Return the least of a budget [grains], beyond what every sub-model takes, whatever that takes of the others."""
    model = _Model(instance, option, classes, within_budgets=False)
    model.cp.minimize(model.grains[budget])
    return model.solve(clock)


class _Model:
    """Constraints (1) to (4) and (6) as a CP-SAT model."""

    def __init__(self, instance: Instance, option: Option, classes: Sequence[int], within_budgets: bool = True) -> None:
        units, costs = instance.units, option.costs
        self.cp = cp = cp_model.CpModel()
        self.y = [cp.new_bool_var(f"y{u}") for u in range(len(units))]
        for u in units.always_kept:
            cp.add(self.y[u] == 1)  # (6)
        for c in classes:
            need = int(option.need[c, len(classes) - 1])
            cp.add(_weighted(units.importance[c].tolist(), self.y) >= need)  # (1)
        peaks = [int(unit_set.peak_grains.sum()) for unit_set in costs.unit_sets]
        activations = cp.new_int_var(0, max(peaks, default=0), "A")
        self.grains = [_weighted(grains, self.y) for grains in costs.unit_grains.tolist()]
        self.grains[MEMORY] += activations
        if within_budgets:
            for grains, free in zip(self.grains, option.free_grains.tolist(), strict=True):
                cp.add(grains <= free)  # (2)
        self.ticks: cp_model.LinearExprT = costs.fixed_ticks + _weighted(costs.unit_ticks.tolist(), self.y)
        self.charged: dict[int, cp_model.IntVar] = {}
        for p, unit_set in enumerate(costs.unit_sets):
            members = [self.y[u] for u in unit_set.members.tolist()]
            cp.add(activations >= _weighted(unit_set.peak_grains.tolist(), members))  # (3)
            if unit_set.charge_ticks and members:
                self.charged[p] = is_charged = cp.new_bool_var("")
                cp.add_max_equality(is_charged, members)  # (4)
                self.ticks += unit_set.charge_ticks * is_charged

    def keep_to_core(self, relaxed: RelaxedSubModel, core: int) -> None:
        """Fix all units as they are in a relaxed sub-model, but those of the core."""
        in_part = (relaxed.kept > _PART) & (relaxed.kept < 1 - _PART)
        order = np.argsort(np.where(in_part, -1.0, np.abs(relaxed.reduced_costs)), kind="stable")
        for u in order[core:].tolist():
            self.cp.add(self.y[u] == int(relaxed.kept[u] > 0.5))

    def solve(self, clock: Clock, max_s: float = math.inf, enough: float = -math.inf) -> SubModelResult:
        solver = cp_model.CpSolver()
        status = clock.solve(solver, self.cp, max_s, enough)
        if status == cp_model.INFEASIBLE:
            return SubModelResult(None, None)
        bound = max(0, math.ceil(solver.best_objective_bound - 1e-6))
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return SubModelResult(bound, None)
        return SubModelResult(bound, tuple(u for u, y in enumerate(self.y) if solver.boolean_value(y)))


def _weighted(weights: Sequence[int], variables: Sequence[cp_model.IntVar]) -> cp_model.LinearExprT:
    return cp_model.LinearExpr.weighted_sum(list(variables), list(weights))
