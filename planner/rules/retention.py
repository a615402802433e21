"""Retention of classes by the devices of a fleet: by each of them, and by all of them together.

Legend: C classes, D devices, U units (heads and channel groups).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.arrays import Bools, Floats
from planner.schema import Profile, SubModel


@dataclass(frozen=True, eq=False)
class FleetRetention:
    """Retention of every class, served or not, 0..1."""

    by_device: Floats  # (..., D, C)
    # (..., C), of the units that any device keeps, each where it is kept best; no less than on any one device.
    union: Floats

    @staticmethod
    def of(shares: Floats, kept: Bools | Floats, of_width: Floats) -> "FleetRetention":
        """Return the retention by kept units.

        Args:
            shares: Share of each unit in the importance of each class, (C, U).
            kept: 1 for each unit that a device keeps, else 0, (..., D, U).
            of_width: Retention of each class by a device that keeps all units, (..., D, C).
        """
        # Shares of a class sum to 1 but for rounding.
        by_device = np.minimum(1.0, kept @ shares.T) * of_width
        return FleetRetention(by_device, union_of(shares, weighted(kept, of_width), by_device))

    @property
    def highest(self) -> Floats:
        """Retention of each class on the device that retains most of it, (..., C)."""
        return np.asarray(self.by_device.max(axis=-2, initial=0.0))


def weighted(kept: Bools | Floats, of_width: Floats) -> Floats:
    """Return what a device's embed dim and precision retain of each kept unit, in the mean of classes, (..., D, U)."""
    return np.asarray(kept * of_width.mean(axis=-1, keepdims=True))


def union_of(shares: Floats, weights: Floats, by_device: Floats) -> Floats:
    """Return the retention by all devices together, (..., C).

    Args:
        shares: Share of each unit in the importance of each class, (C, U).
        weights: What each device retains of each unit, (..., D, U).
        by_device: Retention of each class on each device, (..., D, C).
    """
    best = weights.max(axis=-2, initial=0.0)
    return np.asarray(np.maximum(np.minimum(1.0, best @ shares.T), by_device.max(axis=-2, initial=0.0)))


def fleet_retention(sub_models: Sequence[SubModel], profile: Profile) -> FleetRetention:
    """Return the retention by the devices of a plan, (D, C), and by all together, (C,)."""
    shares = unit_shares(profile)
    kept = np.zeros((len(sub_models), shares.shape[1]))
    of_width = np.ones((len(sub_models), len(profile.classes)))
    starts = np.cumsum([0, *([profile.num_heads] * profile.depth), *(len(b) for b in profile.channel_groups)])
    for d, sub_model in enumerate(sub_models):
        half_blocks = (*sub_model.kept_heads, *sub_model.kept_channel_groups)
        kept[d, [starts[i] + u for i, units in enumerate(half_blocks) for u in units]] = 1
        width = profile.width(sub_model.embed_dim)
        assert width is not None
        of_width[d] = width.embed_retention
        if sub_model.precision in profile.precision_retention:
            of_width[d] *= profile.precision_retention[sub_model.precision]
    return FleetRetention.of(shares, kept, of_width)


def unit_shares(profile: Profile) -> Floats:
    """Return the share of each unit in the importance of each class, (C, U): all heads, then all channel groups."""
    importance = unit_importance(profile)
    return np.asarray(importance / importance.sum(axis=1, keepdims=True))


def unit_importance(profile: Profile) -> Floats:
    """Return the importance of each unit for each class, (C, U): all heads, then all channel groups."""
    importance = profile.importance
    pairs = zip(importance.heads, importance.channel_groups, strict=True)
    return np.array([[share for units in (*heads, *groups) for share in units] for heads, groups in pairs])
