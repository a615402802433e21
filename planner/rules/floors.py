"""Retention floors: the share of a class's importance that a sub-model must keep.

The floor of class c in a sub-model of n classes is by_count[n] * class_need[c], at most 1; or one number for all
classes if the goal has `min_retention`.
"""

from dataclasses import dataclass

from planner.errors import InputError, setting
from planner.schema import Goal, Profile

# Importance is known to parts per million at best: smaller differences are rounding.
RETENTION_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Floors:
    """Floors of all classes, for each number of classes on a device."""

    by_count: tuple[float, ...]
    class_need: tuple[float, ...]

    def of(self, class_index: int, num_classes: int) -> float:
        """Return the floor of a class on a device that serves this many classes."""
        return min(1.0, self.by_count[num_classes - 1] * self.class_need[class_index])


def floors_of(profile: Profile, goal: Goal) -> Floors:
    """Return the floors of a goal, as the profile was calibrated.

    For an accuracy drop between two calibrated ones, the stricter floors hold.

    Raises:
        InputError: If the profile was not calibrated for a drop this small.
    """
    num_classes = len(profile.classes)
    if goal.min_retention is not None:
        return Floors((goal.min_retention,) * num_classes, (1.0,) * num_classes)
    assert goal.max_accuracy_drop is not None
    rows = sorted(profile.recovery, key=lambda row: row.max_accuracy_drop)
    if not rows:
        raise InputError(
            f"profile {profile.model!r} has no recovery rows, so an accuracy drop means nothing for it: "
            f"give {setting('min_retention')} instead."
        )
    allowed = [row for row in rows if row.max_accuracy_drop <= goal.max_accuracy_drop]
    if not allowed:
        raise InputError(
            f"{setting('max_accuracy_drop')} must be at least {rows[0].max_accuracy_drop:g}, the smallest that profile "
            f"{profile.model!r} was calibrated for, got {goal.max_accuracy_drop:g}; or give "
            f"{setting('min_retention')}."
        )
    return Floors(allowed[-1].by_count, allowed[-1].class_need)
