"""Bounds for goals of accuracy: each class at the most that any device can retain of it within the time.

A device that keeps units for one class alone retains at least as much of it as for several, and the relaxed knapsack of
that class more than any sub-model. All together retain no more than the sum of what each does, and than the widest
embed dim. With such retentions of every class at once, the accuracy model predicts at least the accuracy of any plan,
whatever its floors, since no unit and no device makes a class worse.

Legend: C classes, D devices, U units.

Source:
    Relaxed knapsack by value for cost: Dantzig, doi:10.1287/opre.5.2.266.
"""

import numpy as np

from planner.arrays import Floats
from planner.rules.accuracy import mean_loss, stays_within
from planner.rules.floors import accuracy_model_of
from planner.rules.retention import FleetRetention
from planner.solver.problem.instance import IMPORTANCE_SCALE, Instance
from planner.solver.problem.option import Option

_BISECTION_STEPS = 40


class AccuracyBound:
    """Highest retentions of an instance's devices within a latency."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.model = accuracy_model_of(instance.profile)
        self._curves = [_Curve(instance, option) for option in instance.options]
        least_dims = min((option.embed_dim for option in instance.options), default=0)
        self._fusion_us = instance.fusion_us(least_dims)

    def retained(self, latency_us: int) -> FleetRetention:
        """Return at least what any plan within a latency retains of each class, (D, C) and (C,)."""
        num_groups, num_classes = len(self.instance.groups), self.instance.num_classes
        rows, weights = np.zeros((num_groups, num_classes)), np.zeros((num_groups, num_classes))
        widest = 0.0
        for option, curve in zip(self.instance.options, self._curves, strict=True):
            of_units = curve.highest(latency_us - self._fusion_us - option.alone_us)
            if of_units is None:
                continue
            of_width, g = np.array(option.width_cost.max_retention), option.group
            rows[g] = np.maximum(rows[g], of_units * of_width)
            mean = float(of_width.mean())
            weights[g] = np.maximum(weights[g], of_units * mean)
            widest = max(widest, mean)
        counts = [len(group.names) for group in self.instance.groups]
        rows, together = np.repeat(rows, counts, axis=0), np.array(counts, dtype=float) @ weights
        # Above by rounding rather than below.
        union = np.maximum(np.minimum(widest, together), rows.max(axis=0, initial=0.0)) * (1 + 1e-9)
        return FleetRetention(np.minimum(1.0, rows * (1 + 1e-9)), np.minimum(1.0, union))

    def highest_accuracy(self, latency_us: int) -> float:
        """Return at least the predicted accuracy of any plan within a latency."""
        return 1 - self.model.whole_error - mean_loss(self.model, self.retained(latency_us))

    def least_latency_us(self, max_drop: float, confidence: float | None) -> int | None:
        """Return at most the latency of any plan that is predicted to keep a drop; None if no plan keeps it."""
        low, high = 0, max((curve.slowest_us + o.alone_us for o, curve in self._pairs()), default=0) + self._fusion_us

        def keeps(latency_us: int) -> bool:
            return stays_within(self.instance.profile, self.retained(latency_us), max_drop, confidence)

        if not self.instance.options or not keeps(high):
            return None
        for _ in range(_BISECTION_STEPS):
            if low >= high:
                break
            middle = (low + high) // 2
            low, high = (low, middle) if keeps(middle) else (middle + 1, high)
        return high

    def _pairs(self) -> "zip[tuple[Option, _Curve]]":
        return zip(self.instance.options, self._curves, strict=True)


class _Curve:
    """Highest retention of each class alone on one option, by compute time."""

    def __init__(self, instance: Instance, option: Option) -> None:
        costs, shares = option.costs, instance.units.shares  # (C, U)
        # Units that are kept pay at least their shares of the charges.
        ticks = costs.unit_ticks + costs.charge_shares
        order = np.argsort(-shares / np.maximum(ticks, 1e-9), axis=1, kind="stable")
        self._ticks = np.cumsum(ticks[order], axis=1)  # (C, U)
        of_all = shares.sum(axis=1, keepdims=True)
        self._shares = np.cumsum(np.take_along_axis(shares / of_all, order, axis=1), axis=1)
        self._costs, self._holds = costs, bool((option.free_grains >= 0).all())
        self.slowest_us = -(-costs.max_ticks // costs.ticks_per_us)

    def highest(self, compute_us: int) -> Floats | None:
        """Return the highest share of each class's units within a compute time, (C,); None where nothing fits."""
        room = compute_us * self._costs.ticks_per_us - self._costs.fixed_ticks
        if room < 0 or not self._holds:
            return None
        highest = [np.interp(room, [0, *t], [0, *s]) for t, s in zip(self._ticks, self._shares, strict=True)]
        # The importance of each unit is rounded.
        return np.minimum(1.0, np.array(highest) + len(self._shares.T) / IMPORTANCE_SCALE)
