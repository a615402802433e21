"""Predicted fused accuracy of a plan, by the model that was fitted to the profile's trial plans.

For each class c of a plan, with r_cd the retention of c on device d,

    odds_cd = r_cd^k / (1 - r_cd)
    z_c     = exp(a + o_c) (sum over d of odds_cd^q)^(-s / q)
    loss_c  = m z_c / (m + z_c)

with m the whole model's accuracy, beyond which nothing can be lost. What the fusion sees counts, whether a device
serves the class or not. A class that some device retains in full loses nothing; each unit that is kept and each device
that is used can only make a loss smaller.

The interval of a prediction is conformal: trial plans were predicted by models that were not fitted to them, and the
errors of these predictions, relative to the predicted loss and half a point, are taken for those of new plans. It
grows for plans beyond what was tried: with less retained than any trial plan, or on more than twice as many devices.

Legend: C classes, D devices, U units (heads and channel groups).

Source:
    Conformal intervals: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, doi:10.1007/b106715.
"""

import math
from collections.abc import Sequence

import numpy as np

from planner.arrays import Floats
from planner.schema import AccuracyModel, PredictedAccuracy, Profile, SubModel

# Errors of predictions are measured relative to the predicted loss and to this, so that they are finite at no loss.
RESOLUTION = 0.005
# Probability of a loss below the interval, and above it.
TAIL = 0.1
_DECIMALS = 6
# What is retained in full has infinite odds.
_MIN_REMOVED = 1e-9
_MIN_ODDS, _MAX_LOG = 1e-30, 500.0


def odds(model: AccuracyModel, retained: Floats) -> Floats:
    """Return the odds of retentions, of any shape; zero where nothing is retained."""
    return np.asarray(retained**model.retention_exponent / np.maximum(1 - retained, _MIN_REMOVED))


def class_losses(model: AccuracyModel, retained: Floats) -> Floats:
    """Return the predicted loss of each class, (..., C).

    Args:
        model: Model of the profile.
        retained: Retention of each class on each device, (..., D, C), 0..1.
    """
    joined = joined_odds(model, odds(model, retained))
    log_loss = model.log_scale + np.array(model.class_offset) - model.steepness * np.log(joined)
    most = 1 - model.whole_error
    losses = most / (1 + most * np.exp(-np.minimum(log_loss, _MAX_LOG)))
    return np.where(retained.max(axis=-2, initial=0.0) >= 1 - _MIN_REMOVED, 0.0, losses)


def joined_odds(model: AccuracyModel, device_odds: Floats) -> Floats:
    """Return the norm over devices of odds (..., D, C), (..., C); positive where all are zero."""
    highest = np.maximum(device_odds.max(axis=-2, initial=0.0), _MIN_ODDS)
    ratios = device_odds / highest[..., None, :]
    return np.asarray(highest * np.maximum(1.0, (ratios**model.norm_order).sum(axis=-2)) ** (1 / model.norm_order))


def predict_accuracy(sub_models: Sequence[SubModel], profile: Profile) -> PredictedAccuracy | None:
    """Return the fused accuracy on new images; None if the profile has no model of it.

    Args:
        sub_models: One for each device; every class is on one of them.
        profile: The profile that the plan is for.
    """
    model = profile.accuracy_model
    if model is None:
        return None
    retained = fleet_retention(sub_models, profile)
    loss = mean_loss(model, retained)
    # The prediction lies in its interval, even where trial plans were all predicted too well, or too badly.
    most = max(loss, loss_quantile(model, retained, 1 - TAIL))
    least = min(loss, loss_quantile(model, retained, TAIL))
    whole = 1 - model.whole_error
    return PredictedAccuracy(
        accuracy=round(whole - loss, _DECIMALS),
        loss=round(loss, _DECIMALS),
        low=round(whole - most, _DECIMALS),
        high=round(whole - least, _DECIMALS),
        epochs=model.epochs,
    )


def mean_loss(model: AccuracyModel, retained: Floats) -> float:
    """Return the predicted loss of a plan with these retentions (D, C): the mean over images."""
    # Shares sum to 1 but for rounding, and no more than all can be lost.
    return min(1 - model.whole_error, float(class_losses(model, retained) @ np.array(model.class_share)))


def loss_quantile(model: AccuracyModel, retained: Floats, share: float) -> float:
    """Return the loss that this share of plans predicted to lose as much stays within; below zero: a gain.

    Args:
        model: Model of the profile.
        retained: Retention of each class on each device, (D, C).
        share: Probability, 0..1.
    """
    if np.all(retained.max(axis=0) >= 1 - _MIN_REMOVED):
        return 0.0
    loss = mean_loss(model, retained)
    found = loss + error_quantile(model, loss, share) * _extrapolation(model, retained)
    # No more can be lost than the whole model's accuracy, or gained than its error.
    return max(-model.whole_error, min(1 - model.whole_error, found))


def error_quantile(model: AccuracyModel, loss: float, share: float) -> float:
    """Return what this share of plans like the trial plans lose at most beyond the predicted loss; negative: less.

    Args:
        model: Model of the profile.
        loss: Predicted loss.
        share: Probability, 0..1.
    """
    scores = sorted(model.scores)
    # Of n earlier scores and a new one, each rank is as likely for the new one; 0.55 x 20 is 11 but for rounding.
    expected_rank = round(share * (len(scores) + 1), _DECIMALS)
    rank = math.ceil(expected_rank) if share >= 0.5 else math.floor(expected_rank)
    rank = max(1, min(rank, len(scores)))
    return (loss + RESOLUTION) * scores[rank - 1]


def _extrapolation(model: AccuracyModel, retained: Floats) -> float:
    """Return the factor on the interval of a plan beyond what was tried, 1 within."""
    kept = max(float(retained.max(axis=0).mean()), 1e-3)
    beyond_kept = max(0.0, model.min_retention / kept - 1)
    beyond_devices = max(0.0, len(retained) / (2 * model.max_devices) - 1)
    return 1 + 2 * beyond_kept + beyond_devices


def stays_within(profile: Profile, retained: Floats, max_drop: float, confidence: float | None) -> bool:
    """Return whether a plan with these retentions (D, C) is predicted to lose at most so much.

    Args:
        profile: A profile with an accuracy model.
        retained: Retention of each class on each device, (D, C).
        max_drop: Largest loss, as a share.
        confidence: Probability with which it must hold, too; None for the predicted loss alone.
    """
    model = profile.accuracy_model
    assert model is not None
    loss = mean_loss(model, retained)
    if confidence is not None:
        loss = max(loss, loss_quantile(model, retained, confidence))
    return round(loss, _DECIMALS) <= max_drop


def fleet_retention(sub_models: Sequence[SubModel], profile: Profile) -> Floats:
    """Return the retention of every class on every device, served there or not, (D, C)."""
    importance = unit_importance(profile)
    kept = np.zeros((len(sub_models), importance.shape[1]))
    unpruned = np.ones((len(sub_models), len(profile.classes)))
    starts = np.cumsum([0, *([profile.num_heads] * profile.depth), *(len(b) for b in profile.channel_groups)])
    for d, sub_model in enumerate(sub_models):
        half_blocks = (*sub_model.kept_heads, *sub_model.kept_channel_groups)
        kept[d, [starts[i] + u for i, units in enumerate(half_blocks) for u in units]] = 1
        width = profile.width(sub_model.embed_dim)
        assert width is not None
        unpruned[d] = width.embed_retention
        if sub_model.precision in profile.precision_retention:
            unpruned[d] *= profile.precision_retention[sub_model.precision]
    # Shares of a class sum to 1 but for rounding.
    return np.asarray(np.minimum(1.0, kept @ (importance / importance.sum(axis=1, keepdims=True)).T) * unpruned)


def unit_importance(profile: Profile) -> Floats:
    """Return the importance of each unit for each class, (C, U): all heads, then all channel groups."""
    importance = profile.importance
    pairs = zip(importance.heads, importance.channel_groups, strict=True)
    return np.array([[share for units in (*heads, *groups) for share in units] for heads, groups in pairs])
