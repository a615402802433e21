"""The predicted fused accuracy: by hand, as a property of any model, in every plan, and in the check."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.rules.accuracy import class_losses, mean_loss, predict_accuracy
from planner.rules.check import check
from planner.rules.retention import FleetRetention, fleet_retention
from planner.schema import AccuracyModel, Plan, PredictedAccuracy, Profile, SubModel
from planner.solver import solve
from tests.helpers.accuracy import losses_of, predictable, retained_of
from tests.helpers.goals import floored
from tests.helpers.pencil import ACCURACY_MODEL, fleet, profile
from tests.helpers.random_instances import random_profile

PROFILE = profile(accuracy_model=ACCURACY_MODEL)
MODEL = AccuracyModel.model_validate(ACCURACY_MODEL)
# Block 0: head 0 and group 0; block 1: head 1. Of a 0.3 + 0.1 + 0.1 = 0.5, of b 0.05 + 0.2 + 0.3 = 0.55.
SMALL = {"kept_heads": ((0,), (1,)), "kept_channel_groups": ((0,), ())}
ALL = {"kept_heads": ((0, 1), (0, 1)), "kept_channel_groups": ((0, 1), (0, 1))}
NOTHING = {"kept_heads": ((), ()), "kept_channel_groups": ((), ())}


def apart(rows: object) -> FleetRetention:
    """Return devices with these retentions (D, C) that keep different units, as far as there are any."""
    by_device = np.array(rows, dtype=float)
    return FleetRetention(by_device, np.minimum(1.0, by_device.sum(axis=0)))


# --- by hand


def test_retention_by_hand() -> None:
    """A class's kept share times the retention of the embed dim, whether the device serves the class or not."""
    one = SubModel(classes=("a",), embed_dim=8, **SMALL)
    two = SubModel(classes=("b",), embed_dim=4, **SMALL)
    got = fleet_retention([one, two], PROFILE)
    assert got.by_device.tolist() == [pytest.approx([0.5, 0.55]), pytest.approx([0.45, 0.275])]
    # Both keep the same units, so together no more than the wide one.
    assert got.union.tolist() == pytest.approx([0.5, 0.55])


def test_what_devices_retain_together_by_hand() -> None:
    """Width 4 retains 0.9 of a and 0.5 of b, 0.7 of a unit in the mean: head 0 of block 1 there adds to the wide one.

    It has 0.1 of a and 0.1 of b.
    """
    one = SubModel(classes=("a",), embed_dim=8, **SMALL)
    two = SubModel(classes=("b",), embed_dim=4, kept_heads=((0,), (0, 1)), kept_channel_groups=((0,), ()))
    heads = PROFILE.importance.heads
    added = [0.7 * heads[c][1][0] for c in (0, 1)]
    got = fleet_retention([one, two], PROFILE)
    assert got.union.tolist() == pytest.approx([0.5 + added[0], 0.55 + added[1]])
    # Alone, the narrow one retains no less than its own 0.9 of a.
    alone = fleet_retention([two], PROFILE)
    assert alone.union[0] == alone.by_device[0, 0] == pytest.approx(0.9 * (0.5 + heads[0][1][0]))


def test_precision_takes_its_share() -> None:
    """When int8 keeps nine tenths of a class, its retention is nine tenths."""
    with_int8 = profile(precision_retention={"int8": [0.9, 1.0]})
    sub_model = SubModel(classes=("a", "b"), embed_dim=8, precision="int8", **SMALL)
    assert fleet_retention([sub_model], with_int8).by_device[0].tolist() == pytest.approx([0.45, 0.55])


@pytest.mark.parametrize(("log_scale", "loss"), [(-1e15, 0.0), (1e15, 0.97)])
def test_losses_of_an_absurd_scale(log_scale: float, loss: float) -> None:
    """A file may hold any scale: the loss ends at none, or at all that the whole model gets right."""
    absurd = AccuracyModel.model_validate(ACCURACY_MODEL | {"log_scale": log_scale})
    one = SubModel(classes=("a", "b"), embed_dim=8, **SMALL)
    assert class_losses(absurd, fleet_retention([one], PROFILE)).tolist() == pytest.approx([loss, loss])


def test_losses_by_hand() -> None:
    """Of a 0.5 and 0.45 are kept, odds of 1 and 9/11; of b 0.55 and 0.275, odds of 11/9 and 11/29."""
    one = SubModel(classes=("a",), embed_dim=8, **SMALL)
    two = SubModel(classes=("b",), embed_dim=4, **SMALL)
    a = math.exp(-3 + 0.2) / math.hypot(1, 9 / 11)
    b = math.exp(-3 - 0.2) / math.hypot(11 / 9, 11 / 29)
    expected = [0.97 * z / (0.97 + z) for z in (a, b)]
    assert class_losses(MODEL, fleet_retention([one, two], PROFILE)).tolist() == pytest.approx(expected, abs=1e-12)
    predicted = predict_accuracy([one, two], PROFILE)
    assert predicted is not None
    loss = sum(expected) / 2
    assert (predicted.accuracy, predicted.loss) == pytest.approx((0.97 - loss, loss), abs=1e-6)
    # Of nine scores the last, 0.5, and the first, -0.4, leave out a tenth each.
    ends = (0.97 - loss - (loss + 0.005) * 0.5, 0.97 - loss + (loss + 0.005) * 0.4)
    assert (predicted.low, predicted.high) == pytest.approx(ends, abs=1e-6)
    assert predicted.epochs == 10


def test_what_all_lack_counts_beside_what_each_lacks() -> None:
    """With t of 2, of a twice the inverse odds of 0.5 are added, of b twice those of 0.55: clones add little."""
    model = MODEL.replace(union_weight=2.0)
    one = SubModel(classes=("a",), embed_dim=8, **SMALL)
    two = SubModel(classes=("b",), embed_dim=4, **SMALL)
    a = math.exp(-3 + 0.2) * (1 / math.hypot(1, 9 / 11) + 2 / 1)
    b = math.exp(-3 - 0.2) * (1 / math.hypot(11 / 9, 11 / 29) + 2 * 9 / 11)
    expected = [0.97 * z / (0.97 + z) for z in (a, b)]
    assert class_losses(model, fleet_retention([one, two], PROFILE)).tolist() == pytest.approx(expected, abs=1e-12)


def test_the_exponent_of_the_retention() -> None:
    """With k = 1/2, steepness 2 and a norm of order 1: odds of 0.25 are 0.5 / 0.75, of 0.64 they are 0.8 / 0.36."""
    model = MODEL.replace(retention_exponent=0.5, steepness=2.0, norm_order=1.0)
    z = math.exp(-3 + 0.2) / (0.5 / 0.75 + 0.8 / 0.36) ** 2
    assert class_losses(model, apart([[0.25, 1.0], [0.64, 0.0]])).tolist() == pytest.approx(
        [0.97 * z / (0.97 + z), 0.0], abs=1e-12
    )


def test_classes_count_by_their_images() -> None:
    """With nine tenths of the images, a class's loss counts nine tenths; one without images counts nothing."""
    retained = apart([[0.5, 0.55]])
    a, b = class_losses(MODEL, retained)
    for share in (0.9, 0.5, 1.0, 0.0):
        model = MODEL.replace(class_share=[share, 1 - share])
        assert mean_loss(model, retained) == pytest.approx(share * a + (1 - share) * b, abs=1e-12)


def test_no_more_can_be_lost_than_there_is() -> None:
    """Where nothing is kept, all of the whole model's accuracy is lost, however the shares are rounded."""
    sub_model = SubModel(classes=("a", "b"), embed_dim=8, **NOTHING)
    for share in ([0.5, 0.5], [0.5003, 0.5003]):
        of = profile(accuracy_model=ACCURACY_MODEL | {"log_scale": 2.0, "class_share": share})
        predicted = predict_accuracy([sub_model], of)
        assert predicted is not None
        assert (predicted.accuracy, predicted.low) == (0.0, 0.0)
        assert predicted.loss == pytest.approx(0.97, abs=1e-6)


def test_without_a_model_nothing_is_predicted() -> None:
    """A profile without an accuracy model predicts none, and its plans state none."""
    assert predict_accuracy([SubModel(classes=("a", "b"), embed_dim=8, **ALL)], profile()) is None
    assert solve(profile(), fleet(), floored()).predicted_accuracy is None


# --- properties of any model


SEEDS = st.integers(0, 10_000)


def drawn(seed: int) -> tuple[Profile, AccuracyModel, np.random.Generator]:
    """Return a random profile of 2 to 5 classes and two widths with a random accuracy model."""
    of = predictable(random_profile(seed, num_classes=2 + seed % 4, widths=(8, 4), penalties=seed % 2 == 0), seed)
    assert of.accuracy_model is not None
    return of, of.accuracy_model, np.random.default_rng(seed)


def sub_model_of(of: Profile, kept: set[tuple[int, int]], embed_dim: int = 8) -> SubModel:
    """Return a sub-model that keeps these units: (block, head), or (block, number of heads + channel group)."""
    H = of.num_heads
    heads = tuple(tuple(h for h in range(H) if (l, h) in kept) for l in range(of.depth))
    groups = tuple(
        tuple(g for g in range(len(block)) if (l, H + g) in kept) for l, block in enumerate(of.channel_groups)
    )
    return SubModel(classes=of.classes, embed_dim=embed_dim, kept_heads=heads, kept_channel_groups=groups)


def units_of(of: Profile) -> list[tuple[int, int]]:
    """Return all units of a profile."""
    return [(l, u) for l, block in enumerate(of.channel_groups) for u in range(of.num_heads + len(block))]


def prediction(of: Profile, *sub_models: SubModel) -> PredictedAccuracy:
    """Return the prediction for a plan of these sub-models."""
    found = predict_accuracy(sub_models, of)
    assert found is not None
    return found


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS)
def test_nothing_removed_loses_nothing(seed: int) -> None:
    """A plan with the whole model on a device has exactly its accuracy, without any doubt, whatever others do."""
    of, model, rng = drawn(seed)
    whole = sub_model_of(of, set(units_of(of)))
    other = sub_model_of(of, {u for u in units_of(of) if rng.random() < 0.5}, 4)
    accuracy = round(1 - model.whole_error, 6)
    for plan in ([whole], [whole, whole], [other, whole], [whole, other, other]):
        found = prediction(of, *plan)
        assert (found.loss, found.accuracy, found.low, found.high) == (0, accuracy, accuracy, accuracy)


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS)
def test_each_unit_kept_and_each_device_used_can_only_help(seed: int) -> None:
    """Units are kept one after the other, on two devices in turn: no class's loss ever grows, up to rounding."""
    of, model, rng = drawn(seed)
    kept: list[set[tuple[int, int]]] = [set(), set()]
    before = np.full(len(of.classes), np.inf)
    steps = [(d, units_of(of)[i]) for d in (0, 1) for i in range(len(units_of(of)))]
    for d, unit in [steps[i] for i in rng.permutation(len(steps))]:
        kept[d].add(unit)
        fleet = [sub_model_of(of, kept[0]), sub_model_of(of, kept[1], 4)]
        losses = class_losses(model, fleet_retention(fleet, of))
        assert (losses <= before + 1e-12).all()
        assert (class_losses(model, fleet_retention(fleet[:1], of)) >= losses - 1e-12).all()
        third = sub_model_of(of, {u for u in units_of(of) if rng.random() < 0.5}, 4)
        assert (class_losses(model, fleet_retention([*fleet, third], of)) <= losses + 1e-12).all()
        before = losses
    assert before.max() == 0


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS)
def test_a_device_that_retains_nothing_changes_nothing(seed: int) -> None:
    """Neither does the order of the devices."""
    of, model, rng = drawn(seed)
    rows = rng.random((3, len(of.classes)))
    losses = class_losses(model, apart(rows)).tolist()
    assert class_losses(model, apart(np.vstack([rows, np.zeros((2, rows.shape[1]))]))).tolist() == losses
    assert class_losses(model, apart(rows[::-1])).tolist() == pytest.approx(losses, abs=1e-12)
    kept = {u for u in units_of(of) if rng.random() < 0.5}
    alone = prediction(of, sub_model_of(of, kept))
    beside = prediction(of, sub_model_of(of, kept), sub_model_of(of, set()))
    assert (beside.accuracy, beside.loss, beside.low) == (alone.accuracy, alone.loss, alone.low)


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS)
def test_losses_are_those_of_the_formula(seed: int) -> None:
    """Against the formula written another way; some retentions are 0, some are whole."""
    of, model, rng = drawn(seed)
    retained = rng.choice([0.0, 1e-12, 0.5, 1.0, -1.0], (1 + seed % 5, len(of.classes)), p=[0.1, 0.05, 0.05, 0.1, 0.7])
    retained = np.where(retained < 0, rng.random(retained.shape), retained)
    union = np.maximum(rng.random(retained.shape[1]), retained.max(axis=0))
    expected = float(losses_of(model.model_dump(), retained, union))
    assert mean_loss(model, FleetRetention(retained, union)) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS)
def test_retentions_are_those_of_each_unit(seed: int) -> None:
    """Against sums written unit by unit, for sub-models of any units and widths."""
    of, _, rng = drawn(seed)
    sub_models = [
        sub_model_of(of, {u for u in units_of(of) if rng.random() < 0.5}, int(rng.choice([8, 4]))) for _ in range(3)
    ]
    rows, union = retained_of(of.model_dump(mode="json"), [s.model_dump(mode="json") for s in sub_models])
    got = fleet_retention(sub_models, of)
    assert got.by_device == pytest.approx(rows, abs=1e-9)
    assert got.union == pytest.approx(union, abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS)
def test_devices_that_keep_the_same_add_less(seed: int) -> None:
    """With the first one's units, a second device is worth no more than with others that retain as much."""
    of, model, rng = drawn(seed)
    row = rng.random((1, len(of.classes)))
    same = FleetRetention(np.vstack([row, row]), row[0])
    different = FleetRetention(np.vstack([row, row]), np.minimum(1.0, 2 * row[0]))
    if model.union_weight:
        assert (class_losses(model, different) < class_losses(model, same)).all()
    else:
        assert class_losses(model, different).tolist() == class_losses(model, same).tolist()


# --- in plans


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Return a plan of a profile with an accuracy model."""
    return solve(PROFILE, fleet(), floored(min_retention=0.2))


def test_a_plan_states_its_prediction(plan: Plan) -> None:
    """The solver writes the predicted accuracy into the plan, and the check agrees."""
    assert plan.predicted_accuracy == predict_accuracy(plan.assignments, PROFILE)
    assert check(plan, PROFILE, fleet()) == []


@pytest.mark.parametrize("key", ["accuracy", "loss", "low", "high", "epochs"])
def test_a_wrong_prediction_is_noticed(plan: Plan, key: str) -> None:
    """A plan that states any number of the prediction otherwise is invalid."""
    data = plan.model_dump()
    data["predicted_accuracy"][key] -= 0.001
    right = plan.predicted_accuracy
    assert check(Plan.model_validate(data), PROFILE, fleet()) == [
        f"predicted_accuracy.{key} must be {getattr(right, key)}, got {data['predicted_accuracy'][key]}"
    ]


def test_a_prediction_without_a_model_is_noticed() -> None:
    """A plan must not state an accuracy that its profile does not predict."""
    made = solve(profile(), fleet(), floored())
    claimed = Plan.model_validate(made.model_dump() | {"predicted_accuracy": {"accuracy": 0.99}})
    assert check(claimed, profile(), fleet()) == ["predicted_accuracy must be null, since the profile predicts none"]


@pytest.mark.parametrize("goal", [{}, {"max_accuracy_drop": 1.0}, {"objective": "accuracy", "max_latency_ms": 9}])
def test_a_goal_of_accuracy_without_a_model_is_noticed(goal: dict[str, object]) -> None:
    """A plan cannot be for an accuracy that its profile does not predict."""
    made = solve(profile(), fleet(), floored()).model_dump()
    found = check(Plan.model_validate(made | {"goal": goal}), profile(), fleet())
    assert "the goal must be a min_retention, since the profile predicts no accuracy" in found


def test_a_plan_that_loses_more_than_its_goal_allows_is_noticed(plan: Plan) -> None:
    """Against the predicted loss, or with a confidence the interval's end: with nine scores, 0.9 means the last."""
    assert plan.predicted_accuracy is not None
    loss = plan.predicted_accuracy.loss
    certain = 0.97 - plan.predicted_accuracy.low
    assert 0 < loss < certain

    def found(**goal: float) -> list[str]:
        data = plan.model_dump() | {"goal": goal}
        return check(Plan.model_validate(data), PROFILE, fleet())

    assert found(max_accuracy_drop=loss + 1e-6) == []
    assert found(max_accuracy_drop=loss - 1e-6) == [f"the predicted loss must be at most {loss - 1e-6:g}, got {loss:g}"]
    assert found(max_accuracy_drop=certain + 2e-6, accuracy_confidence=0.9) == []
    assert found(max_accuracy_drop=certain - 2e-6, accuracy_confidence=0.9) == [
        f"the predicted loss must be at most {certain - 2e-6:g} with confidence 0.9, got {loss:g}"
    ]
