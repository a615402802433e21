"""Sub-models that fill a device's time and budgets with the most value: a knapsack with fixed charges, relaxed.

For a price of time p, a unit of value v_u and time t_u is worth v_u - p t_u, and a unit set pays if its worthy units
together are worth more than its charge. The lowest price whose units fit is found by bisection; what room is left is
filled by value for time. Where a budget binds, too, time is mixed with budgets in the price, by another bisection. The
best of these and of plain value for time is improved by exchanges of one kept unit for others, among those nearest to
the price.

Legend: U units, P unit sets, M budgets.

Source:
    Lagrangian relaxation: Fisher, doi:10.1287/mnsc.27.1.1.
    Exchanges near the price: the core of Balas and Zemel, doi:10.1287/opre.28.5.1130.
"""

import math
import operator
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from planner.arrays import Bools, Floats
from planner.solver.problem.cost_table import MEMORY
from planner.solver.problem.instance import Units
from planner.solver.problem.option import Option

# Bisections of the price, and of the share of budgets in it.
_PRICE_STEPS, _MIX_STEPS = 30, 6
# Kept units nearest to the price that may be exchanged, those left out that may come in, and exchanges at most.
_CORE, _MAX_EXCHANGES = 12, 8


def fill(option: Option, units: Units, values: Floats, compute_us: int) -> Bools | None:
    """Return kept units (U,) of much value that fit, or None where not even what is always kept does.

    Args:
        option: Device, embed dim and precision.
        units: Units of the model.
        values: Value of each unit, at least 0, (U,).
        compute_us: Largest compute time [us].
    """
    filling = _Filling(option, units, values, compute_us)
    if not filling.in_budgets(filling.always) or not filling.in_time(filling.always):
        return None
    best = filling.completed(filling.always)
    low, high, mix = 0.0, 1.0, 0.0
    for _ in range(_MIX_STEPS):
        relaxed, budget_binds = filling.relaxed(mix)
        kept = filling.completed(relaxed)
        if values @ kept > values @ best:
            best = kept
        if mix == 0 and not budget_binds:
            break
        low, high = (mix, high) if budget_binds else (low, mix)
        mix = (low + high) / 2
    for _ in range(_MAX_EXCHANGES):
        better = filling.exchanged(best)
        if better is None:
            break
        best = better
    return best


def neighbours(option: Option, units: Units, values: Floats, compute_us: int, kept: Bools) -> list[Bools]:
    """Return the sets that fit with one of the kept units exchanged for others, and that with others added, (U,) each.

    Args:
        option: Device, embed dim and precision.
        units: Units of the model.
        values: Value of each unit, at least 0, by which others come in, (U,).
        compute_us: Largest compute time [us].
        kept: Kept units that fit, (U,).
    """
    filling = _Filling(option, units, values, compute_us)
    return [filling.completed(kept), *filling.exchanges(kept)]


class _Filling:
    """One filling problem."""

    def __init__(self, option: Option, units: Units, values: Floats, compute_us: int) -> None:
        self.costs = costs = option.costs
        self.values, self.max_grains = values, option.free_grains
        self.max_ticks = compute_us * costs.ticks_per_us
        self.always = np.zeros(len(units), dtype=bool)
        self.always[list(units.always_kept)] = True
        self.density = values / np.maximum(1, costs.unit_ticks)
        # Of each unit, as lists: they are read one by one.
        self.worths: list[float] = values.tolist()
        self.unit_ticks: list[int] = costs.unit_ticks.tolist()
        self.unit_memory: list[int] = costs.unit_grains[MEMORY].tolist()
        self.unit_others: list[list[int]] = costs.unit_grains[MEMORY + 1 :].T.tolist()

    def in_budgets(self, kept: Bools) -> bool:
        """Return whether kept units are within all budgets."""
        return bool((self.costs.grains(kept[None])[0] <= self.max_grains).all())

    def in_time(self, kept: Bools) -> bool:
        """Return whether kept units are within the time."""
        costs = self.costs
        ticks = costs.fixed_ticks + int(kept @ costs.unit_ticks) + int((kept @ costs.member > 0) @ costs.charges)
        return ticks <= self.max_ticks

    def relaxed(self, mix: float) -> tuple[Bools, bool]:
        """Return the units that are worthy at the lowest price at which they fit, and whether it is for a budget.

        Args:
            mix: Share of budgets in the price.
        """
        costs = self.costs
        free_ticks = max(1, self.max_ticks - costs.fixed_ticks)
        of_time, of_budgets = (1 - mix) / free_ticks, mix / np.maximum(1, self.max_grains)
        prices = of_time * costs.unit_ticks + of_budgets @ costs.unit_grains  # (U,)
        charges = of_time * costs.charges  # (P,)
        low, high = 0.0, float(self.values.sum()) + 1.0
        kept, budget_binds = self.always, False
        for _ in range(_PRICE_STEPS):
            price = (low + high) / 2
            worth = np.maximum(0.0, self.values - price * prices)
            pays = worth @ costs.member > price * charges
            tried: Bools = ((worth > 0) & (costs.member @ pays > 0)) | self.always
            in_budgets = self.in_budgets(tried)
            if in_budgets and self.in_time(tried):
                high, kept = price, tried
            else:
                low, budget_binds = price, not in_budgets
        return kept, budget_binds

    def completed(self, kept: Bools) -> Bools:
        """Return kept units with all that still fit, the most valuable for their time first."""
        left = np.flatnonzero(~kept & (self.values > 0))
        order = left[np.argsort(-self.density[left], kind="stable")].tolist()
        full: Bools = kept.copy()
        full[_Room(self, kept).taken(order)] = True
        return full

    def exchanged(self, kept: Bools) -> Bools | None:
        """Return the best set without one of the kept units and with others instead; None if none is worth more."""
        out, left = self._core(kept)
        best: Bools | None = None
        highest = float(self.values @ kept) * (1 + 1e-9)
        for u in out:
            rest = kept.copy()
            rest[u] = False
            worth_of_rest, room = float(self.values @ rest), _Room(self, rest)
            # By density, and with each of the valuable ones first.
            for first in [None, *left]:
                if worth_of_rest + self._most_worth(left, first, room.ticks) <= highest:
                    continue
                order = left if first is None else [first, *left]
                added = room.taken(order)
                worth = worth_of_rest + float(self.values[added].sum())
                if worth > highest:
                    best, highest = rest.copy(), worth
                    best[added] = True
        return best

    def exchanges(self, kept: Bools) -> Iterator[Bools]:
        """Yield the sets without one of the kept units and with others instead, whatever they are worth."""
        out, left = self._core(kept)
        for u in out:
            rest = kept.copy()
            rest[u] = False
            room = _Room(self, rest)
            for first in left:
                exchanged = rest.copy()
                exchanged[room.taken([first, *left])] = True
                yield exchanged

    def _core(self, kept: Bools) -> tuple[list[int], list[int]]:
        """Return the kept units of least value for their time, and those left out of most."""
        worst_first = np.argsort(self.density, kind="stable")
        out = [u for u in worst_first.tolist() if kept[u] and not self.always[u]][:_CORE]
        left = [u for u in worst_first[::-1].tolist() if not kept[u] and self.values[u] > 0][:_CORE]
        return out, left

    def _most_worth(self, order: Sequence[int], first: int | None, free_ticks: int) -> float:
        """Return at least what units add within a time, the densest first: the last one in part, and no charges."""
        worth: float = 0.0
        if first is not None:
            worth, free_ticks = self.worths[first], free_ticks - self.unit_ticks[first]
        if free_ticks < 0:
            return -math.inf
        for u in order:
            if u == first:
                continue
            if self.unit_ticks[u] > free_ticks:
                # Above by rounding rather than below.
                return (worth + self.worths[u] * free_ticks / self.unit_ticks[u]) * (1 + 1e-12)
            worth, free_ticks = worth + self.worths[u], free_ticks - self.unit_ticks[u]
        return worth * (1 + 1e-12)


class _Room:
    """Time and budgets that kept units leave."""

    def __init__(self, filling: _Filling, kept: Bools) -> None:
        self._filling, costs = filling, filling.costs
        counts = kept @ costs.member
        self._charges: list[int] = np.where(counts > 0, 0, costs.charges).tolist()
        self.ticks = filling.max_ticks - costs.fixed_ticks - int(kept @ costs.unit_ticks)
        self.ticks -= int((counts > 0) @ costs.charges)
        free: list[int] = (filling.max_grains - costs.unit_grains @ kept).tolist()
        self._memory, self._others = free[MEMORY], free[MEMORY + 1 :]
        self._peaks: list[int] = np.rint(kept @ costs.peaks).astype(np.int64).tolist()

    def taken(self, order: Iterable[int]) -> list[int]:
        """Return the units, of those in an order, that still fit after those before them."""
        filling = self._filling
        unit_ticks, unit_memory, unit_others = filling.unit_ticks, filling.unit_memory, filling.unit_others
        sets_of = filling.costs.sets_of
        ticks, memory, others = self.ticks, self._memory, self._others
        charges, peaks = self._charges.copy(), self._peaks.copy()
        highest, taken = max(peaks, default=0), list[int]()
        for u in order:
            more_ticks, peak = unit_ticks[u], highest
            for p, a in sets_of[u]:
                more_ticks += charges[p]
                peak = max(peak, peaks[p] + a)
            if more_ticks > ticks or unit_memory[u] + peak > memory or u in taken:
                continue
            if others and any(map(operator.gt, unit_others[u], others)):
                continue
            taken.append(u)
            ticks, memory, highest = ticks - more_ticks, memory - unit_memory[u], peak
            others = list(map(operator.sub, others, unit_others[u]))
            for p, a in sets_of[u]:
                charges[p] = 0
                peaks[p] += a
        return taken
