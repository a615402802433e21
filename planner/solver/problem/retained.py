"""Retentions of placed sub-models, and the accuracy model that a search goes by.

Legend: C classes, D devices, U units.
"""

from collections.abc import Sequence

import numpy as np

from planner.arrays import Bools, Floats
from planner.schema import AccuracyModel, Profile
from planner.solver.problem.instance import Instance
from planner.solver.problem.option import Option, PlacedSubModel


def retained_by(instance: Instance, option: Option, kept: Bools) -> Floats:
    """Return the retention of each class by kept units (U,) on an option, (C,)."""
    shares = instance.units.shares @ kept / instance.units.shares.sum(axis=1)
    return np.asarray(np.minimum(1.0, shares) * np.array(option.width_cost.max_retention))


def retained(instance: Instance, placed: Sequence[PlacedSubModel]) -> Floats:
    """Return the retention of each class on each device, served there or not, (D, C)."""
    rows = np.zeros((len(placed), instance.num_classes))
    for d, p in enumerate(placed):
        kept = np.zeros(len(instance.units), dtype=bool)
        kept[list(p.kept)] = True
        rows[d] = retained_by(instance, p.option, kept)
    return rows


def search_model(profile: Profile) -> AccuracyModel:
    """Return the profile's accuracy model, or a typical one by which plans are compared where it has none."""
    if profile.accuracy_model is not None:
        return profile.accuracy_model
    num_classes = len(profile.classes)
    return AccuracyModel(
        log_scale=-2.5,
        steepness=1.0,
        norm_order=1.5,
        retention_exponent=0.5,
        class_offset=(0.0,) * num_classes,
        class_share=(1 / num_classes,) * num_classes,
        whole_error=0.0,
        epochs=0.0,
        scores=(0.0,),
        min_retention=0.0,
        max_devices=1,
    )
