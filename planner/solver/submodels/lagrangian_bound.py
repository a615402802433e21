"""Bounds on sub-models at given prices: the Lagrangian function of the sub-model problem, for many prices at once.

Give each floor (1) of `knapsack` a price and each budget (2) one, and drop them. What remains is solved by inspection,
and its value is below that of every sub-model, whatever the prices. With the dual prices of `relaxation` it is the
relaxation's own value; with slightly other ones it still bounds other class subsets, for the cost of a product of
matrices.

    L = fixed + sum_c price_c need_c - sum_m per_grain_m free_m - sum_P max(0, sum_{u in P} max(0, v_u) - charge_P)
    v_u = sum_c price_c I_cu - t_u - sum_m per_grain_m w_mu - sum_P peak_price_P a_Pu

where the prices of activations sum to at most that of memory, and the anchor head is kept whatever its v.

Source: Fisher, doi:10.1287/mnsc.27.1.1.
"""

from dataclasses import dataclass

import numpy as np

from planner.arrays import Floats
from planner.solver.problem.cost_table import MEMORY
from planner.solver.problem.instance import Instance
from planner.solver.problem.option import Option
from planner.solver.submodels.relaxation import RelaxedSubModel


@dataclass(frozen=True, eq=False)
class UnitPrices:
    """Price [us] of each unit (U,), of its time and what it takes of budgets, and of what these leave."""

    per_unit: Floats
    of_free: float


class LagrangianBound:
    """The Lagrangian function for one option, in microseconds of compute time."""

    def __init__(self, instance: Instance, option: Option) -> None:
        self._costs, self._free = option.costs, option.free_grains.astype(np.float64)
        per_us = option.costs.ticks_per_us
        self._unit_us, self._charges = option.costs.unit_ticks / per_us, option.costs.charges / per_us
        self._fixed_us = option.costs.fixed_ticks / per_us
        self._always_kept = list(instance.units.always_kept)

    def unit_prices(self, relaxed: RelaxedSubModel) -> UnitPrices:
        """Return the prices of units in a relaxed sub-model."""
        costs, peak_prices = self._costs, relaxed.peak_prices
        # They sum to no more than the price of memory up to the solver's tolerance, and must not exceed it at all.
        per_grain = relaxed.per_grain.copy()
        per_grain[MEMORY] = max(per_grain[MEMORY], peak_prices.sum())
        per_unit: Floats = self._unit_us + per_grain @ costs.unit_grains + costs.peaks @ peak_prices
        return UnitPrices(per_unit, float(per_grain @ self._free))

    def compute_us(self, earned: Floats, due: Floats, prices: UnitPrices) -> Floats:
        """Return bounds on the compute time [us] of any sub-model, loosened by more than rounding, (B,).

        Args:
            earned: What units earn at the prices of the floors, sum_c price_c I_cu, (B, U).
            due: What the floors are due, sum_c price_c need_c, (B,).
            prices: Prices of units.
        """
        worth = earned - prices.per_unit
        of_always_kept = worth[:, self._always_kept].sum(axis=1)
        worth[:, self._always_kept] = 0.0
        np.maximum(worth, 0.0, out=worth)
        if self._charges.any():
            gained = np.maximum(0.0, worth @ self._costs.member - self._charges).sum(axis=1)
        else:
            gained = worth.sum(axis=1)
        bounds: Floats = self._fixed_us + due - prices.of_free - gained - of_always_kept
        return np.asarray(bounds * (1 - 1e-6) - 1e-6)
