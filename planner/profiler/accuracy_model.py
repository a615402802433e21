"""Accuracy model of `planner.rules.accuracy`, fitted to trial plans.

The loss of a trial plan is the difference of its errors to the whole model's on the same images. Its variance is that
of the images on which only one of them errs, and of what no model of retentions knows of a plan: a spread in proportion
to the loss, itself estimated from the residuals. So a trial plan without any error is information like any other. The
parameters are the penalised least squares of the standardised residuals: weak priors hold those of which the trial
plans say nothing. One parameter more is fitted: a width that retains rho right after recovery in closed form retains
rho^g. Of a few exponents k in the odds, that one is taken which predicts trial plans best that it was not fitted to.

Legend: P trial plans, D devices, C classes.

Source:
    Iteratively reweighted least squares: Green, doi:10.1111/j.2517-6161.1984.tb01288.x.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from planner.arrays import Bools, Floats
from planner.profiler.trial_plans import TrialPlan
from planner.rules.accuracy import RESOLUTION, class_losses
from planner.schema import AccuracyModel

# Candidates for the exponent k of the retention in its odds.
_RETENTION_EXPONENTS = (1.0, 0.5, 0.25)
# Prior means and deviations of a, ln s, ln q and ln g: about those of the models that this was made with.
_PRIOR_MEANS = np.array([-2.5, 0.0, 0.4, 0.0])
_PRIOR_DEVIATIONS = np.array([1.5, 0.4, 0.6, 0.4])
_BOUNDS = np.array([[-12.0, -1.5, -1.6, -2.0], [2.0, 2.0, 2.5, 1.2]])
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
    rho: Mapping[int, Floats]  # embed dim -> what it retains after recovery in closed form, (C,)
    images: Floats  # (C,), calibration images of each class
    whole_errors: Floats  # (C,), those that the whole model misclassifies
    epochs: float

    @property
    def whole_error(self) -> float:
        """Error of the whole model, as a share."""
        return float(self.whole_errors.sum() / self.images.sum())


@dataclass(frozen=True, eq=False)
class FittedAccuracy:
    """Accuracy model, and the exponent of what embed dims retain that was fitted with it."""

    model: AccuracyModel
    embed_exponent: float

    def embed_retention(self, rho: Mapping[int, Floats]) -> dict[int, list[float]]:
        """Return the retention of each class at each embed dim, (C,)."""
        return {e: np.minimum(1.0, share**self.embed_exponent).round(6).tolist() for e, share in rho.items()}


def fit_accuracy_model(evidence: Evidence) -> FittedAccuracy:
    """Fit the model, and predict each trial plan by a fit of the others.

    Without trial plans it is the priors' model.
    """
    fits = [_Fit(evidence, k) for k in _RETENTION_EXPONENTS]
    best = min(fits, key=lambda fit: fit.held_out_error)
    return FittedAccuracy(best.model(), float(np.exp(best.parameters[3])))


class _Fit:
    """Fit with one exponent k of the retention."""

    def __init__(self, evidence: Evidence, retention_exponent: float) -> None:
        self.evidence, self.retention_exponent = evidence, retention_exponent
        trials = evidence.trials
        num_classes, num_devices = len(evidence.images), max((len(t.devices) for t in trials), default=1)
        # Devices that a trial plan lacks retain nothing.
        self.units = np.zeros((len(trials), num_devices, num_classes))
        self.log_rho = np.zeros(self.units.shape)
        for p, trial in enumerate(trials):
            self.units[p, : len(trial.devices)] = trial.unit_retention
            rho = np.array([evidence.rho[d.embed_dim] for d in trial.devices])
            self.log_rho[p, : len(trial.devices)] = np.log(np.maximum(rho, _MIN_RHO))
        best = (np.exp(self.log_rho) * self.units).max(axis=1).mean(axis=1)
        self.min_retention = float(best.min(initial=1.0))
        num_images = evidence.images.sum()
        self.share = evidence.images / num_images
        self.losses = np.array([t.num_lost - t.num_gained for t in trials]) / num_images
        # One pair more than was seen: none seen does not mean that there are none.
        self.variances = np.array([t.num_lost + t.num_gained + 1 for t in trials]) / num_images**2
        self.offsets = np.zeros(num_classes)
        everyone = np.ones(len(trials), dtype=bool)
        self.parameters, self.spread = _PRIOR_MEANS, _SPREAD
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
                return np.concatenate([misfit, (x - _PRIOR_MEANS) / _PRIOR_DEVIATIONS])

            parameters = least_squares(residuals, np.clip(parameters, *_BOUNDS), bounds=tuple(_BOUNDS)).x
            expected = self._expected(parameters)[chosen]
            # The method of moments.
            excess = ((losses - expected) ** 2 - variances).sum() / max((expected**2).sum(), 1e-12)
            spread = float(np.clip(np.sqrt(max(excess, 0.0)), _MIN_SPREAD, _MAX_SPREAD))
        return parameters, spread

    def _expected(self, parameters: Floats) -> Floats:
        """Return the modelled losses of the trial plans, (P,)."""
        return np.asarray(self._expected_by_class(parameters) @ self.share)

    def _expected_by_class(self, parameters: Floats) -> Floats:
        retained = self.units * np.exp(np.exp(parameters[3]) * self.log_rho)
        return class_losses(self.model(parameters), np.minimum(retained, 1.0))

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
        log_scale, log_steepness, log_order, _ = self.parameters if parameters is None else parameters
        model = AccuracyModel.model_construct(
            log_scale=float(log_scale),
            steepness=float(np.exp(log_steepness)),
            norm_order=float(np.exp(log_order)),
            retention_exponent=self.retention_exponent,
            class_offset=tuple(self.offsets.tolist()),
            class_share=tuple(self.share.tolist()),
            whole_error=self.evidence.whole_error,
            epochs=self.evidence.epochs,
            scores=tuple(self.scores.tolist()) if final else (0.0,),
            min_retention=self.min_retention,
            max_devices=max((len(t.devices) for t in self.evidence.trials), default=1),
        )
        return _rounded(model) if final else model


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
