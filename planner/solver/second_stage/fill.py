"""Sub-models that fill a device's time and memory with the most value: a knapsack with fixed charges, relaxed.

For a price of time p, a unit of value v_u and time t_u is worth v_u - p t_u, and a unit set pays if its worthy units
together are worth more than its charge. The lowest price whose units fit is found by bisection; what room is left is
filled by value for time. Where memory binds instead, time is mixed with memory in the price.

Legend: U units, P unit sets.

Source:
    Lagrangian relaxation: Fisher, doi:10.1287/mnsc.27.1.1.
"""

from collections.abc import Iterator

import numpy as np

from planner.arrays import Bools, Floats
from planner.solver.problem.cost_table import CostTable
from planner.solver.problem.instance import Units
from planner.solver.problem.option import Option

# Shares of memory in the price.
_MIXES = (0.0, 0.5, 0.9, 1.0)
_BISECTION_STEPS = 30


def fill(option: Option, units: Units, values: Floats, compute_us: int) -> Bools | None:
    """Return kept units (U,) of much value that fit, or None where not even what is always kept does.

    Args:
        option: Device, embed dim and precision.
        units: Units of the model.
        values: Value of each unit, at least 0, (U,).
        compute_us: Largest compute time [us].
    """
    filling = _Filling(option, units, values, compute_us)
    if not filling.fits(filling.always):
        return None
    best: Bools | None = None
    for mix in _MIXES:
        kept = filling.completed(filling.relaxed(mix))
        if best is None or values @ kept > values @ best:
            best = kept
        if mix == 0 and filling.time_binds(kept):
            break
    return best


class _Filling:
    """One filling problem."""

    def __init__(self, option: Option, units: Units, values: Floats, compute_us: int) -> None:
        self.costs: CostTable = option.costs
        self.values, self.max_grains = values, option.free_grains
        self.max_ticks = compute_us * option.costs.ticks_per_us
        self.always = np.zeros(len(units), dtype=bool)
        self.always[list(units.always_kept)] = True

    def ticks(self, kept: Bools) -> int:
        """Return the time of kept units [ticks]."""
        costs = self.costs
        charged = kept @ costs.member > 0
        return costs.fixed_ticks + int(kept @ costs.unit_ticks) + int(charged @ costs.charges)

    def fits(self, kept: Bools) -> bool:
        """Return whether kept units are within time and memory."""
        return self.ticks(kept) <= self.max_ticks and int(self.costs.grains(kept[None])[0]) <= self.max_grains

    def time_binds(self, kept: Bools) -> bool:
        """Return whether memory has room for any unit that is left out."""
        left = self.costs.unit_grains[~kept]
        room = self.max_grains - int(self.costs.grains(kept[None])[0])
        return not len(left) or room > int(left.max())

    def relaxed(self, mix: float) -> Bools:
        """Return the units that are worthy at the lowest price at which they fit."""
        costs = self.costs
        free_ticks = max(1, self.max_ticks - costs.fixed_ticks)
        of_time, of_memory = (1 - mix) / free_ticks, mix / max(1, self.max_grains)
        prices = of_time * costs.unit_ticks + of_memory * costs.unit_grains  # (U,)
        charges = of_time * costs.charges  # (P,)
        low, high = 0.0, float(self.values.sum()) + 1.0
        kept: Bools = self.always
        for _ in range(_BISECTION_STEPS):
            price = (low + high) / 2
            worth = np.maximum(0.0, self.values - price * prices)
            pays = worth @ costs.member > price * charges
            tried: Bools = ((worth > 0) & (costs.member @ pays > 0)) | self.always
            if self.fits(tried):
                high, kept = price, tried
            else:
                low = price
        return kept

    def completed(self, kept: Bools) -> Bools:
        """Return kept units with all that still fit, the most valuable for their time first."""
        full: Bools = kept.copy()
        for u in self._by_density(~kept):
            full[u] = True
            if not self.fits(full):
                full[u] = False
        return full

    def _by_density(self, candidates: Bools) -> Iterator[int]:
        """Yield candidates of any value whose own time would fit."""
        room = self.max_ticks - self.costs.fixed_ticks
        chosen = np.flatnonzero(candidates & (self.values > 0) & (self.costs.unit_ticks <= room))
        yield from chosen[
            np.argsort(-self.values[chosen] / np.maximum(1, self.costs.unit_ticks[chosen]), kind="stable")
        ]
