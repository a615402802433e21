"""What fused accuracy a plan will have: the model that the profile's recovery probes were fitted with.

For each class c of a plan, with r_cd what device d retains of it,

    log e_c = a + o_c + b log n_c - s log best_c - t log(all_c / best_c),

    best_c  the most that any device retains of c, whether it serves c or not
    all_c   what all devices retain of c, added up: the fusion sees every feature
    n_c     how many classes the device serves that serves c and retains most of it

(Of 59 small plans of the digits ViT, one to five devices of different embed dims, best_c explained most; what the
serving device itself retains added nothing.)

e_c is the share of errors on images that no sub-model was trained on, as far as pruning makes
them. The whole model errs too: the two are joined as sqrt(e_c^2 + whole^2), which is the larger
of them where they differ much.

Limits: fitted to at most sixteen small plans. Its error is stated beside it, found by leaving out each.

Legend: C classes, D devices, U units (heads and channel groups), F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.arrays import Floats
from planner.schema import FusedAccuracy, PredictedAccuracy, Profile, SubModel

_DECIMALS = 6
# What retains nothing is taken to retain this, so that it has a logarithm.
_LEAST_RETENTION = 1e-3


@dataclass(frozen=True, eq=False)
class Retained:
    """What the devices of a plan retain of every class (D, C), and which classes each serves (D, C)."""

    shares: Floats
    serves: NDArray[np.bool_]


def features(retained: Retained) -> Floats:
    """Return what the error of each class is explained by: log n_c, -log best_c, -log(all_c / best_c); (C, F)."""
    shares = np.maximum(retained.shares, _LEAST_RETENTION)
    serving = np.where(retained.serves, shares, 0.0).argmax(axis=0)  # (C,)
    num_classes = retained.serves.sum(axis=1)[serving]
    best, everything = shares.max(axis=0), shares.sum(axis=0)
    return np.stack([np.log(num_classes), -np.log(best), -np.log(everything / best)], axis=1)


def class_errors(model: FusedAccuracy, retained: Retained) -> Floats:
    """Return the share of errors that pruning makes for each class, (C,), at most 1."""
    weights = np.array([model.log_num_classes, model.log_best_retention, model.log_other_retention])
    exponent = model.intercept + np.array(model.class_offset) + features(retained) @ weights
    return np.asarray(np.exp(np.minimum(exponent, 0.0)))


def predicted_accuracy(sub_models: Sequence[SubModel], profile: Profile) -> PredictedAccuracy | None:
    """Return the fused accuracy of sub-models on images they were not trained on; None where nothing was probed.

    Args:
        sub_models: One for each device; every class is on one of them.
        profile: What they are cut by.
    """
    model = profile.fused_accuracy
    if model is None:
        return None
    pruned = class_errors(model, retained_by(sub_models, profile))
    error = float(np.sqrt(pruned**2 + (model.whole_error or 0.0) ** 2).mean())
    spread = error * (np.exp(model.log_error) - 1)
    return PredictedAccuracy(
        accuracy=round(max(0.0, 1 - error), _DECIMALS),
        error=round(min(1.0, spread), _DECIMALS),
    )


def retained_by(sub_models: Sequence[SubModel], profile: Profile) -> Retained:
    """Return what sub-models retain of every class, served there or not."""
    shares = unit_shares(profile)
    kept = np.zeros((len(sub_models), shares.shape[1]))
    at_best = np.ones((len(sub_models), len(profile.classes)))
    serves = np.zeros((len(sub_models), len(profile.classes)), dtype=bool)
    index = {name: c for c, name in enumerate(profile.classes)}
    starts = np.cumsum([0, *([profile.num_heads] * profile.depth), *(len(b) for b in profile.channel_groups)])
    for d, sub_model in enumerate(sub_models):
        halves = (*sub_model.kept_heads, *sub_model.kept_channel_groups)
        kept[d, [starts[i] + u for i, half in enumerate(halves) for u in half]] = 1
        width = profile.width(sub_model.embed_dim)
        assert width is not None
        at_best[d] = width.embed_retention
        if sub_model.precision in profile.precision_retention:
            at_best[d] *= profile.precision_retention[sub_model.precision]
        serves[d, [index[name] for name in sub_model.classes]] = True
    return Retained(kept @ shares.T * at_best, serves)


def unit_shares(profile: Profile) -> Floats:
    """Return each unit's share of each class's importance, (C, U): all heads, then all channel groups."""
    importance = profile.importance
    pairs = zip(importance.heads, importance.channel_groups, strict=True)
    return np.array([[share for half in (*heads, *groups) for share in half] for heads, groups in pairs])
