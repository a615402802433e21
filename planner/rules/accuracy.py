"""Predicted fused accuracy of a plan, by the regression model that was fitted to the profile's trial plans.

For each class c of a plan, with r_cd the retention of c on device d,

    log e_c = a + o_c + b log n_c - s log best_c - t log(all_c / best_c),

    best_c  the highest retention of c on any device, whether it serves c or not
    all_c   the sum of the retentions of c on all devices: the fusion sees every feature
    n_c     the number of classes of the device that retains most of c among those that serve it

(Of 59 small plans of the digits ViT, one to five devices of different embed dims, best_c explained most; the
retention on the serving device itself added nothing.)

e_c is the share of errors that pruning makes on images that no sub-model was trained on. The whole model errs, too:
the two are joined as sqrt(e_c^2 + whole^2), which is close to the larger of them where they differ much.

Limits: fitted to at most sixteen small plans. The stated error is that of leave-one-out cross-validation.

Legend: C classes, D devices, U units (heads and channel groups), R regressors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.arrays import Bools, Floats
from planner.schema import FusedAccuracy, PredictedAccuracy, Profile, SubModel

_DECIMALS = 6
# A retention of zero has no logarithm.
_MIN_RETENTION = 1e-3


@dataclass(frozen=True, eq=False)
class FleetRetention:
    """Retention of every class on every device of a plan (D, C), and which classes each device serves (D, C)."""

    shares: Floats
    serves: Bools


def regressors(retained: FleetRetention) -> Floats:
    """Return the regressors of the error of each class: log n_c, -log best_c, -log(all_c / best_c); (C, R)."""
    shares = np.maximum(retained.shares, _MIN_RETENTION)
    serving = np.where(retained.serves, shares, 0.0).argmax(axis=0)  # (C,)
    num_classes = retained.serves.sum(axis=1)[serving]
    best, everything = shares.max(axis=0), shares.sum(axis=0)
    return np.stack([np.log(num_classes), -np.log(best), -np.log(everything / best)], axis=1)


def class_errors(model: FusedAccuracy, retained: FleetRetention) -> Floats:
    """Return the share of errors that pruning makes for each class, (C,), at most 1."""
    weights = np.array([model.log_num_classes, model.log_best_retention, model.log_other_retention])
    exponent = model.intercept + np.array(model.class_offset) + regressors(retained) @ weights
    return np.asarray(np.exp(np.minimum(exponent, 0.0)))


def predict_accuracy(sub_models: Sequence[SubModel], profile: Profile) -> PredictedAccuracy | None:
    """Return the fused accuracy on images that no sub-model was trained on; None if the profile has no model of it.

    Args:
        sub_models: One for each device; every class is on one of them.
        profile: The profile that the plan is for.
    """
    model = profile.fused_accuracy
    if model is None:
        return None
    pruned = class_errors(model, fleet_retention(sub_models, profile))
    error = float(np.sqrt(pruned**2 + (model.whole_error or 0.0) ** 2).mean())
    spread = error * (np.exp(model.log_error) - 1)
    return PredictedAccuracy(
        accuracy=round(max(0.0, 1 - error), _DECIMALS),
        error=round(min(1.0, spread), _DECIMALS),
    )


def fleet_retention(sub_models: Sequence[SubModel], profile: Profile) -> FleetRetention:
    """Return the retention of every class on every device, served there or not."""
    importance = unit_importance(profile)
    kept = np.zeros((len(sub_models), importance.shape[1]))
    unpruned = np.ones((len(sub_models), len(profile.classes)))
    serves = np.zeros((len(sub_models), len(profile.classes)), dtype=bool)
    index = {name: c for c, name in enumerate(profile.classes)}
    starts = np.cumsum([0, *([profile.num_heads] * profile.depth), *(len(b) for b in profile.channel_groups)])
    for d, sub_model in enumerate(sub_models):
        half_blocks = (*sub_model.kept_heads, *sub_model.kept_channel_groups)
        kept[d, [starts[i] + u for i, units in enumerate(half_blocks) for u in units]] = 1
        width = profile.width(sub_model.embed_dim)
        assert width is not None
        unpruned[d] = width.embed_retention
        if sub_model.precision in profile.precision_retention:
            unpruned[d] *= profile.precision_retention[sub_model.precision]
        serves[d, [index[name] for name in sub_model.classes]] = True
    return FleetRetention(kept @ importance.T * unpruned, serves)


def unit_importance(profile: Profile) -> Floats:
    """Return the importance of each unit for each class, (C, U): all heads, then all channel groups."""
    importance = profile.importance
    pairs = zip(importance.heads, importance.channel_groups, strict=True)
    return np.array([[share for units in (*heads, *groups) for share in units] for heads, groups in pairs])
