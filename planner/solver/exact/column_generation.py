"""The assignment of least energy, by column generation over all class subsets.

Where devices are judged by their slowest, only the largest subsets matter; where costs add up,
any may. There are thousands for each option, and few are needed:

1. Solve the linear relaxation of the assignment over the columns at hand (GLOP). Its dual prices
   say what each class, device and resource is worth, and so which columns would help: those
   of negative reduced cost. Add them, until there are none. The value is then a bound.
2. Choose among the columns at hand (CP-SAT): a plan.
3. A column whose reduced cost exceeds the distance between plan and bound is in no better plan.
   Choose among all others (CP-SAT): the best plan.

Source: Dantzig and Wolfe, doi:10.1287/opre.8.1.101; reduced-cost fixing is folklore.
"""

from collections.abc import Callable, Sequence

import numpy as np
from ortools.linear_solver import pywraplp

from planner.arrays import Floats, Ints
from planner.solver.exact.assignment import Column, cover
from planner.solver.exact.subset_costs import LP_S, SubsetCosts
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER, Instance

_PER_ROUND = 6
_EPSILON = 1e-9


def cheapest_cover(knowledge: SubsetCosts, limits: Ints, most: Ints, clock: Clock) -> list[Column] | None:
    """Return candidates, one for each used device, that serve all classes with the least energy, as far as is known.

    None if there is no such choice.

    Args:
        knowledge: What the energy of each class subset is at least; relaxations are added to it.
        limits: The most compute time [us] of each option, (O,).
        most: The most that may be used of each resource, (R,).
        clock: Time for it.

    Raises:
        TimeoutError: If neither was found in time.
    """
    instance = knowledge.instance
    rates = np.array([option.energy_per_us for option in instance.options])[:, None]

    def costs() -> Ints:
        table: Ints = np.where(knowledge.low <= limits[:, None], knowledge.low * rates, NEVER)
        return table

    if (costs() >= NEVER).all():
        return None
    cap = _most_cost(instance, limits)
    master = _Master(instance, most, cap)
    bound = master.solve(costs, knowledge, clock)
    if bound > cap:
        return None

    def choose(candidates: Sequence[Column]) -> list[Column] | None:
        weights = costs()
        possible = [i for i in candidates if weights[i.option, i.mask] < NEVER]
        return cover(instance, possible, [int(weights[i.option, i.mask]) for i in possible], most, clock)

    while True:
        # Costs rise with every relaxation that is solved: what was chosen before is chosen anew.
        plan, table = choose(master.columns), costs()
        value = cap if plan is None else sum(int(table[i.option, i.mask]) for i in plan)
        # In scaled numbers the prices are off by this much at most.
        slack = value - bound + 1e-6 * cap + 1
        reduced = master.reduced_costs(table) * cap
        promising = [Column(int(o), int(mask)) for o, mask in np.argwhere(reduced <= slack)]
        loose = [i for i in promising if not knowledge.is_bounded(i)]
        if not loose:
            break
        _bound(knowledge, loose, clock)
    if plan is not None and set(promising) <= set(master.columns):
        return plan
    better = choose(promising)
    return plan if better is None else better


def _bound(knowledge: SubsetCosts, candidates: Sequence[Column], clock: Clock) -> None:
    for candidate in candidates:
        if clock.expired():
            raise TimeoutError
        clock.spend(LP_S)
        knowledge.bound(candidate)


def _most_cost(instance: Instance, limits: Ints) -> int:
    """Return more than any assignment costs, whatever is still to be learned: whole models, within the limits."""
    by_group = [0] * len(instance.groups)
    whole = range(len(instance.units))
    for option, limit_us in zip(instance.options, limits.tolist(), strict=True):
        dearest = option.energy_per_us * min(limit_us, instance.compute_us(option, whole))
        by_group[option.group] = max(by_group[option.group], dearest)
    return 1 + sum(dearest * len(group.names) for dearest, group in zip(by_group, instance.groups, strict=True))


class _Master:
    """The linear relaxation of the assignment over the columns at hand; see `assign` for its rows."""

    def __init__(self, instance: Instance, most: Ints, cap: int) -> None:
        self._instance, self._cap = instance, cap
        self.columns: list[Column] = []
        masks = np.arange(2**instance.num_classes)
        self._holds = (masks[:, None] >> np.arange(instance.num_classes) & 1).astype(np.float64)  # (2^C, C)
        self._lp = lp = pywraplp.Solver.CreateSolver("GLOP")
        unbounded = lp.infinity()
        self._covers = [
            [lp.Constraint(rule.least, unbounded) for _ in range(instance.num_classes)] for rule in instance.survivors
        ]
        sizes = [len(group.names) for group in instance.groups]
        self._groups = [
            lp.Constraint(n if group.must else -unbounded, n) for n, group in zip(sizes, instance.groups, strict=True)
        ]
        self._resources = {r: lp.Constraint(-unbounded, m) for r, m in enumerate(most.tolist()) if m < NEVER}
        lp.Objective().SetMinimization()
        # Artificial columns keep the relaxation feasible, at a price that no plan would pay.
        for row in [row for rows in self._covers for row in rows]:
            self._artificial(row)
        for row, group in zip(self._groups, instance.groups, strict=True):
            if group.must:
                self._artificial(row)

    def _artificial(self, row: pywraplp.Constraint) -> None:
        variable = self._lp.NumVar(0, self._lp.infinity(), "")
        self._lp.Objective().SetCoefficient(variable, 10.0)
        row.SetCoefficient(variable, 1)

    def solve(self, costs: Callable[[], Ints], knowledge: SubsetCosts, clock: Clock) -> float:
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
                loose = [i for i in new if not knowledge.is_bounded(i)]
                if not loose:
                    break
                _bound(knowledge, loose, clock)
            if not new:
                return self._bound(reduced) * self._cap
            for candidate in new:
                self._add(candidate, int(table[candidate.option, candidate.mask]))
            have.update(new)

    def reduced_costs(self, costs: Ints) -> Floats:
        """Return the reduced cost of every column, scaled, (O, 2^C)."""
        instance = self._instance
        prices = np.array([[row.dual_value() for row in rows] for rows in self._covers])  # (rules, C)
        reduced = np.where(costs < NEVER, costs / self._cap, np.inf)
        for o, option in enumerate(instance.options):
            member = [option.group in rule.groups for rule in instance.survivors]
            reduced[o] -= self._holds @ prices[member].sum(axis=0)
            reduced[o] -= self._groups[option.group].dual_value()
            reduced[o] -= sum(row.dual_value() * int(option.use[r]) for r, row in self._resources.items())
        return reduced

    def _bound(self, reduced: Floats) -> float:
        """The dual value, made feasible: no device gains more than its best column's reduced cost."""
        instance = self._instance
        value: float = sum(row.dual_value() * row.lb() for rows in self._covers for row in rows)
        value += sum(row.dual_value() * row.ub() for row in [*self._groups, *self._resources.values()])
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

    def _add(self, candidate: Column, cost: int) -> None:
        option = self._instance.options[candidate.option]
        self.columns.append(candidate)
        x = self._lp.NumVar(0, self._lp.infinity(), "")
        self._lp.Objective().SetCoefficient(x, cost / self._cap)
        for rule, rows in zip(self._instance.survivors, self._covers, strict=True):
            if option.group in rule.groups:
                for c in candidate.classes:
                    rows[c].SetCoefficient(x, 1)
        self._groups[option.group].SetCoefficient(x, 1)
        for r, row in self._resources.items():
            row.SetCoefficient(x, int(option.use[r]))
