"""The cheapest sub-model for a device and a class subset: a covering knapsack.

Parameters, for option o and class subset S of n classes (see `instance`): ticks t_u, grains m_u,
importance I_cu, need r_c = need[c, n]; switch costs t_att, t_mlp; activation grains a_h, a_c.

Variables
    y_u   unit u is kept                                    binary
    p_l   block l keeps a head; q_l it keeps a channel      binary
    A     peak activations of the kept units [grains]       integer
    T     compute time [us]                                 integer

Constraints
    (1) sum_u I_cu y_u >= r_c                                            for c in S
    (2) sum_u m_u y_u + A <= free grains
    (3) A >= a_h sum_{heads u of l} y_u,  A >= a_c sum_{groups u of l} size_u y_u    for each block l
    (4) y_u <= p_l for heads, y_u <= q_l for groups                      where a switch costs
    (5) ticks_per_us T >= t_fixed + sum_u t_u y_u + sum_l (t_att p_l + t_mlp q_l)

Objective: least T (`cheapest`), least memory (`smallest`) or, at a given T, most retention (`fill`).

The LP relaxation is within a few percent of the optimum and takes a millisecond: the bound that
saves most of the exact solves.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from ortools.linear_solver import pywraplp
from ortools.sat.python import cp_model

from planner.arrays import Ints
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import IMPORTANCE_SCALE, Instance, Option

_NO_PRICE = 1e-9


@dataclass(frozen=True)
class SubModelResult:
    """What is known of a least value: a proven bound, and a sub-model where one was found."""

    bound: int | None  # None: there is no such sub-model
    kept: tuple[int, ...] | None


@dataclass(frozen=True)
class DualCut:
    """A dual solution of the relaxation: a bound at any needs and any free memory.

    No sub-model for classes that hold those with a price is below
    constant + per_grain free + sum_c prices_c need[c, n]: in time [us] or, where it is of memory, in
    memory [grains].
    """

    prices: tuple[float, ...]  # (C,) of a whole model's importance
    per_grain: float  # not above 0
    constant: float
    of_memory: bool


@dataclass(frozen=True)
class LinearBound:
    """A bound on every class subset of n classes that holds all of `binding`: by_count[n - 1]."""

    binding: tuple[int, ...]
    by_count: Ints
    cut: DualCut | None  # None where the relaxation was not solved to the end


class Relaxation:
    """The LP relaxation for one option, kept ready: only the needs change between subsets.

    Its value is compute time [us] or, with `of_memory`, memory [grains] without a budget.
    """

    def __init__(self, instance: Instance, option: Option, of_memory: bool = False) -> None:
        units = instance.units
        lp = pywraplp.Solver.CreateSolver("GLOP")
        self._option, self._lp, self._of_memory = option, lp, of_memory
        self._y = [lp.NumVar(0, 1, "") for _ in range(len(units))]
        activations = lp.NumVar(0, lp.infinity(), "")
        switches = {
            True: [lp.NumVar(0, 1, "") for _ in range(units.depth)],
            False: [lp.NumVar(0, 1, "") for _ in range(units.depth)],
        }
        self._floors = []
        for shares in units.importance / IMPORTANCE_SCALE:  # (1)
            row = lp.Constraint(-lp.infinity(), lp.infinity())
            for y, share in zip(self._y, shares.tolist(), strict=True):
                row.SetCoefficient(y, share)
            self._floors.append(row)
        scale = max(1, abs(option.free_grains))
        self._memory_scale = scale
        self._memory = memory = lp.Constraint(
            -lp.infinity(), lp.infinity() if of_memory else option.free_grains / scale
        )  # (2)
        memory.SetCoefficient(activations, 1 / scale)
        objective = lp.Objective()
        cost = option.unit_grains if of_memory else option.unit_ticks / option.ticks_per_us
        for u, y in enumerate(self._y):
            memory.SetCoefficient(y, int(option.unit_grains[u]) / scale)
            objective.SetCoefficient(y, float(cost[u]))
        for is_head, per_unit, switch_ticks in _halves(option):
            for l in range(units.depth):
                members = np.flatnonzero((units.block == l) & (units.is_head == is_head)).tolist()
                peak = lp.Constraint(0, lp.infinity())  # (3)
                peak.SetCoefficient(activations, 1)
                for u in members:
                    peak.SetCoefficient(self._y[u], -per_unit * int(units.size[u]))
                    if switch_ticks:
                        lp.Add(self._y[u] <= switches[is_head][l])  # (4)
                if not of_memory:
                    objective.SetCoefficient(switches[is_head][l], switch_ticks / option.ticks_per_us)
        if of_memory:
            objective.SetCoefficient(activations, 1)
        else:
            objective.SetOffset(option.fixed_ticks / option.ticks_per_us)
        objective.SetMinimization()

    def bound(self, classes: Sequence[int]) -> LinearBound | None:
        """Return a bound on the value of any sub-model for these classes; None if there is none."""
        needs = self._option.need[:, len(classes) - 1] / IMPORTANCE_SCALE
        chosen = set(classes)
        for c, row in enumerate(self._floors):
            row.SetLb(float(needs[c]) if c in chosen else -self._lp.infinity())
        status = self._lp.Solve()
        if status == pywraplp.Solver.INFEASIBLE:
            return None
        if status != pywraplp.Solver.OPTIMAL:
            return LinearBound((), np.zeros(len(needs), dtype=np.int64), None)
        prices = {c: self._floors[c].dual_value() for c in classes}
        binding = tuple(c for c, price in prices.items() if price > _NO_PRICE)
        # The value at other needs: linear in them, by duality, since the prices stay feasible.
        now = self._option.need[binding, len(classes) - 1]
        dearer = (self._option.need[binding, :].T - now) / IMPORTANCE_SCALE  # (C, binding)
        binding_prices = np.array([prices[c] for c in binding])
        value = self._lp.Objective().Value()
        per_grain = min(0.0, self._memory.dual_value()) / self._memory_scale
        cut = DualCut(
            prices=tuple(prices[c] if c in binding else 0.0 for c in range(len(needs))),
            per_grain=per_grain,
            constant=value - float(binding_prices @ (now / IMPORTANCE_SCALE)) - per_grain * self._option.free_grains,
            of_memory=self._of_memory,
        )
        return LinearBound(binding, whole(value + dearer @ binding_prices), cut)


def whole(bounds: NDArray[np.float64]) -> Ints:
    """Return bounds as whole numbers, as safe as they were proven."""
    # GLOP's own tolerance is 1e-7: loosened by more, the bound holds.
    found: Ints = np.maximum(0, np.ceil(bounds * (1 - 1e-6) - 1e-6)).astype(np.int64)
    return found


def cheapest(
    instance: Instance,
    option: Option,
    classes: Sequence[int],
    clock: Clock,
    most_s: float = math.inf,
    enough_us: int = 0,
) -> SubModelResult:
    """Return the least compute time [us] of a sub-model for these classes, or any that is at most `enough_us`."""
    model = _Model(instance, option, classes)
    most_us = math.ceil(model.most_ticks / option.ticks_per_us)
    time_us = model.cp.new_int_var(0, most_us, "T")
    model.cp.add(option.ticks_per_us * time_us >= model.ticks)  # (5)
    model.cp.minimize(time_us)
    return model.solve(clock, most_s, enough_us)


def smallest(instance: Instance, option: Option, classes: Sequence[int], clock: Clock) -> SubModelResult:
    """Return the least memory [grains], beyond what is always there, of a sub-model for these classes."""
    model = _Model(instance, option, classes, within_budget=False)
    model.cp.minimize(model.grains)
    return model.solve(clock)


def richest(
    instance: Instance, option: Option, classes: Sequence[int], compute_us: int, kept: Sequence[int], clock: Clock
) -> tuple[int, ...]:
    """Return the sub-model of most retention, summed over its classes, within a compute time [us].

    To a thousandth; units that none of the classes needs are not kept, since they take energy.

    Args:
        kept: A sub-model that meets all constraints, returned where none better is found.
    """
    model = _Model(instance, option, classes)
    model.cp.add(model.ticks <= compute_us * option.ticks_per_us)
    value = instance.units.importance[list(classes)].sum(axis=0).tolist()
    model.cp.maximize(_weighted(value, model.y))
    chosen = set(kept)
    for u, y in enumerate(model.y):
        model.cp.add_hint(y, u in chosen)
        if not value[u]:
            model.cp.add(y == 0)
    # Stopped by counted work and not by the clock: the same sub-model on every machine.
    found = model.solve(clock, relative_gap_limit=1e-3, max_deterministic_time=0.5).kept
    return found if found is not None else tuple(kept)


def most_even(
    instance: Instance, option: Option, classes: Sequence[int], compute_us: int, kept: Sequence[int], clock: Clock
) -> tuple[int, ...]:
    """Return the sub-model whose lowest retention is highest within a compute time [us].

    Args:
        kept: A sub-model that meets all constraints, returned where none better is found.
    """
    model = _Model(instance, option, classes)
    model.cp.add(model.ticks <= compute_us * option.ticks_per_us)
    lowest = model.cp.new_int_var(0, 2 * IMPORTANCE_SCALE, "lowest")
    for c in classes:
        shares = np.floor(instance.units.importance[c] * option.at.share[c]).astype(np.int64)
        model.cp.add(lowest <= _weighted(shares.tolist(), model.y))
    model.cp.maximize(lowest)
    for u, y in enumerate(model.y):
        model.cp.add_hint(y, u in set(kept))
    found = model.solve(clock, max_deterministic_time=0.5).kept
    return found if found is not None else tuple(kept)


class _Model:
    """Constraints (1) to (4) as a CP-SAT model."""

    def __init__(self, instance: Instance, option: Option, classes: Sequence[int], within_budget: bool = True) -> None:
        units = instance.units
        self.cp = cp = cp_model.CpModel()
        self.y = [cp.new_bool_var(f"y{u}") for u in range(len(units))]
        for c in classes:
            need = int(option.need[c, len(classes) - 1])
            cp.add(_weighted(units.importance[c].tolist(), self.y) >= need)  # (1)
        halves = []
        for is_head, per_unit, switch_ticks in _halves(option):
            for l in range(units.depth):
                members = np.flatnonzero((units.block == l) & (units.is_head == is_head)).tolist()
                halves.append((per_unit, switch_ticks, members))
        peaks = [per_unit * int(units.size[members].sum()) for per_unit, _, members in halves]
        activations = cp.new_int_var(0, max(peaks, default=0), "A")
        self.grains = _weighted(option.unit_grains.tolist(), self.y) + activations
        if within_budget:
            cp.add(self.grains <= option.free_grains)  # (2)
        self.ticks: cp_model.LinearExprT = option.fixed_ticks + _weighted(option.unit_ticks.tolist(), self.y)
        switches = units.depth * (option.attention_ticks + option.mlp_ticks)
        self.most_ticks = option.fixed_ticks + int(option.unit_ticks.sum()) + switches
        for per_unit, switch_ticks, members in halves:
            sizes = [per_unit * int(units.size[u]) for u in members]
            cp.add(activations >= _weighted(sizes, [self.y[u] for u in members]))  # (3)
            if switch_ticks and members:
                switch = cp.new_bool_var("")
                cp.add_max_equality(switch, [self.y[u] for u in members])  # (4)
                self.ticks += switch_ticks * switch

    def solve(
        self, clock: Clock, most_s: float = math.inf, enough: float = -math.inf, **parameters: float
    ) -> SubModelResult:
        solver = cp_model.CpSolver()
        status = clock.solve(solver, self.cp, most_s, enough, **parameters)
        if status == cp_model.INFEASIBLE:
            return SubModelResult(None, None)
        bound = max(0, math.ceil(solver.best_objective_bound - 1e-6))
        if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return SubModelResult(bound, None)
        return SubModelResult(bound, tuple(u for u, y in enumerate(self.y) if solver.boolean_value(y)))


def _halves(option: Option) -> tuple[tuple[bool, int, int], ...]:
    """The attention and the MLP half of a block: (is it heads, activation grains per unit, switch ticks)."""
    return (
        (True, option.head_grains, option.attention_ticks),
        (False, option.channel_grains, option.mlp_ticks),
    )


def _weighted(weights: Sequence[int], variables: Sequence[cp_model.IntVar]) -> cp_model.LinearExprT:
    return cp_model.LinearExpr.weighted_sum(list(variables), list(weights))
