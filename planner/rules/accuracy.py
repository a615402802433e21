"""Predicted fused accuracy of a plan, by the model that was fitted to the profile's trial plans.

For each class c of a plan, with r_cd the retention of c on device d,

    odds(r) = r^k / (1 - r)
    j_c     = (sum over d of odds(r_cd)^q)^(1 / q)
    z_c     = exp(a + o_c) (1 / j_c + t / odds(u_c))^s
    loss_c  = m z_c / (m + z_c)

with u_c the retention of the units that any device keeps, and m the whole model's accuracy, beyond which nothing can be
lost. What the fusion sees counts, whether a device serves the class or not; devices that keep the same units add less
to each other than those that keep different ones. A class that some device retains in full loses nothing; each unit
that is kept and each device that is used can only make a loss smaller.

The interval of a prediction is conformal: trial plans were predicted by models that were not fitted to them, and the
errors of these predictions, relative to the predicted loss and half a point, are taken for those of new plans. All
trial plans were counted on the same images; the error by chance that they share, which no other image has, is added. It
grows for plans beyond what was tried: with less retained than any trial plan, or on more than twice as many devices.

Legend: C classes, D devices.

Source:
    Conformal intervals: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, doi:10.1007/b106715.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from planner.arrays import Floats
from planner.rules.retention import FleetRetention, fleet_retention
from planner.schema import AccuracyModel, PredictedAccuracy, Profile, SubModel

# Errors of predictions are measured relative to the predicted loss and to this, so that they are finite at no loss.
RESOLUTION = 0.005
# Probability of a loss below the interval, and above it.
TAIL = 0.1
_DECIMALS = 6
# What is retained in full has infinite odds.
_MIN_REMOVED = 1e-9
_MIN_ODDS, _MAX_LOG = 1e-30, 500.0


def class_losses(model: AccuracyModel, retention: FleetRetention) -> Floats:
    """Return the predicted loss of each class, (..., C)."""
    by_device, union = (_odds(model, retained) for retained in (retention.by_device, retention.union))
    lacking = 1 / _joined(by_device, model.norm_order)
    if model.union_weight:
        lacking = lacking + model.union_weight / np.maximum(union, _MIN_ODDS)
    log_loss = model.log_scale + np.array(model.class_offset) + model.steepness * np.log(lacking)
    most = 1 - model.whole_error
    losses = most / (1 + most * np.exp(-np.clip(log_loss, -_MAX_LOG, _MAX_LOG)))
    return np.where(retention.highest >= 1 - _MIN_REMOVED, 0.0, losses)


def _odds(model: AccuracyModel, retained: Floats) -> Floats:
    """Return the odds of retentions, of any shape; zero where nothing is retained."""
    return np.asarray(retained**model.retention_exponent / np.maximum(1 - retained, _MIN_REMOVED))


def _joined(odds: Floats, order: float) -> Floats:
    """Return the norm over devices of odds (..., D, C), (..., C); positive where all are zero."""
    highest = np.maximum(odds.max(axis=-2, initial=0.0), _MIN_ODDS)
    ratios = odds / highest[..., None, :]
    return np.asarray(highest * np.maximum(1.0, (ratios**order).sum(axis=-2)) ** (1 / order))


def predict_accuracy(sub_models: Sequence[SubModel], profile: Profile) -> PredictedAccuracy | None:
    """Return the fused accuracy on new images; None if the profile has no model of it.

    Args:
        sub_models: One for each device; every class is on one of them.
        profile: The profile that the plan is for.
    """
    model = profile.accuracy_model
    if model is None:
        return None
    retention = fleet_retention(sub_models, profile)
    loss = mean_loss(model, retention)
    # The prediction lies in its interval, even where trial plans were all predicted too well, or too badly.
    most = max(loss, loss_quantile(model, retention, 1 - TAIL))
    least = min(loss, loss_quantile(model, retention, TAIL))
    whole = 1 - model.whole_error
    return PredictedAccuracy(
        accuracy=round(whole - loss, _DECIMALS),
        loss=round(loss, _DECIMALS),
        low=round(whole - most, _DECIMALS),
        high=round(whole - least, _DECIMALS),
        epochs=model.epochs,
    )


def mean_loss(model: AccuracyModel, retention: FleetRetention) -> float:
    """Return the predicted loss of a plan: the mean over images."""
    # Shares sum to 1 but for rounding, and no more than all can be lost.
    return min(1 - model.whole_error, float(class_losses(model, retention) @ np.array(model.class_share)))


def loss_quantile(model: AccuracyModel, retention: FleetRetention, share: float) -> float:
    """Return the loss that this share of plans predicted to lose as much stays within; below zero: a gain.

    Args:
        model: Model of the profile.
        retention: Retention by the plan's devices.
        share: Probability, 0..1.
    """
    if np.all(retention.highest >= 1 - _MIN_REMOVED):
        return 0.0
    loss = mean_loss(model, retention)
    found = loss + error_quantile(model, loss, share) * _extrapolation(model, retention)
    # No more can be lost than the whole model's accuracy, or gained than its error.
    return max(-model.whole_error, min(1 - model.whole_error, found))


def error_quantile(model: AccuracyModel, loss: float, share: float) -> float:
    """Return what this share of plans like the trial plans lose at most beyond the predicted loss; negative: less.

    Args:
        model: Model of the profile.
        loss: Predicted loss.
        share: Probability, 0..1.
    """
    median = _score_quantile(model, 0.5)
    of_plans = (loss + RESOLUTION) * (_score_quantile(model, share) - median)
    of_images = NormalDist().inv_cdf(share) * _error_by_chance(model, loss)
    return (loss + RESOLUTION) * median + math.copysign(math.hypot(of_plans, of_images), share - 0.5)


def _score_quantile(model: AccuracyModel, share: float) -> float:
    """Return the score of a new plan that is exceeded with the rest of the probability."""
    scores = sorted(model.scores)
    # Of n earlier scores and a new one, each rank is as likely for the new one; 0.55 x 20 is 11 but for rounding.
    expected_rank = round(share * (len(scores) + 1), _DECIMALS)
    rank = math.ceil(expected_rank) if share >= 0.5 else math.floor(expected_rank)
    return scores[max(1, min(rank, len(scores))) - 1]


def _error_by_chance(model: AccuracyModel, loss: float) -> float:
    """Return the standard error of a loss that was counted on the calibration images; 0 if they are not known."""
    if not model.num_images:
        return 0.0
    # Images on which only the whole model or only the plan is right count 1 or -1, all others 0.
    differing = max(loss, 1 / model.num_images) + 2 * model.gained
    return math.sqrt(min(1.0, differing) / model.num_images)


def _extrapolation(model: AccuracyModel, retention: FleetRetention) -> float:
    """Return the factor on the interval of a plan beyond what was tried, 1 within."""
    kept = max(float(retention.highest.mean()), 1e-3)
    beyond_kept = max(0.0, model.min_retention / kept - 1)
    beyond_devices = max(0.0, len(retention.by_device) / (2 * model.max_devices) - 1)
    return 1 + 2 * beyond_kept + beyond_devices


def stays_within(profile: Profile, retention: FleetRetention, max_drop: float, confidence: float | None) -> bool:
    """Return whether a plan is predicted to lose at most so much, a share; see `least_drop`."""
    return least_drop(profile, retention, confidence) <= max_drop


def least_drop(profile: Profile, retention: FleetRetention, confidence: float | None) -> float:
    """Return the smallest accuracy drop that a plan is predicted to keep, as a share.

    Args:
        profile: A profile with an accuracy model.
        retention: Retention by the plan's devices.
        confidence: Probability with which it must hold, too; None for the predicted loss alone.
    """
    model = profile.accuracy_model
    assert model is not None
    loss = mean_loss(model, retention)
    if confidence is not None:
        loss = max(loss, loss_quantile(model, retention, confidence))
    return round(loss, _DECIMALS)
