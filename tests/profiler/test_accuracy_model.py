"""Accuracy models fitted to trial plans whose losses a known model made: it is the predictions that must be found."""

import dataclasses

import numpy as np
import pytest

from planner.arrays import Floats
from planner.profiler.accuracy_model import Evidence, FittedAccuracy, fit_accuracy_model
from planner.profiler.trial_plans import TrialPlan
from planner.rules.accuracy import loss_quantile, mean_loss
from planner.rules.retention import FleetRetention
from tests.helpers.accuracy import losses_of
from tests.helpers.trials import Truth

DIGITS = Truth(num_classes=10, images_per_class=27)


def predicted(fitted: FittedAccuracy, truth: Truth, trials: list[TrialPlan]) -> list[float]:
    """Return the losses that a fit predicts for trial plans."""
    return [mean_loss(fitted.model, retained_by(fitted, truth, trial)) for trial in trials]


def retained_by(fitted: FittedAccuracy, truth: Truth, trial: TrialPlan) -> FleetRetention:
    """Return what a trial plan retains if widths retain what a fit says."""
    return FleetRetention(*truth.retained(trial, fitted.embed_retention(truth.rho)))


def relative_errors(fitted: FittedAccuracy, truth: Truth, seed: int = 99) -> Floats:
    """Return how far predictions for new plans are from the expected losses, relative to these and half a point."""
    fresh = truth.trials(20, seed, exact=True)
    expected = np.array([truth.loss(trial) for trial in fresh])
    return np.asarray(np.abs(np.array(predicted(fitted, truth, fresh)) - expected) / (expected + 0.005))


@pytest.mark.parametrize(
    ("truth", "count"),
    [
        (DIGITS, 24),
        (dataclasses.replace(DIGITS, retention_exponent=1.0, norm_order=3.0, steepness=1.6), 20),
        (dataclasses.replace(DIGITS, images_per_class=400, embed_exponents=((32, 0.6),)), 16),
        (Truth(num_classes=1, images_per_class=300), 8),
        (Truth(num_classes=2, images_per_class=150), 8),
        (Truth(num_classes=100, images_per_class=20), 12),
    ],
    ids=["ten", "steep", "many-images", "one-class", "two-classes", "hundred"],
)
def test_predictions_are_found(truth: Truth, count: int) -> None:
    """From noisy counts, new plans are predicted to within a quarter of their loss on the mean, and none badly."""
    fitted = fit_accuracy_model(truth.evidence(truth.trials(count, seed=1)))
    errors = relative_errors(fitted, truth)
    assert errors.mean() < 0.25
    assert errors.max() < 0.6
    assert len(fitted.model.scores) == count
    assert fitted.model.whole_error == pytest.approx(truth.evidence([]).whole_error, abs=1e-4)
    assert sum(fitted.model.class_share) == pytest.approx(1, abs=1e-5)


def test_exact_counts_are_predicted_well() -> None:
    """Of ten thousand images a class, without any spread, all but a tenth of each loss is explained."""
    truth = dataclasses.replace(DIGITS, images_per_class=10_000)
    fitted = fit_accuracy_model(truth.evidence(truth.trials(24, seed=1, exact=True)))
    assert relative_errors(fitted, truth).max() < 0.1
    assert np.abs(fitted.model.scores).max() < 0.15
    # Which classes are harder is found, too.
    offsets = np.log(truth.losses(np.full((1, 10), 0.8), np.full(10, 0.8)))
    assert np.corrcoef(offsets, fitted.model.class_offset)[0, 1] > 0.9


def test_the_model_is_that_of_the_rules() -> None:
    """Predictions of the model in the profile are the formula's, written another way."""
    fitted, fresh = fit_accuracy_model(DIGITS.evidence(DIGITS.trials(8, seed=1))), DIGITS.trials(8, seed=2)
    for trial, loss in zip(fresh, predicted(fitted, DIGITS, fresh), strict=True):
        retained = retained_by(fitted, DIGITS, trial)
        expected = losses_of(fitted.model.model_dump(), retained.by_device, retained.union)
        assert loss == pytest.approx(float(expected), abs=1e-9)


def test_a_width_of_its_own_exponent_is_found() -> None:
    """Of three widths one keeps more than recovery in closed form says, one less; narrower ones never keep more."""
    truth = Truth(10, 400, embed_exponents=((48, 0.5), (32, 2.5)), narrow=0.8, spread=0.1)
    fitted = fit_accuracy_model(truth.evidence(truth.trials(32, seed=1)))
    kept = fitted.embed_retention(truth.rho)
    assert kept[64] == [1.0] * 10
    assert kept[48][0] == pytest.approx(0.9**0.5, abs=0.025)
    assert kept[32][0] == pytest.approx(0.8**2.5, abs=0.08)
    assert relative_errors(fitted, truth).mean() < 0.2
    turned = dataclasses.replace(fitted, embed_exponents={64: 1.0, 48: 3.0, 32: 1.0})
    assert turned.embed_retention(truth.rho)[32] == turned.embed_retention(truth.rho)[48] == [0.729] * 10


def test_a_fit_is_the_same_every_time() -> None:
    """To the last digit, whatever was fitted between."""
    trials = DIGITS.trials(8, seed=1)
    first = fit_accuracy_model(DIGITS.evidence(trials))
    fit_accuracy_model(DIGITS.evidence(DIGITS.trials(8, seed=2)))
    again = fit_accuracy_model(DIGITS.evidence(trials))
    assert again == first


def with_counts(trials: list[TrialPlan], num_lost: int, num_gained: int) -> list[TrialPlan]:
    """Return trial plans that lost and gained so many images, of all classes alike, beside one error of the whole."""
    errors = max(0, round(1 + (num_lost - num_gained) / 10))
    return [t.replace(errors=(errors,) * 10, num_lost=num_lost, num_gained=num_gained) for t in trials]


@pytest.mark.parametrize("counts", [(0, 0), (0, 5), (3, 3), (0, 10)])
def test_trial_plans_that_lose_nothing(counts: tuple[int, int]) -> None:
    """Plans as good as the whole model, or better, are predicted to lose next to nothing, and nothing breaks."""
    trials = with_counts(DIGITS.trials(10, seed=1), *counts)
    fitted = fit_accuracy_model(DIGITS.evidence(trials))
    losses = predicted(fitted, DIGITS, trials)
    assert 0 <= min(losses) <= np.mean(losses) < 0.004
    assert np.isfinite(fitted.model.scores).all()
    # What was gained is in the scores: by a fit of the others, each was predicted to lose a little.
    assert np.mean(fitted.model.scores) <= 0
    for trial in trials:
        retained = retained_by(fitted, DIGITS, trial)
        low, high = (loss_quantile(fitted.model, retained, share) for share in (0.1, 0.9))
        assert -0.05 <= low <= high < 0.02


def test_trial_plans_that_lose_everything() -> None:
    """Where all is lost at any retention, predictions say so, and stay below all there is."""
    trials = [t.replace(errors=(27,) * 10, num_lost=260, num_gained=0) for t in DIGITS.trials(10, seed=1)]
    fitted = fit_accuracy_model(DIGITS.evidence(trials))
    losses = predicted(fitted, DIGITS, trials)
    assert np.mean(losses) > 0.5
    assert max(losses) <= 1 - fitted.model.whole_error


def test_importance_that_is_noise() -> None:
    """Where retentions say nothing of losses, predictions are about the mean, and the interval is wide."""
    rng = np.random.default_rng(3)

    def shuffled(count: int, seed: int) -> list[TrialPlan]:
        trials = DIGITS.trials(count, seed)
        units = DIGITS.num_units
        return [
            t.replace(kept_units=[sorted(rng.permutation(units)[: rng.integers(4, units)].tolist()) for _ in t.devices])
            for t in trials
        ]

    trials = shuffled(20, 1)
    fitted = fit_accuracy_model(DIGITS.evidence(trials))
    measured = np.array([(t.num_lost - t.num_gained) / 270 for t in trials])
    losses = np.array(predicted(fitted, DIGITS, trials))
    assert losses.mean() == pytest.approx(measured.mean(), rel=0.5)
    assert np.abs(fitted.model.scores).mean() > 0.5
    held = []
    for trial in shuffled(60, 2):
        retained = retained_by(fitted, DIGITS, trial)
        low, high = (loss_quantile(fitted.model, retained, share) for share in (0.1, 0.9))
        held.append(low <= (trial.num_lost - trial.num_gained) / 270 <= high)
    assert np.mean(held) > 0.6


@pytest.mark.parametrize("truth", [DIGITS, dataclasses.replace(DIGITS, spread=0.5)], ids=["narrow", "wide"])
def test_the_interval_holds_new_trial_plans(truth: Truth) -> None:
    """Four of five new plans are within it, counted images' chance included: it is not overfitted."""
    fitted = fit_accuracy_model(truth.evidence(truth.trials(20, seed=1)))
    held = []
    for trial in truth.trials(100, seed=2):
        retained = retained_by(fitted, truth, trial)
        low, high = (loss_quantile(fitted.model, retained, share) for share in (0.1, 0.9))
        held.append(low <= (trial.num_lost - trial.num_gained) / 270 <= high)
    assert 0.65 < np.mean(held) < 0.97


def test_scores_are_of_trial_plans_left_out() -> None:
    """The score of a trial plan is how badly the others predict it, which is worse than how a fit to all does."""
    trials = DIGITS.trials(6, seed=1)
    wild = [*trials[:-1], trials[-1].replace(errors=(20,) * 10, num_lost=190, num_gained=0)]
    evidence = DIGITS.evidence(wild)
    fitted = fit_accuracy_model(evidence)
    retained = retained_by(fitted, DIGITS, wild[-1])
    inside = (190 / 270 - mean_loss(fitted.model, retained)) / (mean_loss(fitted.model, retained) + 0.005)
    assert fitted.model.scores[-1] > 1.2 * inside > 0


def test_one_trial_plan_and_none() -> None:
    """None gives the prior; one moves it; in both cases the interval is as wide as the prediction itself."""
    none = fit_accuracy_model(DIGITS.evidence([]))
    assert none.model.scores == (-1.0, 1.0)
    assert (none.model.min_retention, none.model.max_devices) == (1.0, 1)
    assert none.embed_exponents == {64: 1.0, 32: 1.0}
    (trial,) = DIGITS.trials(1, seed=1)
    lossy = trial.replace(errors=(9,) * 10, num_lost=80, num_gained=0)
    one = fit_accuracy_model(DIGITS.evidence([lossy]))
    assert one.model.scores == (-1.0, 1.0)
    before, after = (predicted(fitted, DIGITS, [trial])[0] for fitted in (none, one))
    assert abs(after - 80 / 270) < abs(before - 80 / 270)
    assert one.model.max_devices == len(trial.devices)


def test_a_class_without_calibration_images() -> None:
    """It counts nothing, and is taken to be like the others."""
    trials = [t.replace(errors=(*t.errors[:9], 0)) for t in DIGITS.trials(8, seed=1)]
    images = np.array([27.0] * 9 + [0.0])
    fitted = fit_accuracy_model(Evidence(trials, DIGITS.shares, DIGITS.rho, images, np.round(0.05 * images), 0.0))
    assert fitted.model.class_share[-1] == 0
    assert fitted.model.class_offset[-1] == 0
    assert fitted.model.epochs == 0


def test_a_width_that_retains_nothing() -> None:
    """A plan of devices that keep nothing loses all; a fit takes it like any other."""
    trials = DIGITS.trials(8, seed=1)
    evidence = dataclasses.replace(DIGITS.evidence(trials), rho={64: np.ones(10), 32: np.zeros(10)})
    fitted = fit_accuracy_model(evidence)
    assert np.isfinite(fitted.model.scores).all()
    assert fitted.embed_retention(evidence.rho) == {64: [1.0] * 10, 32: [0.0] * 10}
