"""Retentions of placed sub-models, and the accuracy model that a search goes by.

Legend: C classes, D devices, U units.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.arrays import Bools, Floats
from planner.rules.retention import FleetRetention, union_of, weighted
from planner.schema import AccuracyModel, Profile
from planner.solver.problem.instance import Instance
from planner.solver.problem.option import Option, PlacedSubModel


@dataclass(frozen=True, eq=False)
class FleetUnits:
    """Units that devices keep, with what the devices retain: cheap to change by one device."""

    shares: Floats  # (C, U), share of each unit in the importance of each class
    rows: Floats  # (D, C), retention of each class on each device
    weights: Floats  # (D, U), what the device's embed dim and precision retain of each unit; 0 where it is not kept

    @staticmethod
    def of(instance: Instance, placed: Sequence[PlacedSubModel]) -> "FleetUnits":
        """Return the units of placed sub-models."""
        shares = instance.units.shares / instance.units.shares.sum(axis=1, keepdims=True)
        none = np.zeros((0, len(instance.units)))
        found = FleetUnits(shares, none @ shares.T, none)
        for d, p in enumerate(placed):
            kept = np.zeros(len(instance.units), dtype=bool)
            kept[list(p.kept)] = True
            found = found.with_device(d, p.option, kept)
        return found

    def with_device(self, position: int, option: Option, kept: Bools) -> "FleetUnits":
        """Return these with one device more, at a position, that keeps units (U,)."""
        of_width = np.array(option.width_cost.max_retention)
        row = np.minimum(1.0, self.shares @ kept) * of_width
        rows = np.insert(self.rows, position, row, axis=0)
        return FleetUnits(self.shares, rows, np.insert(self.weights, position, weighted(kept, of_width), axis=0))

    def without(self, position: int) -> "FleetUnits":
        """Return these without one device."""
        rows, weights = (np.delete(of, position, axis=0) for of in (self.rows, self.weights))
        return FleetUnits(self.shares, rows, weights)

    @property
    def retention(self) -> FleetRetention:
        """Retention by each device, and by all together."""
        return FleetRetention(self.rows, union_of(self.shares, self.weights, self.rows))

    @property
    def without_each(self) -> FleetRetention:
        """Retention without the first device, without the second, and so on: by device (D, D - 1, C), union (D, C)."""
        num_devices = len(self.rows)
        others = [np.delete(np.arange(num_devices), d) for d in range(num_devices)]
        rows = self.rows[np.array(others).reshape(num_devices, max(0, num_devices - 1))]
        # Without the device that retains most of a unit, it counts as on the next best.
        order = np.argsort(self.weights, axis=0)
        best = np.take_along_axis(self.weights, order[-1:], axis=0)
        second = np.take_along_axis(self.weights, order[-2:-1], axis=0)
        left = np.where(np.arange(num_devices)[:, None] == order[-1], second, best)  # (D, U)
        return FleetRetention(rows, union_of(self.shares, left[:, None], rows))


def search_model(profile: Profile) -> AccuracyModel:
    """Return the profile's accuracy model, or a typical one by which plans are compared where it has none."""
    if profile.accuracy_model is not None:
        return profile.accuracy_model
    num_classes = len(profile.classes)
    return AccuracyModel(
        log_scale=-2.5,
        steepness=1.0,
        norm_order=1.5,
        union_weight=0.5,
        retention_exponent=0.5,
        class_offset=(0.0,) * num_classes,
        class_share=(1 / num_classes,) * num_classes,
        whole_error=0.0,
        epochs=0.0,
        scores=(0.0,),
        min_retention=0.0,
        max_devices=1,
    )
