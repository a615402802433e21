"""The predicted fused accuracy: by hand, in every plan, and in the check."""

import math

import pytest

from planner.rules.accuracy import class_errors, fleet_retention, predict_accuracy
from planner.rules.check import check
from planner.schema import FusedAccuracy, Goal, Plan, SubModel
from planner.solver import solve
from tests.helpers.pencil import FUSED_ACCURACY, fleet, profile

PROFILE = profile(fused_accuracy=FUSED_ACCURACY)
MODEL = FusedAccuracy.model_validate(FUSED_ACCURACY)
# Block 0: head 0 and group 0; block 1: head 1. Of a 0.3 + 0.1 + 0.1 = 0.5, of b 0.05 + 0.2 + 0.3 = 0.55.
SMALL = {"kept_heads": ((0,), (1,)), "kept_channel_groups": ((0,), ())}
ALL = {"kept_heads": ((0, 1), (0, 1)), "kept_channel_groups": ((0, 1), (0, 1))}


def test_retention_by_hand() -> None:
    """A class's kept share times the retention of the embed dim, whether the device serves the class or not."""
    one = SubModel(classes=("a",), embed_dim=8, **SMALL)
    two = SubModel(classes=("b",), embed_dim=4, **SMALL)
    got = fleet_retention([one, two], PROFILE)
    assert got.shares.tolist() == pytest.approx([pytest.approx([0.5, 0.55]), pytest.approx([0.45, 0.275])])
    assert got.serves.tolist() == [[True, False], [False, True]]


def test_precision_takes_its_share() -> None:
    """When int8 keeps nine tenths of a class, its retention is nine tenths."""
    with_int8 = profile(fused_accuracy=FUSED_ACCURACY, precision_retention={"int8": [0.9, 1.0]})
    sub_model = SubModel(classes=("a", "b"), embed_dim=8, precision="int8", **SMALL)
    assert fleet_retention([sub_model], with_int8).shares[0].tolist() == pytest.approx([0.45, 0.55])


def test_the_errors_by_hand() -> None:
    """Class a is best retained where it is served, 0.5 of 0.95 in all; b where it is not, 0.55 of 0.825."""
    one = SubModel(classes=("a",), embed_dim=8, **SMALL)
    two = SubModel(classes=("b",), embed_dim=4, **SMALL)
    got = class_errors(MODEL, fleet_retention([one, two], PROFILE))
    a = math.exp(-4 + 0.2) * 0.5**-2 * (0.95 / 0.5) ** -0.3
    b = math.exp(-4 - 0.2) * 0.55**-2 * (0.825 / 0.55) ** -0.3
    assert got.tolist() == pytest.approx([a, b])


def test_the_best_serving_device_counts_the_classes() -> None:
    """A class on two devices counts with the number of classes of the device that retains it best."""
    large = SubModel(classes=("a",), embed_dim=8, **ALL)
    small = SubModel(classes=("a", "b"), embed_dim=8, **SMALL)
    got = class_errors(MODEL, fleet_retention([small, large], PROFILE))
    a = math.exp(-4 + 0.2) * 1.5**-0.3
    b = math.exp(-4 - 0.2) * 2**0.5 * 1.55**-0.3
    assert got.tolist() == pytest.approx([a, b])


def test_the_accuracy_by_hand() -> None:
    """Both kinds of error add up as squares, and the relative uncertainty is exp(0.25) - 1."""
    sub_model = SubModel(classes=("a", "b"), embed_dim=8, **ALL)
    errors = [math.exp(-4 + o) * 2**0.5 for o in (0.2, -0.2)]
    got = predict_accuracy([sub_model], PROFILE)
    assert got is not None
    error = sum(math.hypot(e, 0.03) for e in errors) / 2
    assert got.accuracy == pytest.approx(1 - error, abs=1e-6)
    assert got.error == pytest.approx(error * (math.exp(0.25) - 1), abs=1e-6)


def test_without_the_whole_models_error_pruning_errs_alone() -> None:
    """Without a known error of the whole model, the error of pruning is all."""
    unknown = profile(fused_accuracy=FUSED_ACCURACY | {"whole_error": None})
    got = predict_accuracy([SubModel(classes=("a", "b"), embed_dim=8, **ALL)], unknown)
    assert got is not None
    assert got.accuracy == pytest.approx(1 - sum(math.exp(-4 + o) * 2**0.5 for o in (0.2, -0.2)) / 2, abs=1e-6)


def test_without_a_model_nothing_is_predicted() -> None:
    """A profile without an accuracy model predicts none, and its plans state none."""
    assert predict_accuracy([SubModel(classes=("a", "b"), embed_dim=8, **ALL)], profile()) is None
    assert solve(profile(), fleet(), Goal(min_retention=0.2)).predicted_accuracy is None


def test_errors_are_never_more_than_all() -> None:
    """The predicted error of a class is at most 1."""
    hopeless = profile(fused_accuracy=FUSED_ACCURACY | {"intercept": 9.0})
    got = predict_accuracy([SubModel(classes=("a", "b"), embed_dim=8, **SMALL)], hopeless)
    assert got is not None
    assert got.accuracy == 0.0
    assert got.error == pytest.approx(math.hypot(1, 0.03) * (math.exp(0.25) - 1), abs=1e-6)


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Return a plan of a profile with an accuracy model."""
    return solve(PROFILE, fleet(), Goal(min_retention=0.2))


def test_a_plan_states_its_prediction(plan: Plan) -> None:
    """The solver writes the predicted accuracy into the plan, and the check agrees."""
    assert plan.predicted_accuracy == predict_accuracy(plan.assignments, PROFILE)
    assert check(plan, PROFILE, fleet()) == []


@pytest.mark.parametrize("key", ["accuracy", "error"])
def test_a_wrong_prediction_is_noticed(plan: Plan, key: str) -> None:
    """A plan that states a higher accuracy, or a lower uncertainty, than predicted is invalid."""
    data = plan.model_dump()
    data["predicted_accuracy"][key] += 0.001
    problems = check(Plan.model_validate(data), PROFILE, fleet())
    assert len(problems) == 1
    assert "predicted_accuracy must be" in problems[0]


def test_a_prediction_without_a_model_is_noticed() -> None:
    """A plan must not state an accuracy that its profile does not predict."""
    made = solve(profile(), fleet(), Goal(min_retention=0.2))
    claimed = Plan.model_validate(made.model_dump() | {"predicted_accuracy": {"accuracy": 0.99, "error": 0.0}})
    assert check(claimed, profile(), fleet()) == ["predicted_accuracy must be null, since the profile predicts none"]
