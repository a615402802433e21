"""Linear relaxation of the sub-model problem, and the cuts that its duals give.

The problem is that of `knapsack` with y, p and q between 0 and 1. Its optimum is within a few percent of the integer
one and takes a millisecond, so it saves most of the exact solves. By linear programming duality an optimal dual
solution stays feasible when needs or what budgets leave change, and so bounds other class subsets too: these are the
optimality cuts of Benders decomposition. Where budgets are too short, the least that a sub-model takes of one of them
is relaxed instead: its dual is a feasibility cut.

Legend: C classes, U units, P unit sets, M budgets.

Source: Benders, doi:10.1007/BF01386316.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ortools.linear_solver import pywraplp

from planner.arrays import Floats, Ints
from planner.solver.problem.cost_table import MEMORY
from planner.solver.problem.instance import IMPORTANCE_SCALE, Instance
from planner.solver.problem.option import Option

_NO_PRICE = 1e-9
# Floors that are added to the model at once, or their share of those that may be.
_ROWS_AT_ONCE = 12
# Price of what exceeds an elastic budget: of as much as the whole model has, in times of the whole model.
_EXCESS_PRICE = 1e3


@dataclass(frozen=True)
class DualCut:
    """Dual solution of the relaxation: a bound at any needs and whatever budgets leave.

    No sub-model for classes that hold those with a price is below
    constant + sum_m per_grain_m free_m + sum_c prices_c need[c, n]: in time [us] or, where it is of a budget, in
    grains of it.
    """

    prices: tuple[float, ...]  # (C,) of a whole model's importance
    per_grain: tuple[float, ...]  # (M,) not above 0
    constant: float
    budget: int | None  # None: of the time


@dataclass(frozen=True)
class LinearBound:
    """Bound on every class subset of n classes that holds all of `binding`: by_count[n - 1]."""

    binding: tuple[int, ...]
    by_count: Ints
    cut: DualCut | None  # None where the relaxation was not solved to the end


@dataclass(frozen=True)
class RelaxedSubModel:
    """Optimal solution of the relaxation, units kept in part, and its dual solution."""

    value: float  # compute time [us] or grains of a budget; -inf where the solver failed
    kept: Floats  # (U,)
    reduced_costs: Floats  # (U,)
    prices: dict[int, float]  # of the floors that bind, by class
    per_grain: Floats  # of each budget, not below 0, (M,)
    peak_prices: Floats  # of the activations of each unit set, (P,)


class Relaxation:
    """Relaxation for one option as a warm model: only the needs change between subsets.

    Its value is compute time [us] or, with `budget`, grains of that budget, within those after it alone. With
    `elastic`, what exceeds a budget has a price instead of a limit. Within the budgets that is the same problem; beyond
    them, the value is very large, and there is a dual solution.
    """

    def __init__(self, instance: Instance, option: Option, budget: int | None = None, elastic: bool = False) -> None:
        costs = option.costs
        lp = pywraplp.Solver.CreateSolver("GLOP")
        # Other needs leave the last basis dual feasible: from there it is half the time, as long as the model stays.
        lp.SetSolverSpecificParametersAsString("use_dual_simplex:true use_preprocessing:false")
        self._option, self._lp, self._budget = option, lp, budget
        always_kept = instance.units.always_kept
        self._y = [lp.NumVar(1 if u in always_kept else 0, 1, "") for u in range(len(instance.units))]  # (6)
        activations = lp.NumVar(0, lp.infinity(), "")
        self._charged = charged = [lp.NumVar(0, 1, "") for _ in costs.unit_sets]
        # (1), each when it first matters: most classes of many are kept by what others need.
        self._shares, self._floors = instance.units.shares, dict[int, pywraplp.Constraint]()
        self._in_force: set[int] = set()
        self._scales = np.maximum(1, np.abs(option.free_grains))  # (M,)
        self._budgets = [self._budget_row(m) for m in range(len(self._scales))]  # (2)
        self._budgets[MEMORY].SetCoefficient(activations, 1 / int(self._scales[MEMORY]))
        objective = lp.Objective()
        if elastic:
            prices = _EXCESS_PRICE * costs.max_ticks / costs.ticks_per_us / np.maximum(1, costs.whole_grains)
            for row, price in zip(self._budgets, (prices * self._scales).tolist(), strict=True):
                excess = lp.NumVar(0, lp.infinity(), "")  # in budgets
                row.SetCoefficient(excess, -1)
                objective.SetCoefficient(excess, price)
        cost = costs.unit_ticks / costs.ticks_per_us if budget is None else costs.unit_grains[budget]
        for u, y in enumerate(self._y):
            objective.SetCoefficient(y, float(cost[u]))
        self._peaks = [lp.Constraint(0, lp.infinity()) for _ in costs.unit_sets]  # (3)
        for unit_set, is_charged, peak in zip(costs.unit_sets, charged, self._peaks, strict=True):
            peak.SetCoefficient(activations, 1)
            for u, grains in zip(unit_set.members.tolist(), unit_set.peak_grains.tolist(), strict=True):
                peak.SetCoefficient(self._y[u], -grains)
                if unit_set.charge_ticks:
                    lp.Add(self._y[u] <= is_charged)  # (4)
            if budget is None:
                objective.SetCoefficient(is_charged, unit_set.charge_ticks / costs.ticks_per_us)
        if budget is None:
            objective.SetOffset(costs.fixed_ticks / costs.ticks_per_us)
        elif budget == MEMORY:
            objective.SetCoefficient(activations, 1)
        objective.SetMinimization()

    def _budget_row(self, m: int) -> pywraplp.Constraint:
        """Return the row of a budget, for now without activations; no limit up to the one that is minimised."""
        scale, is_limit = int(self._scales[m]), self._budget is None or m > self._budget
        limit = int(self._option.free_grains[m]) / scale if is_limit else self._lp.infinity()
        row = self._lp.Constraint(-self._lp.infinity(), limit)
        for y, grains in zip(self._y, self._option.costs.unit_grains[m].tolist(), strict=True):
            row.SetCoefficient(y, grains / scale)
        return row

    def relaxed(self, classes: Sequence[int], needs: Floats) -> RelaxedSubModel | None:
        """Return the relaxed sub-model for these classes; None if there is none.

        Args:
            classes: Class subset.
            needs: Need of each class of the model, (C,).
        """
        status = self._solve(classes, needs)
        if status == pywraplp.Solver.INFEASIBLE:
            return None
        if status != pywraplp.Solver.OPTIMAL:
            none, no_peaks = np.zeros(len(self._y)), np.zeros(len(self._peaks))
            return RelaxedSubModel(-np.inf, self._kept(), none, {}, np.zeros(len(self._scales)), no_peaks)
        return RelaxedSubModel(
            value=self._lp.Objective().Value(),
            kept=self._kept(),
            reduced_costs=np.array([y.reduced_cost() for y in self._y]),
            prices=self._prices(classes),
            per_grain=np.maximum(0.0, -self._duals()) / self._scales,
            peak_prices=np.array([max(0.0, peak.dual_value()) for peak in self._peaks]),
        )

    def _solve(self, classes: Sequence[int], needs: Floats) -> int:
        chosen, of = set(classes), np.array(classes, dtype=np.int64)
        for c in self._in_force - chosen:
            self._floors[c].SetLb(-self._lp.infinity())
        self._in_force = chosen & self._floors.keys()
        for c in self._in_force:
            self._floors[c].SetLb(float(needs[c]))
        while True:
            status = int(self._lp.Solve())
            if status != pywraplp.Solver.OPTIMAL or not len(of):
                return status
            lacking = needs[of] - self._shares[of] @ self._kept()
            worst = of[np.argsort(-lacking, kind="stable")[: max(_ROWS_AT_ONCE, len(of) // _ROWS_AT_ONCE)]]
            lacking_of = dict(zip(of.tolist(), lacking.tolist(), strict=True))
            new = [c for c in worst.tolist() if lacking_of[c] > 0 and c not in self._floors]
            if not new:
                return status
            self._in_force.update(new)
            for c in new:
                row = self._floors[c] = self._lp.Constraint(float(needs[c]), self._lp.infinity())
                for y, share in zip(self._y, self._shares[c].tolist(), strict=True):
                    row.SetCoefficient(y, share)

    def _duals(self) -> Floats:
        """Return the dual values of the budgets, in budgets, (M,)."""
        return np.array([row.dual_value() for row in self._budgets])

    def _kept(self) -> Floats:
        return np.array([y.solution_value() for y in self._y])

    def _prices(self, classes: Sequence[int]) -> dict[int, float]:
        """Return the prices of the floors that bind."""
        prices = {c: self._floors[c].dual_value() for c in classes if c in self._floors}
        return {c: price for c, price in prices.items() if price > _NO_PRICE}

    def bound(self, classes: Sequence[int]) -> LinearBound | None:
        """Return a bound on the value of any sub-model for these classes; None if there is none."""
        needs = self._option.need[:, len(classes) - 1] / IMPORTANCE_SCALE
        status = self._solve(classes, needs)
        if status == pywraplp.Solver.INFEASIBLE:
            return None
        if status != pywraplp.Solver.OPTIMAL:
            return LinearBound((), np.zeros(len(needs), dtype=np.int64), None)
        prices = self._prices(classes)
        binding = tuple(prices)
        # The prices stay dual feasible at other needs, so the bound is linear in the needs.
        now = self._option.need[binding, len(classes) - 1]
        dearer = (self._option.need[binding, :].T - now) / IMPORTANCE_SCALE  # (C, binding)
        binding_prices = np.array([prices[c] for c in binding])
        value = self._lp.Objective().Value()
        per_grain = np.minimum(0.0, self._duals()) / self._scales
        of_needs, of_free = (
            float(binding_prices @ (now / IMPORTANCE_SCALE)),
            float(per_grain @ self._option.free_grains),
        )
        cut = DualCut(
            prices=tuple(prices.get(c, 0.0) for c in range(len(needs))),
            per_grain=tuple(per_grain.tolist()),
            constant=value - of_needs - of_free,
            budget=self._budget,
        )
        return LinearBound(binding, safely_rounded_up(value + dearer @ binding_prices), cut)


def safely_rounded_up(bounds: Floats) -> Ints:
    """Return bounds as whole numbers, loosened by more than the LP solver's tolerance."""
    # GLOP's own tolerance is 1e-7.
    rounded: Ints = np.maximum(0, np.ceil(bounds * (1 - 1e-6) - 1e-6)).astype(np.int64)
    return rounded
