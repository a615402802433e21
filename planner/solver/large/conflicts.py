"""Conflicts: class sets that no sub-model of an option can serve in time.

A class set is shown to need more than some time by the relaxation of its sub-model; so do the classes alone whose
floors have a price there. Of these, the ones are left out without which the Lagrangian bound still exceeds the time,
which leaves a small set A: no device of this option serves all of A within the time, whatever else it serves. At the
same prices, other classes are tried in the place of each of A: one linear program gives conflicts by the hundred.

A conflict states the compute time that A needs at least, so it holds within any time below that. It also holds for
options that are nowhere faster and have no larger budgets.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from planner.arrays import Bools, Floats, Ints
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import IMPORTANCE_SCALE, NEVER, Instance
from planner.solver.problem.option import Option
from planner.solver.submodels.lagrangian_bound import LagrangianBound, UnitPrices
from planner.solver.submodels.relaxation import Relaxation, RelaxedSubModel

# Factors of the other prices when one is dropped, and of the price of a class in the place of another.
_RAISED, _REPLACED = (1.0, 1.05, 1.12, 1.2, 1.35), (0.8, 1.0, 1.3)
# Conflicts that are kept at most, and the numbers of a table of them.
_MAX_CONFLICTS, _MAX_TABLE = 30_000, 30_000_000
# Rough time of a relaxation and of what follows from it [s], where work is counted.
_RELAXATION_S, _CONFLICT_S = 4e-3, 6e-3


class Conflicts:
    """Conflicts of one option, found when asked for."""

    def __init__(self, instance: Instance, option: Option, single_us: Ints) -> None:
        self.option, self.instance = option, instance
        # Latency [us] of each class alone, at least, (C,).
        self.single_us: Ints = np.minimum(NEVER, single_us.min(axis=1) + option.alone_us)
        self.single_us[sorted(instance.groups[option.group].forbidden)] = NEVER
        # The least over the numbers of classes that a sub-model may have, so that they hold beside any others.
        self.needs: Floats = option.need.min(axis=1) / IMPORTANCE_SCALE
        self.lagrangian = LagrangianBound(instance, option)
        self._relaxation: Relaxation | None = None
        self._relaxed: dict[tuple[int, ...], RelaxedSubModel | None] = {}
        self.classes: list[tuple[int, ...]] = []
        self._seen: set[tuple[int, ...]] = set()
        self._max = min(_MAX_CONFLICTS, _MAX_TABLE // instance.num_classes)
        self._member = np.zeros((256, instance.num_classes), dtype=np.float32)
        self._size, self._latency_us = np.zeros(256), np.zeros(256, dtype=np.int64)

    def relaxed(self, classes: Iterable[int], clock: Clock) -> RelaxedSubModel | None:
        """Return the relaxed sub-model of some classes; None if no budgets are enough."""
        key = tuple(sorted(classes))
        if key not in self._relaxed:
            self._relaxed[key] = self.solved(key, clock)
        return self._relaxed[key]

    def solved(self, classes: tuple[int, ...], clock: Clock) -> RelaxedSubModel | None:
        """Return the same as `relaxed`, without keeping it."""
        clock.spend(_RELAXATION_S)
        if self._relaxation is None:
            self._relaxation = Relaxation(self.instance, self.option, elastic=True)
        return self._relaxation.relaxed(classes, self.needs)

    def latency_us(self, classes: Iterable[int], clock: Clock) -> int:
        """Return a bound on the latency [us] of any device that serves these classes, `NEVER` if none can."""
        return self.bound_us(self.relaxed(classes, clock))

    def bound_us(self, relaxed: RelaxedSubModel | None) -> int:
        """Return a bound on the latency [us] of any device with the classes of a relaxed sub-model."""
        return NEVER if relaxed is None else self._rounded(relaxed.value * (1 - 1e-6) - 1e-6)

    def within(self, latency_us: int) -> Bools:
        """Return which conflicts hold within a time, (conflicts,)."""
        held: Bools = self._latency_us[: len(self.classes)] > latency_us
        return held

    def violated(self, classes: Sequence[int], latency_us: int) -> list[tuple[int, ...]]:
        """Return the conflicts within a time that are part of a class set."""
        count = len(self.classes)
        chosen = np.zeros(self._member.shape[1], dtype=np.float32)
        chosen[list(classes)] = 1
        held = (self._member[:count] @ chosen > self._size[:count] - 0.5) & self.within(latency_us)
        return [self.classes[i] for i in np.flatnonzero(held).tolist()]

    def find(self, classes: Sequence[int], latency_us: int, clock: Clock) -> tuple[int, ...] | None:
        """Return a conflict within a time among some classes, new or known; None if the relaxation finds none."""
        known = self.violated(classes, latency_us)
        if known:
            return known[0]
        relaxed = self.relaxed(classes, clock)
        if relaxed is not None and self.bound_us(relaxed) <= latency_us:
            return None
        if relaxed is None or not relaxed.prices:
            # Not one class alone is served in time.
            self._add(tuple(sorted(classes)), self.latency_us(classes, clock))
            return tuple(sorted(classes))
        clock.spend(_CONFLICT_S)
        unit_prices = self.lagrangian.unit_prices(relaxed)
        prices = self._reduced(relaxed.prices, unit_prices, latency_us)
        bound_us = float(self._bounds_us([prices], unit_prices)[0])
        if self._rounded(bound_us) <= latency_us:
            # Rounding ate what was above the time.
            prices, bound_us = relaxed.prices, relaxed.value * (1 - 1e-6) - 1e-6
        self._add(tuple(sorted(prices)), self._rounded(bound_us))
        self._replace(prices, unit_prices, latency_us)
        return tuple(sorted(prices))

    def take_over(self, other: "Conflicts", factor: float) -> None:
        """Add the conflicts of an option that is at least `factor` times as fast and has budgets as large."""
        compute_us = (other._latency_us[: len(other.classes)] - other.option.alone_us) * factor
        for classes, us in zip(list(other.classes), compute_us.tolist(), strict=True):
            self._add(classes, self._rounded(us * (1 - 1e-9) - 1e-6))

    def _rounded(self, compute_us: float) -> int:
        return int(min(NEVER, max(0, np.ceil(compute_us)) + self.option.alone_us))

    def _add(self, classes: tuple[int, ...], latency_us: int) -> None:
        at = len(self.classes)
        if classes in self._seen or at >= self._max:
            return
        if at == len(self._member):
            self._member = np.vstack([self._member, np.zeros_like(self._member)])
            self._size = np.concatenate([self._size, np.zeros_like(self._size)])
            self._latency_us = np.concatenate([self._latency_us, np.zeros_like(self._latency_us)])
        self._member[at, list(classes)] = 1
        self._size[at], self._latency_us[at] = len(classes), latency_us
        self._seen.add(classes)
        self.classes.append(classes)

    def _bounds_us(self, prices: Sequence[dict[int, float]], unit_prices: UnitPrices) -> Floats:
        shares = self.instance.units.shares
        rows = [(list(of), np.array(list(of.values()))) for of in prices]
        earned = np.array([values @ shares[classes] for classes, values in rows])
        due = np.array([float(values @ self.needs[classes]) for classes, values in rows])
        return self.lagrangian.compute_us(earned, due, unit_prices)

    def _reduced(self, prices: dict[int, float], unit_prices: UnitPrices, latency_us: int) -> dict[int, float]:
        """Return prices of fewer floors at which the bound still exceeds the time."""
        limit_us = latency_us - self.option.alone_us
        while len(prices) > 1:
            tried = [
                {other: price * factor for other, price in prices.items() if other != c}
                for c in prices
                for factor in _RAISED
            ]
            bounds_us = self._bounds_us(tried, unit_prices)
            best = int(np.argmax(bounds_us))
            if bounds_us[best] <= limit_us:
                break
            prices = tried[best]
        return prices

    def _replace(self, prices: dict[int, float], unit_prices: UnitPrices, latency_us: int) -> None:
        """Add the conflicts in which another class stands in the place of one of these."""
        needs, shares, limit_us = self.needs, self.instance.units.shares, latency_us - self.option.alone_us
        others = np.array([c for c in np.flatnonzero(self.single_us <= latency_us).tolist() if c not in prices])
        if not len(others):
            return
        classes, values = list(prices), np.array(list(prices.values()))
        earned, due = values @ shares[classes], float(values @ needs[classes])
        for c, price in prices.items():
            best_us = np.full(len(others), -np.inf)
            for factor in _REPLACED:
                paid = price * factor * needs[c] / np.maximum(needs[others], 1e-9)
                of_others = (earned - price * shares[c]) + paid[:, None] * shares[others]
                due_now = due - price * needs[c] + paid * needs[others]
                best_us = np.maximum(best_us, self.lagrangian.compute_us(of_others, due_now, unit_prices))
            rest = [other for other in classes if other != c]
            for i in np.flatnonzero(best_us > limit_us).tolist():
                self._add(tuple(sorted([*rest, int(others[i])])), self._rounded(float(best_us[i])))


def speed_factor(of: Option, than: Option) -> float:
    """Return a number of times that `of` takes as long as `than`, at least, for any units; 0 if it may hold more."""
    costs = of.costs, than.costs
    if costs[0].unit_grains.shape != costs[1].unit_grains.shape or costs[0].peaks.shape != costs[1].peaks.shape:
        return 0.0
    free = [at.free_grains / at.costs.grains_per_byte for at in (of, than)]
    weights = [at.unit_grains / at.grains_per_byte for at in costs]
    peaks = [at.peaks / at.grains_per_byte for at in costs]
    if (free[0] > free[1]).any() or (weights[0] < weights[1]).any() or (peaks[0] < peaks[1]).any():
        return 0.0
    if (of.need.min(axis=1) < than.need.min(axis=1)).any():
        return 0.0
    terms = [np.concatenate([at.unit_ticks, at.charges, [at.fixed_ticks]]) / at.ticks_per_us for at in costs]
    counts = terms[1] > 0
    return float((terms[0][counts] / terms[1][counts]).min(initial=np.inf)) if counts.any() else 0.0
