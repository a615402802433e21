"""Accuracy models: random ones for profiles, and their formulas, which share no code with the planner."""

import math

import numpy as np
from numpy.typing import NDArray

from planner.schema import Profile
from tests.helpers.common import Json

Floats = NDArray[np.float64]


def predictable(profile: Profile, seed: int) -> Profile:
    """Return a profile with a random accuracy model."""
    rng = np.random.default_rng(seed + 50_000)
    num_classes = len(profile.classes)
    offset = rng.normal(0, 0.4, num_classes)
    share = rng.dirichlet(np.full(num_classes, 20.0))
    model = {
        "log_scale": float(rng.uniform(-3.5, -1.5)),
        "steepness": float(rng.uniform(0.6, 2.0)),
        "norm_order": float(rng.uniform(0.7, 3.0)),
        "retention_exponent": float(rng.uniform(0.2, 1.0)),
        "class_offset": (offset - offset.mean()).tolist(),
        "class_share": share.tolist(),
        "whole_error": float(rng.uniform(0.0, 0.2)),
        "epochs": 10.0,
        "scores": rng.normal(0.0, 0.4, 16).tolist(),
        "min_retention": 0.2,
        "max_devices": 3,
    }
    return Profile.model_validate(profile.model_dump(mode="json") | {"accuracy_model": model})


def losses_of(model: Json, retained: Floats) -> Floats:
    """Return the predicted loss of each plan, the mean over images.

    Args:
        model: As in profile.json.
        retained: Retention of each class on each device, (..., D, C).
    """
    k, q, s = model["retention_exponent"], model["norm_order"], model["steepness"]
    most = 1 - model["whole_error"]
    whole = retained >= 1 - 1e-9
    odds = retained**k / np.where(whole, 1.0, 1 - retained)
    scale = np.exp(model["log_scale"] + np.array(model["class_offset"]))
    with np.errstate(divide="ignore", over="ignore"):
        z = scale * (odds**q).sum(axis=-2) ** (-s / q)
        loss = most / (1 + most / z)
    by_class = np.where(whole.any(axis=-2), 0.0, loss)
    return np.asarray(by_class @ np.array(model["class_share"]))


def class_floors(model: Json, floor: float) -> list[float]:
    """Return the floors of all classes for that of a mean class: the odds times exp(o_c / (s + 1)), by bisection."""
    if floor in (0.0, 1.0):
        return [floor] * len(model["class_offset"])
    k = model["retention_exponent"]

    def solved(odds: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if middle**k < odds * (1 - middle) else (low, middle)
        return high

    mean = floor**k / (1 - floor)
    return [solved(mean * math.exp(o / (model["steepness"] + 1))) for o in model["class_offset"]]
