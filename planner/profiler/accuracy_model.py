"""Recovery probes become a model of the fused accuracy, its error, and the retention floors.

The error of class c in a probe is modelled as `planner.rules.accuracy` says; counts of errors are
Poisson, so the model is a Poisson regression with a log link, its class offsets drawn to zero and
its weights kept from below it (more retained is never worse, more classes never better). How much
a narrow embed dim costs is one number more: a width that keeps the share rho of the embed dims'
importance is taken to retain rho^g, with the g that explains the probes best.

Floors reach the whole model's error plus the allowed drop, on the mean over classes, with the least
retention: with e_c = k_c r_c^-s the sum of all r_c is least where r_c goes with k_c^(1 / (s + 1)), so
a class that errs e times as much needs that much more. A device that serves n classes is taken to be
one of C / n equal ones, which retain of its classes what the probes' devices did of others'.

Legend: P probes, C classes, F features. `held` are the held-out images of each class, `counts` those answered wrongly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from planner.arrays import Floats
from planner.profiler.trial_plans import TrialPlan
from planner.rules.accuracy import Retained, features
from planner.schema import FusedAccuracy, Recovery

DROPS = (0.01, 0.02, 0.05, 0.1, 0.2)

_EXPONENTS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
# A probe that gets more than this share wrong has lost its way: it says nothing about small drops.
_COLLAPSED = 0.5
# How much a class must differ before it is believed to, in images; and what keeps a weight from running off.
_SHRINKAGE, _RIDGE = 8.0, 0.05
_MOST_EXPONENT = 3.0
# Probes that hardly show that less is worse must not make floors of nothing or everything.
_LEAST_STEEPNESS = 0.3
# The predicted share of errors of a probe that made none is compared with this many images wrong.
_LEAST_WRONG = 0.5
_LEAST_NEED = 0.5
_HALVINGS = 40
_DECIMALS = 4


@dataclass(frozen=True, eq=False)
class Evidence:
    """Probes, and what they are judged by."""

    probes: Sequence[TrialPlan]
    rho: Mapping[int, Floats]  # embed dim -> share of the embed dims' importance that it keeps, (C,)
    whole_error: float | None  # share of errors of the whole model on images it has not seen, if that is known


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a profile says of accuracy."""

    fused_accuracy: FusedAccuracy
    recovery: list[Recovery]
    embed_retention: dict[int, list[float]]


def calibrate(evidence: Evidence) -> Calibration:
    """Fit the model, find its error by leaving out each probe, and set the floors."""
    usable = [p for p in evidence.probes if np.dot(p.errors, p.images) < _COLLAPSED * sum(p.images)] or evidence.probes
    held = np.array([p.images for p in usable], dtype=float)  # (P, C)
    counts = np.array([p.errors for p in usable]) * held
    designs = {g: np.array([features(retained(p, evidence.rho, g)) for p in usable]) for g in _EXPONENTS}
    exponent = min(_EXPONENTS, key=lambda g: _deviance(_fit(designs[g], counts, held), designs[g], counts, held))
    design = designs[exponent]  # (P, C, F)
    model = _model(_fit(design, counts, held), evidence, _log_error(design, counts, held), len(usable))
    least = float(np.exp(-design[:, :, 1].max()))
    others = _others([retained(p, evidence.rho, exponent) for p in usable])
    return Calibration(
        fused_accuracy=model,
        recovery=[_floors(model, drop, least, others) for drop in DROPS],
        embed_retention={e: np.minimum(1.0, rho**exponent).round(6).tolist() for e, rho in evidence.rho.items()},
    )


def retained(probe: TrialPlan, rho: Mapping[int, Floats], exponent: float) -> Retained:
    """Return what a probe's devices retain of every class, if rho^exponent is what an embed dim retains."""
    shares = np.array(
        [
            np.array(units) * rho[device.embed_dim] ** exponent
            for device, units in zip(probe.devices, probe.unit_retention, strict=True)
        ]
    )
    serves = np.zeros(shares.shape, dtype=bool)
    for d, device in enumerate(probe.devices):
        serves[d, list(device.classes)] = True
    return Retained(shares, serves)


def _others(plans: Sequence[Retained]) -> float:
    """Return what each other device retains of a class, beside the one that retains most of it; the mean."""
    ratios = [
        (plan.shares.sum(axis=0) / plan.shares.max(axis=0) - 1).mean() / (len(plan.shares) - 1)
        for plan in plans
        if len(plan.shares) > 1
    ]
    return float(np.mean(ratios)) if ratios else 0.0


def _fit(design: Floats, counts: Floats, held: Floats) -> Floats:
    """Return intercept, weights (F,) and class offsets (C,) of the Poisson regression."""
    num_probes, num_classes, num_features = design.shape
    offsets = np.broadcast_to(np.eye(num_classes), (num_probes, num_classes, num_classes))
    terms = np.concatenate([np.ones((num_probes, num_classes, 1)), design, offsets], axis=2)
    flat, wrong = terms.reshape(-1, terms.shape[2]), counts.ravel()
    images = held.ravel()
    penalty = np.array([0.0, *[_RIDGE] * num_features, *[_SHRINKAGE] * num_classes])

    def loss(t: Floats) -> tuple[float, Floats]:
        exponent = np.minimum(flat @ t, _MOST_EXPONENT)
        expected = np.exp(exponent) * images
        value = float((expected - wrong * exponent).sum() + 0.5 * (penalty * t * t).sum())
        return value, np.asarray(flat.T @ (expected - wrong) + penalty * t)

    start = np.array([-2.0, *[1.0] * num_features, *[0.0] * num_classes])
    bounds = [(None, None), *[(0, None)] * num_features, *[(None, None)] * num_classes]
    return np.asarray(minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x)


def _errors(t: Floats, design: Floats) -> Floats:
    """Return the modelled share of errors, (..., C)."""
    num_features = design.shape[-1]
    exponent = t[0] + design @ t[1 : 1 + num_features] + t[1 + num_features :]
    return np.asarray(np.exp(np.minimum(exponent, 0.0)))


def _deviance(t: Floats, design: Floats, counts: Floats, held: Floats) -> float:
    expected = _errors(t, design) * held
    return float((expected - counts * np.log(expected)).sum())


def _log_error(design: Floats, counts: Floats, held: Floats) -> float:
    """Return the root mean square of ln(predicted / measured) errors, each probe predicted from the others."""
    if len(design) < 2:
        return 1.0
    logs = []
    for p in range(len(design)):
        others = np.arange(len(design)) != p
        predicted = _errors(_fit(design[others], counts[others], held[others]), design[p]) @ held[p]
        logs.append(np.log(predicted / max(counts[p].sum(), _LEAST_WRONG)))
    return float(np.sqrt(np.mean(np.square(logs))))


def _model(t: Floats, evidence: Evidence, log_error: float, num_probes: int) -> FusedAccuracy:
    intercept, log_num_classes, best, others, *offsets = t.round(_DECIMALS).tolist()
    return FusedAccuracy(
        intercept=intercept,
        log_num_classes=log_num_classes,
        log_best_retention=best,
        log_other_retention=others,
        class_offset=tuple(offsets),
        whole_error=None if evidence.whole_error is None else round(evidence.whole_error, _DECIMALS),
        log_error=round(log_error, _DECIMALS),
        num_probes=num_probes,
    )


def _floors(model: FusedAccuracy, drop: float, least: float, others: float) -> Recovery:
    """Return the floors for a drop, none below the least retention that was probed.

    Args:
        model: Of the fused accuracy.
        drop: What may be lost, 0..1.
        least: Retention.
        others: What each other device retains of a class, as a share of the most that any does.
    """
    steepness = max(model.log_best_retention, _LEAST_STEEPNESS)
    offsets = np.array(model.class_offset)
    needs = np.clip(np.exp(offsets / (steepness + 1)), _LEAST_NEED, 1 / _LEAST_NEED)
    # What pruning may add, where the errors of both are joined as `planner.rules.accuracy` joins them.
    whole = model.whole_error or 0.0
    allowed = np.sqrt((whole + drop) ** 2 - whole**2)
    counts = np.arange(1, len(offsets) + 1)
    helped = model.log_other_retention * np.log(1 + others * (len(offsets) / counts - 1))
    at_all = np.exp(model.intercept + model.log_num_classes * np.log(counts) - helped)[:, None] * np.exp(offsets)
    low, high = np.full(len(counts), least), np.ones(len(counts))
    for _ in range(_HALVINGS):
        floor = (low + high) / 2
        errors = (at_all * np.minimum(1.0, floor[:, None] * needs) ** -steepness).mean(axis=1)
        low, high = np.where(errors > allowed, floor, low), np.where(errors > allowed, high, floor)
    return Recovery(
        max_accuracy_drop=drop,
        by_count=tuple(high.round(_DECIMALS).tolist()),
        class_need=tuple(needs.round(_DECIMALS).tolist()),
    )
