"""Bounds on sub-models from one of their classes alone: fractional knapsacks, solved by sorting.

A sub-model that serves class c beside n - 1 others takes at least as long as the linear relaxation with the floor of
c alone, at the need for n. With one constraint this is the fractional knapsack of Dantzig, doi:10.1287/opre.5.2.266:
take units in the order of their price per importance, the anchor head first, whose own price is 0. Budgets enter by
Lagrangian relaxation, one at a time, at a few prices.
"""

import numpy as np

from planner.arrays import Floats, Ints
from planner.solver.problem.instance import IMPORTANCE_SCALE, NEVER, Instance
from planner.solver.problem.option import Option

# Prices of a budget against time that are tried, in whole models.
_BUDGET_PRICES = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)


def single_class_us(instance: Instance, option: Option) -> Ints:
    """Return a bound on the compute time [us] of serving class c beside n - 1 others, (C, C): [c, n - 1]."""
    costs = option.costs
    need = option.need / IMPORTANCE_SCALE
    importance = instance.units.shares
    ticks = costs.unit_ticks.astype(np.float64) + costs.charge_shares
    least = np.zeros(option.need.shape)
    for grains, free in zip(costs.unit_grains.astype(np.float64), option.free_grains.tolist(), strict=True):
        per_grain = ticks.sum() / max(1.0, grains.sum())
        for price in _BUDGET_PRICES:
            relaxed = _fractional_knapsack(importance, ticks + price * per_grain * grains, need)
            least = np.maximum(least, relaxed - price * per_grain * free)
        least[_fractional_knapsack(importance, grains, need) * (1 - 1e-9) > free] = np.inf
    time_us = (least * (1 - 1e-9) + costs.fixed_ticks) / costs.ticks_per_us
    never = ~np.isfinite(time_us)
    bound_us: Ints = np.ceil(np.where(never, 0.0, time_us) - 1e-6).astype(np.int64)
    bound_us[never] = NEVER
    return bound_us


def _fractional_knapsack(importance: Floats, prices: Floats, need: Floats) -> Floats:
    """Return the least price at which each class keeps each need, units divisible, (C, N); inf where it cannot."""
    order = np.argsort(prices / np.maximum(importance, 1e-12), axis=1, kind="stable")
    zero = np.zeros((len(importance), 1))
    have = np.hstack([zero, np.cumsum(np.take_along_axis(importance, order, axis=1), axis=1)])
    paid = np.hstack([zero, np.cumsum(prices[order], axis=1)])
    least = np.array([np.interp(n, h, p) for n, h, p in zip(need, have, paid, strict=True)])
    least[need > have[:, -1:]] = np.inf
    return least
