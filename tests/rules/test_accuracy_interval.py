"""The interval of a predicted accuracy: its ranks by hand, its rate on generated data, its limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.rules.accuracy import loss_quantile, mean_loss, predict_accuracy, stays_within
from planner.rules.retention import FleetRetention
from planner.schema import AccuracyModel, SubModel
from tests.helpers.accuracy import predictable
from tests.helpers.pencil import ACCURACY_MODEL, profile
from tests.helpers.random_instances import random_profile


def alone(rows: object) -> FleetRetention:
    """Return devices with these retentions (D, C) that retain no more together than one of them."""
    by_device = np.array(rows, dtype=float)
    return FleetRetention(by_device, by_device.max(axis=0))


MODEL = AccuracyModel.model_validate(ACCURACY_MODEL)
HALF = alone([[0.5, 0.5]])


def score_of(model: AccuracyModel, retained: FleetRetention, share: float) -> float:
    """Return the score of a quantile: how far it is from the predicted loss, relative to that and half a point."""
    loss = mean_loss(model, retained)
    return (loss_quantile(model, retained, share) - loss) / (loss + 0.005)


@pytest.mark.parametrize(
    ("share", "rank"),
    # Of 19 scores: the smallest rank with at least this share of twenty, below a half the largest with at most.
    [(0.5, 10), (0.51, 11), (0.55, 11), (0.56, 12), (0.9, 18), (0.95, 19), (0.99, 19), (0.1, 2), (0.12, 2), (0.01, 1)],
)
def test_ranks_by_hand(share: float, rank: int) -> None:
    """Scores are ranked whatever their order; 0.55 x 20 is 11, not a little more."""
    model = MODEL.replace(scores=[(i * 7 % 19 + 1) / 10 for i in range(19)])
    assert score_of(model, HALF, share) == pytest.approx(rank / 10, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000))
def test_a_higher_confidence_is_a_larger_loss(seed: int) -> None:
    """Ends rise with the confidence, hold the prediction's range, and are never more than all, whatever the scores."""
    of = predictable(random_profile(seed, num_classes=3), seed)
    rng = np.random.default_rng(seed)
    model = of.accuracy_model
    assert model is not None
    model = model.replace(scores=(rng.standard_t(1, 1 + seed % 40) * 10.0 ** rng.integers(-2, 3)).tolist())
    model = model.replace(num_images=int(rng.choice([0, 1, 30, 10_000])), gained=float(rng.uniform(0, 0.9)))
    retained = alone(rng.random((1 + seed % 6, 3)) * rng.choice([1e-6, 0.1, 1.0]))
    ends = [loss_quantile(model, retained, share) for share in np.linspace(0.01, 0.99, 50)]
    assert ends == sorted(ends)
    assert np.isfinite(ends).all()
    assert -model.whole_error <= min(ends) <= max(ends) <= 1 - model.whole_error
    confident = of.replace(accuracy_model=model)
    found = predict_accuracy(
        [SubModel(classes=of.classes, embed_dim=8, kept_heads=((), ()), kept_channel_groups=((), ()))], confident
    )
    assert found is not None
    assert 0 <= found.low <= found.accuracy <= found.high <= 1


@pytest.mark.parametrize(("count", "share"), [(9, 0.9), (19, 0.9), (19, 0.5), (32, 0.9), (31, 0.75)])
def test_the_interval_holds_at_the_stated_rate(count: int, share: float) -> None:
    """The error of a new plan, drawn like those of the trial plans, stays within at least as often as is said.

    For exchangeable scores that rate is the rank divided by their number and one.
    """
    rng = np.random.default_rng(count)
    loss, held, draws = mean_loss(MODEL, HALF), 0, 4000
    for scores in rng.gamma(2.0, 0.3, (draws, count + 1)) - 0.5:
        model = MODEL.model_copy(update={"scores": tuple(scores[1:].tolist())})
        held += loss + (loss + 0.005) * scores[0] <= loss_quantile(model, HALF, share)
    exact = np.ceil(round(share * (count + 1), 6)) / (count + 1)
    assert exact >= share
    # Four standard deviations.
    assert held / draws == pytest.approx(exact, abs=4 * (exact * (1 - exact) / draws) ** 0.5)


def test_the_chance_of_the_images_by_hand() -> None:
    """Of 400 images with a loss l and 2 % of gains, l + 0.04 of them differ: sqrt((l + 0.04) / 400) of error.

    It is added to the scores' in squares, on both sides of the median, with 1.2816 deviations to the tenth.
    """
    model = MODEL.replace(num_images=400, gained=0.02)
    loss = mean_loss(model, HALF)
    by_chance = 1.2816 * ((loss + 0.04) / 400) ** 0.5
    for share, score in ((0.9, 0.5), (0.1, -0.4)):
        beyond = loss_quantile(model, HALF, share) - loss
        assert beyond == pytest.approx(np.sign(score) * np.hypot(score * (loss + 0.005), by_chance), abs=1e-5)
    assert loss_quantile(model, HALF, 0.5) == pytest.approx(loss)
    # Where next to nothing is lost, one image may differ.
    tiny = model.replace(log_scale=-20.0)
    by_chance = 1.2816 * ((1 / 400 + 0.04) / 400) ** 0.5
    assert loss_quantile(tiny, HALF, 0.9) == pytest.approx(np.hypot(0.5 * 0.005, by_chance), abs=1e-5)


def test_the_interval_holds_the_loss_on_other_images() -> None:
    """Losses counted on few images miss the loss on all others within the interval four times in five."""
    rng, num_images, held = np.random.default_rng(5), 300, []
    for _ in range(600):
        true_loss = float(rng.uniform(0.01, 0.05))
        # Three images of a hundred are gained; the model was fitted to what was counted.
        lost, gained = rng.binomial(num_images, 0.03 + true_loss), rng.binomial(num_images, 0.03)
        counted = (lost - gained) / num_images
        if counted <= 0:
            continue
        scale = np.log(counted / (1 - counted / 0.97))
        model = MODEL.replace(log_scale=scale, class_offset=[0.0, 0.0], scores=[0.0], num_images=num_images)
        model = model.replace(gained=0.03)
        assert mean_loss(model, HALF) == pytest.approx(counted)
        low, high = (loss_quantile(model, HALF, share) for share in (0.1, 0.9))
        held.append(low <= true_loss <= high)
    assert len(held) > 500
    assert 0.72 < np.mean(held) < 0.88


@pytest.mark.parametrize(
    ("retained", "factor"),
    [
        # Trial plans kept 0.2 at least, on up to three devices.
        ([[0.2, 0.2]], 1.0),
        ([[0.3, 0.1]], 1.0),
        ([[0.1, 0.1], [0.3, 0.3]], 1.0),
        ([[0.5, 0.5]] * 6, 1.0),
        # Half as much as was tried: 1 + 2 (2 - 1); three times as many devices as were: 1 + 9 / 6 - 1.
        ([[0.1, 0.1]], 3.0),
        ([[0.5, 0.5]] * 9, 1.5),
        ([[0.1, 0.1]] * 9, 3.5),
    ],
)
def test_the_interval_widens_beyond_what_was_tried(retained: list[list[float]], factor: float) -> None:
    """On both sides, by the mean over classes of what is kept where it is most, and by the number of devices."""
    found = alone(retained)
    # Far from all or nothing, where the interval ends.
    model = MODEL.replace(log_scale=-6.0, whole_error=0.3)
    assert [score_of(model, found, share) for share in (0.9, 0.1)] == pytest.approx([0.5 * factor, -0.4 * factor])


def test_the_interval_is_never_wider_than_all() -> None:
    """Nothing kept at all, on a hundred devices, with wild scores: between no accuracy and all."""
    wild = profile(accuracy_model=ACCURACY_MODEL | {"scores": [-1e6, 1e6]})
    nothing = SubModel(classes=("a", "b"), embed_dim=8, kept_heads=((), ()), kept_channel_groups=((), ()))
    found = predict_accuracy([nothing] * 100, wild)
    assert found is not None
    assert (found.low, found.high) == (0.0, 1.0)


def test_a_goal_with_a_confidence_is_kept_by_the_intervals_end() -> None:
    """Without one, by the prediction itself; both to six decimals."""
    of = profile(accuracy_model=ACCURACY_MODEL)
    loss = mean_loss(MODEL, HALF)
    for confidence, limit in ((None, loss), (0.9, loss + 0.5 * (loss + 0.005)), (0.5, loss)):
        assert stays_within(of, HALF, limit + 1e-6, confidence)
        assert not stays_within(of, HALF, limit - 1e-6, confidence)
    whole = alone([[1.0, 0.1], [0.1, 1.0]])
    assert stays_within(of, whole, 0.0, None)
    assert stays_within(of, whole, 0.0, 0.99)
