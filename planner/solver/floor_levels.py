"""Levels of the retention floors, as log odds of the floor of a mean class.

Legend: C classes, D devices.
"""

import math
from collections.abc import Sequence

import numpy as np

from planner.arrays import Floats
from planner.rules.accuracy import stays_within
from planner.rules.floors import accuracy_model_of, class_floors
from planner.rules.retention import FleetRetention
from planner.schema import Goal, Profile
from planner.solver.problem.option import PlacedSubModel

# Log odds of the lowest floor, and of the highest below 1. Where devices retained less than three tenths of their
# classes, losses were up to four times as high as predicted: what a planner gains there is not to be had.
LOWEST, HIGHEST = math.log(0.3 / 0.7), 9.2
_BISECTION_STEPS = 40
# Floors are stated to as many decimals.
DECIMALS = 6


def sufficient_log_odds(profile: Profile, goal: Goal, num_devices: int) -> float:
    """Return the log odds of the lowest floor that keeps the drop if so many devices retain just their floors."""
    model, drop = accuracy_model_of(profile), goal.accuracy_drop
    assert drop is not None

    def keeps(log_odds: float) -> bool:
        floors = class_floors(model, share_of(log_odds))
        # One device alone retains no more together than by itself; several are taken to keep independent units.
        retention = FleetRetention(np.tile(floors, (num_devices, 1)), 1 - (1 - floors) ** num_devices)
        return stays_within(profile, retention, drop, goal.accuracy_confidence)

    if not keeps(HIGHEST):
        return math.inf
    low, high = LOWEST, HIGHEST
    for _ in range(_BISECTION_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if keeps(middle) else (middle, high)
    return high


def highest_floor_met(profile: Profile, placed: Sequence[PlacedSubModel], rows: Floats) -> float:
    """Return the highest floor of a mean class that sub-models meet for the classes that they serve.

    Args:
        profile: Profile of the model.
        placed: Sub-models.
        rows: What each retains of each class, (D, C).
    """
    model = accuracy_model_of(profile)
    low, high = LOWEST, HIGHEST
    for _ in range(_BISECTION_STEPS):
        middle = (low + high) / 2
        floors = class_floors(model, share_of(middle))
        meets = all(
            (row[list(p.classes)] >= floors[list(p.classes)]).all() for p, row in zip(placed, rows, strict=True)
        )
        low, high = (middle, high) if meets else (low, middle)
    # A floor that is met by nothing more than rounding would not be met when it is stated.
    return float(max(0.0, share_of(low) - 10**-DECIMALS))


def log_odds_of(share: float) -> float:
    """Return the log odds of a share, within the range of the search."""
    inside = min(max(share, share_of(LOWEST)), share_of(HIGHEST))
    return math.log(inside / (1 - inside))


def share_of(log_odds: float) -> float:
    """Return the share with these log odds."""
    if math.isinf(log_odds):
        return float(log_odds > 0)
    return 1 / (1 + math.exp(-log_odds))
