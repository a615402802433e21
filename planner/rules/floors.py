"""Retention floors: the share of a class's importance that a sub-model which serves it must keep.

A goal gives one floor for all classes (`min_retention`), or an accuracy drop. For a drop, the solver sets the floor r
of a mean class, the plan's `retention_floor`, and the floors of all classes follow: with o_c the logarithm of a class's
loss relative to the mean class and s the steepness of the accuracy model, the odds of floor c are those of r times
exp(o_c / (s + 1)). So losses add up to the same with the least odds in all, and a floor of 1 is 1 for every class.
"""

import math

import numpy as np

from planner.arrays import Floats
from planner.errors import InputError, setting
from planner.schema import AccuracyModel, Goal, Profile

# Importance is known to parts per million at best: smaller differences are rounding.
RETENTION_TOLERANCE = 1e-6

_BISECTION_STEPS = 50


def floors_of(profile: Profile, goal: Goal, retention_floor: float | None) -> Floats:
    """Return the floor of each class, (C,).

    Args:
        profile: Measurements of the model.
        goal: The goal.
        retention_floor: Floor of a mean class that the solver set, if it did.

    Raises:
        InputError: If it set one, and the profile cannot predict accuracies.
    """
    given = np.full(len(profile.classes), goal.min_retention or 0.0)
    if retention_floor is None:
        return given
    return np.asarray(np.maximum(given, class_floors(accuracy_model_of(profile), retention_floor)))


def accuracy_model_of(profile: Profile) -> AccuracyModel:
    """Return the profile's accuracy model.

    Raises:
        InputError: If it has none.
    """
    if profile.accuracy_model is None:
        raise InputError(
            f"profile {profile.model!r} has no accuracy model, so accuracies cannot be predicted with it: "
            f"give {setting('min_retention')}, or profile the model with trial plans."
        )
    return profile.accuracy_model


def class_floors(model: AccuracyModel, retention_floor: float) -> Floats:
    """Return the floor of each class for the floor of a mean class, (C,)."""
    if retention_floor in (0.0, 1.0):
        return np.full(len(model.class_offset), retention_floor)
    target = math.log(retention_floor) * model.retention_exponent - math.log1p(-retention_floor)
    targets = target + np.array(model.class_offset) / (model.steepness + 1)
    low, high = np.zeros(len(targets)), np.ones(len(targets))
    for _ in range(_BISECTION_STEPS):
        middle = (low + high) / 2
        below = model.retention_exponent * np.log(middle) - np.log1p(-middle) < targets
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray((low + high) / 2)
