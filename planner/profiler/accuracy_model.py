"""Accuracy model of `planner.rules.accuracy`, fitted to trial plans.

The loss of a trial plan is the difference of its errors to the whole model's on the same images. Its variance is that
of the images on which only one of them errs, and of what no model of retentions knows of a plan: a spread in proportion
to the loss, itself estimated from the residuals. So a trial plan without any error is information like any other. The
parameters are the penalised least squares of the standardised residuals: weak priors hold those of which the trial
plans say nothing. What widths retain is fitted with them: where rho is retained right after recovery in closed form, it
is rho^(g e^d), with g for all widths and a d near 0 for each. Of a few exponents k in the odds, that one is taken which
predicts trial plans best that it was not fitted to.

Legend: P trial plans, D devices, C classes, U units (heads and channel groups), W widths but for the full one.

Source:
    Iteratively reweighted least squares: Green, doi:10.1111/j.2517-6161.1984.tb01288.x.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from planner.arrays import Bools, Floats
from planner.profiler.trial_plans import TrialPlan
from planner.rules.accuracy import RESOLUTION, class_losses
from planner.rules.retention import FleetRetention
from planner.schema import AccuracyModel

# Candidates for the exponent k of the retention in its odds.
_RETENTION_EXPONENTS = (1.0, 0.5, 0.25)
# Prior mean and deviation, least and largest value of a, ln s, ln q, ln t and ln g, and of each d: about those of the
# models that this was made with.
_COMMON = np.array(
    [
        (-2.5, 1.5, -12.0, 2.0),
        (0.0, 0.4, -1.5, 2.0),
        (0.4, 0.6, -1.6, 2.5),
        (-1.0, 1.0, -7.0, 3.0),
        (0.0, 0.4, -2.0, 1.2),
    ]
)
_WIDTH = np.array([(0.0, 0.5, -1.5, 1.5)])
# Relative changes of the sum of squares, and of parameters, at which a fit ends.
_FTOL, _XTOL = 1e-6, 1e-5
_ROUNDS = 4
# Spread of losses around the model, as a share of the loss: of the first round, and its limits.
_SPREAD, _MIN_SPREAD, _MAX_SPREAD = 0.3, 0.1, 1.0
# Errors that a class of mean difficulty is taken to have had beside those seen, and the largest offset.
_PRIOR_ERRORS, _MAX_OFFSET = 4.0, 1.5
_DECIMALS = 4
# A width that retains nothing has no logarithm.
_MIN_RHO = 1e-9


@dataclass(frozen=True, eq=False)
class Evidence:
    """Measurements that the accuracy model is fitted to."""

    trials: Sequence[TrialPlan]
    shares: Floats  # (C, U), share of each unit in the importance of each class
    rho: Mapping[int, Floats]  # embed dim -> what it retains after recovery in closed form, (C,)
    images: Floats  # (C,), calibration images of each class
    whole_errors: Floats  # (C,), those that the whole model misclassifies
    epochs: float

    @property
    def whole_error(self) -> float:
        """Error of the whole model, as a share."""
        return float(self.whole_errors.sum() / self.images.sum())


@dataclass(frozen=True)
class FittedAccuracy:
    """Accuracy model, and the exponent of what each embed dim retains that was fitted with it."""

    model: AccuracyModel
    embed_exponents: Mapping[int, float]

    def embed_retention(self, rho: Mapping[int, Floats]) -> dict[int, list[float]]:
        """Return the retention of each class at each embed dim, (C,): no more than at any wider one."""
        least, retention = np.ones(1), {}
        for e in sorted(rho, reverse=True):
            least = np.minimum(least, rho[e] ** self.embed_exponents[e])
            retention[e] = least.round(6).tolist()
        return {e: retention[e] for e in rho}


def fit_accuracy_model(evidence: Evidence) -> FittedAccuracy:
    """Fit the model, and predict each trial plan by a fit of the others.

    Without trial plans it is the priors' model.
    """
    fits = [_Fit(evidence, k) for k in _RETENTION_EXPONENTS]
    best = min(fits, key=lambda fit: fit.held_out_error)
    return FittedAccuracy(best.model(), best.embed_exponents())


class _Fit:
    """Fit with one exponent k of the retention."""

    def __init__(self, evidence: Evidence, retention_exponent: float) -> None:
        self.evidence, self.retention_exponent = evidence, retention_exponent
        self.widths = sorted(evidence.rho, reverse=True)
        self.log_rho_of_widths = np.log(np.maximum([evidence.rho[e] for e in self.widths], _MIN_RHO))  # (1 + W, C)
        table = [_COMMON, *[_WIDTH] * (len(self.widths) - 1)]
        self._prior_means, self._prior_deviations, *self._bounds = np.vstack(table).T
        trials = evidence.trials
        num_classes, num_devices = len(evidence.images), max((len(t.devices) for t in trials), default=1)
        # Devices that a trial plan lacks retain nothing.
        self.units = np.zeros((len(trials), num_devices, num_classes))
        self.log_rho = np.full(self.units.shape, math.log(_MIN_RHO))
        self.width_index = np.zeros(self.units.shape[:2], dtype=int)
        # Share of the units whose widest device has this width, (P, 1 + W, C).
        self.widest = np.zeros((len(trials), len(self.widths), num_classes))
        for p, trial in enumerate(trials):
            kept = trial.kept(evidence.shares.shape[1])
            widths = [self.widths.index(d.embed_dim) for d in trial.devices]
            self.units[p, : len(widths)] = kept @ evidence.shares.T
            rho = np.array([evidence.rho[d.embed_dim] for d in trial.devices])
            self.log_rho[p, : len(widths)] = np.log(np.maximum(rho, _MIN_RHO))
            self.width_index[p, : len(widths)] = widths
            self.widest[p] = _widest(kept, widths, len(self.widths)) @ evidence.shares.T
        best = (np.exp(self.log_rho) * self.units).max(axis=1).mean(axis=1)
        self.min_retention = float(best.min(initial=1.0))
        num_images = evidence.images.sum()
        self.share = evidence.images / num_images
        self.losses = np.array([t.num_lost - t.num_gained for t in trials]) / num_images
        # One pair more than was seen: none seen does not mean that there are none.
        self.variances = np.array([t.num_lost + t.num_gained + 1 for t in trials]) / num_images**2
        self.gained = sum(t.num_gained for t in trials) / max(1, len(trials)) / num_images
        self.offsets = np.zeros(num_classes)
        everyone = np.ones(len(trials), dtype=bool)
        self.parameters, self.spread = self._prior_means, _SPREAD
        if trials:
            self._fit(everyone)
            self.offsets = self._class_offsets()
            self._fit(everyone)
        self.scores = self._held_out_scores()
        self.held_out_error = float(np.mean(np.log1p(np.square(self.scores))))

    def _fit(self, chosen: Bools) -> None:
        self.parameters, self.spread = self._fitted(chosen, self.parameters)

    def _fitted(self, chosen: Bools, start: Floats) -> tuple[Floats, float]:
        """Return the parameters fitted to some of the trial plans, and the spread around them."""
        parameters, spread = start, _SPREAD
        losses, variances = self.losses[chosen], self.variances[chosen]
        for _ in range(_ROUNDS):
            expected = self._expected(parameters)[chosen]
            deviations = np.sqrt(variances + (spread * expected) ** 2)

            def residuals(x: Floats, deviations: Floats = deviations) -> Floats:
                misfit = (losses - self._expected(x)[chosen]) / deviations
                return np.concatenate([misfit, (x - self._prior_means) / self._prior_deviations])

            start = np.clip(parameters, *self._bounds)
            parameters = least_squares(residuals, start, bounds=tuple(self._bounds), ftol=_FTOL, xtol=_XTOL).x
            expected = self._expected(parameters)[chosen]
            # The method of moments.
            excess = ((losses - expected) ** 2 - variances).sum() / max((expected**2).sum(), 1e-12)
            spread = float(np.clip(np.sqrt(max(excess, 0.0)), _MIN_SPREAD, _MAX_SPREAD))
        return parameters, spread

    def _expected(self, parameters: Floats) -> Floats:
        """Return the modelled losses of the trial plans, (P,)."""
        return np.asarray(self._expected_by_class(parameters) @ self.share)

    def _expected_by_class(self, parameters: Floats) -> Floats:
        exponents = self._exponents(parameters)
        of_width = np.exp(exponents[self.width_index][:, :, None] * self.log_rho)
        by_device = np.minimum(self.units * of_width, 1.0)
        union = np.exp(exponents[:, None] * self.log_rho_of_widths).mean(axis=1) @ self.widest
        return class_losses(self.model(parameters), FleetRetention(by_device, np.maximum(union, by_device.max(axis=1))))

    def _exponents(self, parameters: Floats) -> Floats:
        """Return the exponents of what the widths retain, (1 + W,), the full width first."""
        return np.asarray(np.exp(parameters[len(_COMMON) - 1] + np.concatenate([[0.0], parameters[len(_COMMON) :]])))

    def embed_exponents(self) -> dict[int, float]:
        """Return the exponent of what each embed dim retains."""
        return dict(zip(self.widths, self._exponents(self.parameters).tolist(), strict=True))

    def _class_offsets(self) -> Floats:
        """Return how much more than the mean class each class loses, as a logarithm, (C,)."""
        num_trials = len(self.losses)
        errors = np.array([t.errors for t in self.evidence.trials])
        seen = (errors - self.evidence.whole_errors).sum(axis=0) / num_trials
        expected = self._expected_by_class(self.parameters).mean(axis=0) * self.evidence.images
        # All trial plans err on the same images, so they count like one of them.
        ratios = (np.maximum(seen, 0) + _PRIOR_ERRORS) / (expected + _PRIOR_ERRORS)
        return np.asarray(np.clip(np.log(ratios), -_MAX_OFFSET, _MAX_OFFSET))

    def _held_out_scores(self) -> Floats:
        """Return the error of each trial plan's loss as predicted from the others, relative to it, (P,)."""
        num_trials = len(self.losses)
        if num_trials < 2:
            return np.array([-1.0, 1.0])
        predicted = np.empty(num_trials)
        for p in range(num_trials):
            others = np.arange(num_trials) != p
            predicted[p] = self._expected(self._fitted(others, self.parameters)[0])[p]
        return np.asarray((self.losses - predicted) / (predicted + RESOLUTION))

    def model(self, parameters: Floats | None = None) -> AccuracyModel:
        """Return the accuracy model of these parameters; of the fitted ones unless given."""
        final = parameters is None
        log_scale, log_steepness, log_order, log_weight = (self.parameters if parameters is None else parameters)[:4]
        model = AccuracyModel.model_construct(
            log_scale=float(log_scale),
            steepness=float(np.exp(log_steepness)),
            norm_order=float(np.exp(log_order)),
            union_weight=float(np.exp(log_weight)),
            retention_exponent=self.retention_exponent,
            class_offset=tuple(self.offsets.tolist()),
            class_share=tuple(self.share.tolist()),
            whole_error=self.evidence.whole_error,
            epochs=self.evidence.epochs,
            scores=tuple(self.scores.tolist()) if final else (0.0,),
            num_images=int(self.evidence.images.sum()),
            gained=float(self.gained),
            min_retention=self.min_retention,
            max_devices=max((len(t.devices) for t in self.evidence.trials), default=1),
        )
        return _rounded(model) if final else model


def _widest(kept: Bools, widths: Sequence[int], num_widths: int) -> Floats:
    """Return 1 for each unit at the width of the widest device that keeps it, (1 + W, U).

    Args:
        kept: Units that each device keeps, (D, U).
        widths: Index of each device's width, the full one first.
        num_widths: Number of widths, 1 + W.
    """
    at = np.where(kept, np.array(widths)[:, None], num_widths).min(axis=0)
    return np.asarray(at == np.arange(num_widths)[:, None], dtype=float)


def _rounded(model: AccuracyModel) -> AccuracyModel:
    """Return the model as a file holds it, validated."""
    fields: dict[str, Any] = {}
    for key, value in model.model_dump().items():
        if isinstance(value, tuple):
            # Significant digits: the shares of ten thousand classes sum to 1, too.
            fields[key] = tuple(float(f"{x:.6g}") for x in value)
        else:
            fields[key] = round(value, _DECIMALS) if isinstance(value, float) else value
    return AccuracyModel.model_validate(fields)
