"""Bounds on a device with some classes, and with one class more, by the relaxation of its sub-model.

The linear program for the classes gives their bound. At its prices the Lagrangian function bounds every set with one
class more: the class is given a price of its own, and the best of a few prices counts. So one linear program says of
all other classes which of them the device cannot take in time, and which ones its sub-model serves already. For one
class that matters, the prices of the others are lowered as well, which gives most of what its own linear program would.

Legend: C classes, U units.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.arrays import Floats, Ints
from planner.solver.large.conflicts import Conflicts
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER
from planner.solver.submodels.lagrangian_bound import UnitPrices
from planner.solver.submodels.relaxation import RelaxedSubModel

# Prices of a class more that are tried, times its need, as shares of the sub-model's time.
_PRICES = (0.01, 0.03, 0.07, 0.15, 0.3, 0.5)
# Factors of the other prices that are tried for one class.
_FACTORS = (1.0, 0.9, 0.75)
# Numbers that are kept, at most.
_MAX_NUMBERS = 20_000_000
# Rough time of the bounds with one class more [s], where work is counted.
_BOUNDS_S = 2e-3


class _Prices:
    """Lagrangian function of one option at the prices of a relaxed sub-model."""

    def __init__(self, conflicts: Conflicts, relaxed: RelaxedSubModel) -> None:
        of, prices = list(relaxed.prices), np.array(list(relaxed.prices.values()))
        self._conflicts, self._us = conflicts, relaxed.value
        self._earned: Floats = prices @ conflicts.instance.units.shares[of]
        self._due = float(prices @ conflicts.needs[of])
        self._unit_prices: UnitPrices = conflicts.lagrangian.unit_prices(relaxed)

    def with_one_more_us(self, more: Ints) -> Ints:
        """Return bounds on the latency [us] with one class more, for each of these."""
        per_need, best_us = self._per_need(more), np.full(len(more), -np.inf)
        for share in _PRICES:
            paid = share * self._us
            np.maximum(best_us, self._bounds_us(self._earned + paid * per_need, self._due + paid), out=best_us)
        latency_us: Ints = (np.maximum(0, np.ceil(best_us)) + self._conflicts.option.alone_us).astype(np.int64)
        return latency_us

    def with_class_us(self, c: int) -> int:
        """Return a bound on the latency [us] with one class more, the prices of the others being lowered, too."""
        factor, share = (grid.ravel() for grid in np.meshgrid(_FACTORS, _PRICES))
        paid = share * self._us
        earned = factor[:, None] * self._earned + paid[:, None] * self._per_need(np.array([c]))
        best_us = float(self._bounds_us(earned, factor * self._due + paid).max())
        return int(max(0, np.ceil(best_us))) + self._conflicts.option.alone_us

    def _per_need(self, classes: Ints) -> Floats:
        conflicts = self._conflicts
        per_need: Floats = conflicts.instance.units.shares[classes] / np.maximum(conflicts.needs[classes, None], 1e-9)
        return per_need

    def _bounds_us(self, earned: Floats, due: Floats | float) -> Floats:
        return self._conflicts.lagrangian.compute_us(earned, np.asarray(due), self._unit_prices)


@dataclass(frozen=True, eq=False)
class DeviceBounds:
    """Bounds on the latency of a device with some classes."""

    option: int  # by its index: the one of the least bound
    latency_us: int  # with these classes, `NEVER` if no device of the group can serve them
    wider_us: Ints  # with one class more, `NEVER` for the classes themselves, (C,); sharpened when more is known
    spare: Floats  # retention of each class in the relaxed sub-model less its floor, as a share of that, (C,)
    prices: tuple[_Prices, ...]  # of each option that may serve them; none if nothing is known of one


class DeviceBoundsCache:
    """Bounds of the devices of each group, computed when first requested."""

    def __init__(self, conflicts: Sequence[Conflicts]) -> None:
        self._of_group: dict[int, list[int]] = {}
        for o, of in enumerate(conflicts):
            self._of_group.setdefault(of.option.group, []).append(o)
        self._conflicts, self._instance = conflicts, conflicts[0].instance
        self._known: dict[tuple[int, tuple[int, ...]], DeviceBounds] = {}
        self._max_known = max(1, _MAX_NUMBERS // (2 * self._instance.num_classes + 2 * len(self._instance.units)))

    def single_us(self, group: int) -> Ints:
        """Return a bound on the latency [us] of a device of a group with each class alone, (C,)."""
        none = np.full(self._instance.num_classes, NEVER)
        least: Ints = np.min([none, *(self._conflicts[o].single_us for o in self._of_group.get(group, ()))], axis=0)
        return least

    def bounds(self, group: int, classes: tuple[int, ...], clock: Clock) -> DeviceBounds:
        """Return the bounds of a device of a group with some classes."""
        key = group, classes
        if key not in self._known:
            if len(self._known) >= self._max_known:
                self._known.clear()
            self._known[key] = self._computed(group, classes, clock)
        return self._known[key]

    def is_within(
        self, latency_us: int, group: int, classes: tuple[int, ...], c: int, wider: tuple[int, ...], clock: Clock
    ) -> bool:
        """Return whether a device of a group with some classes may take one more, or some, within a time.

        Args:
            latency_us: Time [us].
            group: Group.
            classes: Classes of the device now.
            c: A class more.
            wider: All classes then.
            clock: Time for it.
        """
        before = self.bounds(group, classes, clock) if classes else None
        if before is not None and before.prices and (group, wider) not in self._known:
            # For much less than a linear program, most often it is known by this that there is no room.
            before.wider_us[c] = max(int(before.wider_us[c]), min(of.with_class_us(c) for of in before.prices))
            if before.wider_us[c] > latency_us:
                return False
        exact_us = self.bounds(group, wider, clock).latency_us
        if before is not None:
            before.wider_us[c] = max(int(before.wider_us[c]), exact_us)
        return exact_us <= latency_us

    def _computed(self, group: int, classes: tuple[int, ...], clock: Clock) -> DeviceBounds:
        of_options = [self._of_option(o, classes, clock) for o in self._of_group[group]]
        best = min(of_options, key=lambda bounds: bounds.latency_us)
        wider_us = np.min([bounds.wider_us for bounds in of_options], axis=0)
        wider_us[list(classes)] = NEVER
        prices = [bounds.prices for bounds in of_options if bounds.latency_us < NEVER]
        known = tuple(of for some in prices for of in some) if all(prices) else ()
        return DeviceBounds(best.option, best.latency_us, wider_us, best.spare, known)

    def _of_option(self, o: int, classes: tuple[int, ...], clock: Clock) -> DeviceBounds:
        conflicts = self._conflicts[o]
        relaxed = conflicts.solved(classes, clock)
        latency_us = conflicts.bound_us(relaxed)
        if relaxed is None or latency_us >= NEVER or not np.isfinite(relaxed.value):
            # Out of reach, or nothing is known.
            same_us = np.full(self._instance.num_classes, latency_us)
            return DeviceBounds(o, latency_us, same_us, np.full(len(same_us), -1.0), ())
        clock.spend(_BOUNDS_S)
        spare = self._instance.units.shares @ relaxed.kept / np.maximum(conflicts.needs, 1e-9) - 1
        prices, wider_us = _Prices(conflicts, relaxed), np.maximum(conflicts.single_us, latency_us)
        # What is served already takes no longer.
        lacking = np.flatnonzero(spare < 0)
        wider_us[lacking] = np.maximum(wider_us[lacking], prices.with_one_more_us(lacking))
        return DeviceBounds(o, latency_us, wider_us, spare, (prices,))
