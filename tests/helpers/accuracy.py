"""Accuracy models: random ones for profiles, and their formulas, which share no code with the planner."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from planner.schema import Profile
from planner.solver.problem.instance import IMPORTANCE_SCALE, Instance
from planner.solver.problem.option import PlacedSubModel
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
        # Of one model in three, what all devices lack does not count.
        "union_weight": float(rng.uniform(0.2, 2.0)) if seed % 3 else 0.0,
    }
    return Profile.model_validate(profile.model_dump(mode="json") | {"accuracy_model": model})


def losses_of(model: Json, retained: Floats, union: Floats) -> Floats:
    """Return the predicted loss of each plan, the mean over images.

    Args:
        model: As in profile.json.
        retained: Retention of each class on each device, (..., D, C).
        union: Retention of each class by all devices together, (..., C).
    """
    k, q, s, t = model["retention_exponent"], model["norm_order"], model["steepness"], model.get("union_weight", 0.0)
    most = 1 - model["whole_error"]
    whole = retained >= 1 - 1e-9

    def odds(share: Floats) -> Floats:
        return np.asarray(share**k / np.where(share >= 1 - 1e-9, 1e-9, 1 - share))

    scale = np.exp(model["log_scale"] + np.array(model["class_offset"]))
    with np.errstate(divide="ignore", over="ignore"):
        of_devices = (np.where(whole, 1.0, odds(retained)) ** q).sum(axis=-2) ** (-1 / q)
        of_all = t / odds(union) if t else 0.0
        z = scale * (of_devices + of_all) ** s
        loss = most / (1 + most / z)
    by_class = np.where(whole.any(axis=-2), 0.0, loss)
    return np.asarray(by_class @ np.array(model["class_share"]))


def retained_of(profile: Json, sub_models: Sequence[Json]) -> tuple[Floats, Floats]:
    """Return the retention of each class on each device, (D, C), and by all together, (C,), unit by unit.

    A unit counts at the embed dim and precision that retains most in the mean of classes; together no less is retained
    than by one of them.
    """
    widths = {width["embed_dim"]: np.array(width["embed_retention"]) for width in profile["widths"]}
    precisions = profile.get("precision_retention", {})
    left = [widths[s["embed_dim"]] * np.array(precisions.get(s.get("precision"), 1.0)) for s in sub_models]
    rows, union = np.zeros((len(sub_models), len(profile["classes"]))), np.zeros(len(profile["classes"]))
    for c in range(len(profile["classes"])):
        for part, kept in (("heads", "kept_heads"), ("channel_groups", "kept_channel_groups")):
            for l, block in enumerate(profile["importance"][part][c]):
                for u, share in enumerate(block):
                    keepers = [d for d, s in enumerate(sub_models) if u in s[kept][l]]
                    rows[keepers, c] += share
                    union[c] += share * max((left[d].mean() for d in keepers), default=0.0)
    rows *= left
    return np.minimum(1.0, rows), np.minimum(1.0, np.maximum(union, rows.max(axis=0)))


def loss_of_placement(instance: Instance, placed: Sequence[PlacedSubModel]) -> float:
    """Return the predicted loss of a placement: the mean over images."""
    units, profile = instance.units, instance.profile
    rows, best = np.zeros((len(placed), instance.num_classes)), np.zeros(len(units))
    for d, p in enumerate(placed):
        of_width = np.array(p.option.width_cost.max_retention)
        for u in p.kept:
            rows[d] += units.importance[:, u] / IMPORTANCE_SCALE * of_width
            best[u] = max(best[u], of_width.mean())
    union = np.maximum((units.importance / IMPORTANCE_SCALE) @ best, rows.max(axis=0))
    model = profile.model_dump(mode="json")["accuracy_model"]
    return float(losses_of(model, np.minimum(1.0, rows), np.minimum(1.0, union)))


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
