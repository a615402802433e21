"""The retention floor: how much of a class's importance a sub-model must keep.

A sub-model of n classes keeps class c to at least by_count[n] * class_need[c], at most 1; or to
one number for all where the user gives `min_retention`.
"""

from dataclasses import dataclass

from planner.errors import InputError
from planner.schema import Goal, Profile

# Importance is measured in parts per million: below that, more or less means nothing.
RETENTION_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Floors:
    """The floor of each class for each number of classes."""

    by_count: tuple[float, ...]
    class_need: tuple[float, ...]

    def of(self, class_index: int, num_classes: int) -> float:
        """Return the least retention of a class on a device that serves this many classes."""
        return min(1.0, self.by_count[num_classes - 1] * self.class_need[class_index])


def floors_of(profile: Profile, goal: Goal) -> Floors:
    """Return the floors that a goal means for a profile.

    An accuracy drop between two calibrated ones takes the stricter one.

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
            "give --min-retention instead."
        )
    allowed = [row for row in rows if row.max_accuracy_drop <= goal.max_accuracy_drop]
    if not allowed:
        raise InputError(
            f"max_accuracy_drop must be at least {rows[0].max_accuracy_drop:g}, the smallest that profile "
            f"{profile.model!r} was calibrated for, got {goal.max_accuracy_drop:g}; or give --min-retention."
        )
    return Floors(allowed[-1].by_count, allowed[-1].class_need)
