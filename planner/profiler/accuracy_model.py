"""Model of the fused accuracy, fitted to trial plans, and the retention floors that follow from it.

The errors of class c in a trial plan follow the model of `planner.rules.accuracy`. Their counts are Poisson
distributed, so it is a Poisson regression with a log link, fitted as a penalised maximum likelihood: a ridge draws the
class offsets to zero, and the weights are kept nonnegative (more retained is never worse, more classes never better).
One more number is the loss of a narrow embed dim: a width that retains rho right after recovery in closed form retains
rho^g, with the exponent g that explains the trial plans best. The model's error is its leave-one-out error.

Floors allow the whole model's error plus the allowed drop, on the mean over classes, with minimal retention: with
e_c = k_c r_c^-s, the sum of all r_c is minimal where r_c is proportional to k_c^(1 / (s + 1)), which is how much more a
class with more errors needs. A device that serves n classes is taken to be one of C / n equal ones, which retain of its
classes what the trial plans' devices did of each other's.

Legend: P trial plans, C classes, F features. `images` are the held-out images of each class, `counts` the misclassified
ones among them, (P, C) each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from planner.arrays import Floats
from planner.profiler.trial_plans import TrialPlan
from planner.rules.accuracy import FleetRetention, regressors
from planner.schema import FusedAccuracy, Recovery

DROPS = (0.01, 0.02, 0.05, 0.1, 0.2)

# Candidates for the exponent g of embed dims.
_EXPONENTS = (0.3, 0.4, 0.6, 0.8, 1.0, 1.25, 1.6)
# A trial plan with more errors has collapsed: it says nothing about small drops.
_MAX_ERROR = 0.5
# Ridge penalties of the class offsets and of the weights.
_OFFSET_PENALTY, _WEIGHT_PENALTY = 8.0, 0.05
_MAX_LOG_ERROR = 3.0
# Trial plans that hardly show that less retention is worse must not lead to floors of nothing or everything.
_MIN_STEEPNESS = 0.3
# A trial plan without errors counts as this many misclassified images, since errors are compared by their logarithm.
_MIN_COUNT = 0.5
_MIN_NEED = 0.5
_BISECTION_STEPS = 40
_DECIMALS = 4


@dataclass(frozen=True, eq=False)
class Evidence:
    """Measurements that the accuracy model is fitted to."""

    trials: Sequence[TrialPlan]
    rho: Mapping[int, Floats]  # embed dim -> what it retains after recovery in closed form, (C,)
    whole_error: float | None  # error of the whole model on images it was not trained on, if known


@dataclass(frozen=True, eq=False)
class Calibration:
    """Accuracy model and floors, as a profile holds them."""

    fused_accuracy: FusedAccuracy
    recovery: list[Recovery]
    embed_retention: dict[int, list[float]]


def calibrate_accuracy(evidence: Evidence) -> Calibration:
    """Fit the model, estimate its error by leave-one-out cross-validation, and set the floors."""
    usable = [t for t in evidence.trials if np.dot(t.errors, t.images) < _MAX_ERROR * sum(t.images)] or evidence.trials
    images = np.array([t.images for t in usable], dtype=float)  # (P, C)
    counts = np.array([t.errors for t in usable]) * images
    designs = {g: np.array([regressors(trial_retention(t, evidence.rho, g)) for t in usable]) for g in _EXPONENTS}
    exponent = min(
        _EXPONENTS,
        key=lambda g: _negative_log_likelihood(_fit_poisson(designs[g], counts, images), designs[g], counts, images),
    )
    design = designs[exponent]  # (P, C, F)
    log_error = _leave_one_out_log_error(design, counts, images, evidence.whole_error or 0.0)
    model = _fused_accuracy(_fit_poisson(design, counts, images), evidence.whole_error, log_error, len(usable))
    min_retention = float(np.exp(-design[:, :, 1].max()))
    other_share = _mean_other_share([trial_retention(t, evidence.rho, exponent) for t in usable])
    return Calibration(
        fused_accuracy=model,
        recovery=[_floors(model, drop, min_retention, other_share) for drop in DROPS],
        embed_retention={e: np.minimum(1.0, rho**exponent).round(6).tolist() for e, rho in evidence.rho.items()},
    )


def trial_retention(trial: TrialPlan, rho: Mapping[int, Floats], exponent: float) -> FleetRetention:
    """Return the retention of every class on a trial plan's devices, if an embed dim retains rho^exponent."""
    shares = np.array(
        [
            np.array(units) * rho[device.embed_dim] ** exponent
            for device, units in zip(trial.devices, trial.unit_retention, strict=True)
        ]
    )
    serves = np.zeros(shares.shape, dtype=bool)
    for d, device in enumerate(trial.devices):
        serves[d, list(device.classes)] = True
    return FleetRetention(shares, serves)


def _mean_other_share(plans: Sequence[FleetRetention]) -> float:
    """Return the mean retention of a class on each other device, as a share of its largest on any device."""
    ratios = [
        (plan.shares.sum(axis=0) / plan.shares.max(axis=0) - 1).mean() / (len(plan.shares) - 1)
        for plan in plans
        if len(plan.shares) > 1
    ]
    return float(np.mean(ratios)) if ratios else 0.0


def _fit_poisson(design: Floats, counts: Floats, images: Floats) -> Floats:
    """Return intercept, weights (F,) and class offsets (C,) of the penalised Poisson regression."""
    num_trials, num_classes, num_features = design.shape
    offsets = np.broadcast_to(np.eye(num_classes), (num_trials, num_classes, num_classes))
    columns = np.concatenate([np.ones((num_trials, num_classes, 1)), design, offsets], axis=2)
    rows, observed = columns.reshape(-1, columns.shape[2]), counts.ravel()
    exposure = images.ravel()
    penalty = np.array([0.0, *[_WEIGHT_PENALTY] * num_features, *[_OFFSET_PENALTY] * num_classes])

    def loss(t: Floats) -> tuple[float, Floats]:
        log_error = np.minimum(rows @ t, _MAX_LOG_ERROR)
        expected = np.exp(log_error) * exposure
        value = float((expected - observed * log_error).sum() + 0.5 * (penalty * t * t).sum())
        return value, np.asarray(rows.T @ (expected - observed) + penalty * t)

    start = np.array([-2.0, *[1.0] * num_features, *[0.0] * num_classes])
    bounds = [(None, None), *[(0, None)] * num_features, *[(None, None)] * num_classes]
    return np.asarray(minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x)


def _predicted_errors(t: Floats, design: Floats) -> Floats:
    """Return the modelled share of errors, (..., C)."""
    num_features = design.shape[-1]
    log_error = t[0] + design @ t[1 : 1 + num_features] + t[1 + num_features :]
    return np.asarray(np.exp(np.minimum(log_error, 0.0)))


def _negative_log_likelihood(t: Floats, design: Floats, counts: Floats, images: Floats) -> float:
    """Return the negative log-likelihood of the counts, up to a constant."""
    expected = _predicted_errors(t, design) * images
    return float((expected - counts * np.log(expected)).sum())


def _leave_one_out_log_error(design: Floats, counts: Floats, images: Floats, whole_error: float) -> float:
    """Return the root mean square of ln(predicted / measured) errors, each trial plan predicted from the others.

    Errors are joined with the whole model's, as predictions are: to foresee a single error among a thousand images is
    not asked for.
    """
    if len(design) < 2:
        return 1.0
    logs = []
    for p in range(len(design)):
        others = np.arange(len(design)) != p
        fitted = _fit_poisson(design[others], counts[others], images[others])
        predicted = _predicted_errors(fitted, design[p]) @ images[p]
        both = np.array([predicted, max(counts[p].sum(), _MIN_COUNT)]) / images[p].sum()
        of_predicted, of_measured = np.sqrt(both**2 + whole_error**2)
        logs.append(np.log(of_predicted / of_measured))
    return float(np.sqrt(np.mean(np.square(logs))))


def _fused_accuracy(t: Floats, whole_error: float | None, log_error: float, num_trials: int) -> FusedAccuracy:
    intercept, log_num_classes, best, others, *offsets = t.round(_DECIMALS).tolist()
    return FusedAccuracy(
        intercept=intercept,
        log_num_classes=log_num_classes,
        log_best_retention=best,
        log_other_retention=others,
        class_offset=tuple(offsets),
        whole_error=None if whole_error is None else round(whole_error, _DECIMALS),
        log_error=round(log_error, _DECIMALS),
        num_probes=num_trials,
    )


def _floors(model: FusedAccuracy, drop: float, min_retention: float, other_share: float) -> Recovery:
    """Return the floors for an accuracy drop, found by bisection for each number of classes.

    Args:
        model: Model of the fused accuracy.
        drop: Allowed drop of accuracy, 0..1.
        min_retention: Smallest retention in any trial plan, below which no floor lies.
        other_share: Retention of a class on each other device, as a share of its largest on any device.
    """
    steepness = max(model.log_best_retention, _MIN_STEEPNESS)
    offsets = np.array(model.class_offset)
    needs = np.clip(np.exp(offsets / (steepness + 1)), _MIN_NEED, 1 / _MIN_NEED)
    # Errors that pruning may add, where both are joined as in `planner.rules.accuracy`.
    whole = model.whole_error or 0.0
    allowed = np.sqrt((whole + drop) ** 2 - whole**2)
    class_counts = np.arange(1, len(offsets) + 1)
    log_help = model.log_other_retention * np.log(1 + other_share * (len(offsets) / class_counts - 1))
    log_base = model.intercept + model.log_num_classes * np.log(class_counts) - log_help
    # Errors of each class where it is retained in full.
    unpruned = np.exp(log_base)[:, None] * np.exp(offsets)
    low, high = np.full(len(class_counts), min_retention), np.ones(len(class_counts))
    for _ in range(_BISECTION_STEPS):
        floor = (low + high) / 2
        errors = (unpruned * np.minimum(1.0, floor[:, None] * needs) ** -steepness).mean(axis=1)
        low, high = np.where(errors > allowed, floor, low), np.where(errors > allowed, high, floor)
    return Recovery(
        max_accuracy_drop=drop,
        by_count=tuple(high.round(_DECIMALS).tolist()),
        class_need=tuple(needs.round(_DECIMALS).tolist()),
    )
