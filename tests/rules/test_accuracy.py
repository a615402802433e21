"""The predicted fused accuracy: by hand, in every plan, and checked."""

import math

import pytest

from planner.rules.accuracy import class_errors, predicted_accuracy, retained_by
from planner.rules.check import check
from planner.schema import Goal, Plan, SubModel
from planner.solver import solve
from tests.helpers.pencil import fleet, profile

# ln e = -4 + o_c + 0.5 ln n - 2 ln best - 0.3 ln(all / best)
MODEL = {
    "intercept": -4.0,
    "log_num_classes": 0.5,
    "log_best_retention": 2.0,
    "log_other_retention": 0.3,
    "class_offset": [0.2, -0.2],
    "whole_error": 0.03,
    "log_error": 0.25,
    "num_probes": 16,
}
PROFILE = profile(fused_accuracy=MODEL)
# Block 0: head 0 and group 0; block 1: head 1. Of a 0.3 + 0.1 + 0.1 = 0.5, of b 0.05 + 0.2 + 0.3 = 0.55.
SMALL = {"kept_heads": ((0,), (1,)), "kept_channel_groups": ((0,), ())}
ALL = {"kept_heads": ((0, 1), (0, 1)), "kept_channel_groups": ((0, 1), (0, 1))}


def test_what_is_retained_by_hand() -> None:
    """A class's share of what is kept, times what the embed dim leaves, whether the device serves it or not."""
    one = SubModel(classes=("a",), embed_dim=8, **SMALL)
    two = SubModel(classes=("b",), embed_dim=4, **SMALL)
    got = retained_by([one, two], PROFILE)
    assert got.shares.tolist() == pytest.approx([pytest.approx([0.5, 0.55]), pytest.approx([0.45, 0.275])])
    assert got.serves.tolist() == [[True, False], [False, True]]


def test_precision_takes_its_share() -> None:
    """Where int8 keeps nine tenths of a class, its retention is nine tenths."""
    with_int8 = profile(fused_accuracy=MODEL, precision_retention={"int8": [0.9, 1.0]})
    sub_model = SubModel(classes=("a", "b"), embed_dim=8, precision="int8", **SMALL)
    assert retained_by([sub_model], with_int8).shares[0].tolist() == pytest.approx([0.45, 0.55])


def test_the_errors_by_hand() -> None:
    """Class a is best kept where it is served, 0.5 of 0.95 in all; b where it is not, 0.55 of 0.825."""
    one = SubModel(classes=("a",), embed_dim=8, **SMALL)
    two = SubModel(classes=("b",), embed_dim=4, **SMALL)
    got = class_errors(PROFILE.fused_accuracy, retained_by([one, two], PROFILE))
    a = math.exp(-4 + 0.2) * 0.5**-2 * (0.95 / 0.5) ** -0.3
    b = math.exp(-4 - 0.2) * 0.55**-2 * (0.825 / 0.55) ** -0.3
    assert got.tolist() == pytest.approx([a, b])


def test_the_best_serving_device_counts_the_classes() -> None:
    """A class on two devices has the number of classes of the one that retains most of it."""
    large = SubModel(classes=("a",), embed_dim=8, **ALL)
    small = SubModel(classes=("a", "b"), embed_dim=8, **SMALL)
    got = class_errors(PROFILE.fused_accuracy, retained_by([small, large], PROFILE))
    a = math.exp(-4 + 0.2) * 1.5**-0.3
    b = math.exp(-4 - 0.2) * 2**0.5 * 1.55**-0.3
    assert got.tolist() == pytest.approx([a, b])


def test_the_accuracy_by_hand() -> None:
    """Both kinds of error are joined by their squares; exp(0.25) - 1 of all is uncertain."""
    sub_model = SubModel(classes=("a", "b"), embed_dim=8, **ALL)
    errors = [math.exp(-4 + o) * 2**0.5 for o in (0.2, -0.2)]
    got = predicted_accuracy([sub_model], PROFILE)
    assert got is not None
    error = sum(math.hypot(e, 0.03) for e in errors) / 2
    assert got.accuracy == pytest.approx(1 - error, abs=1e-6)
    assert got.error == pytest.approx(error * (math.exp(0.25) - 1), abs=1e-6)


def test_without_the_whole_models_error_pruning_errs_alone() -> None:
    """Where the card does not say what the whole model errs, what pruning adds is all."""
    unknown = profile(fused_accuracy=MODEL | {"whole_error": None})
    got = predicted_accuracy([SubModel(classes=("a", "b"), embed_dim=8, **ALL)], unknown)
    assert got is not None
    assert got.accuracy == pytest.approx(1 - sum(math.exp(-4 + o) * 2**0.5 for o in (0.2, -0.2)) / 2, abs=1e-6)


def test_nothing_probed_nothing_predicted() -> None:
    """A profile without such a model predicts no accuracy, and its plans promise none."""
    assert predicted_accuracy([SubModel(classes=("a", "b"), embed_dim=8, **ALL)], profile()) is None
    assert solve(profile(), fleet(), Goal(min_retention=0.2)).predicted_accuracy is None


def test_errors_are_never_more_than_all() -> None:
    """However bad it looks, no more than every image is wrong."""
    hopeless = profile(fused_accuracy=MODEL | {"intercept": 9.0})
    got = predicted_accuracy([SubModel(classes=("a", "b"), embed_dim=8, **SMALL)], hopeless)
    assert got is not None
    assert got.accuracy == 0.0
    assert got.error == pytest.approx(math.hypot(1, 0.03) * (math.exp(0.25) - 1), abs=1e-6)


@pytest.fixture(scope="module")
def plan() -> Plan:
    """Return a plan of a profile that predicts."""
    return solve(PROFILE, fleet(), Goal(min_retention=0.2))


def test_a_plan_says_it_and_the_check_confirms(plan: Plan) -> None:
    """What the solver writes is what its sub-models are predicted to reach."""
    assert plan.predicted_accuracy == predicted_accuracy(plan.assignments, PROFILE)
    assert check(plan, PROFILE, fleet()) == []


@pytest.mark.parametrize("key", ["accuracy", "error"])
def test_a_wrong_prediction_is_noticed(plan: Plan, key: str) -> None:
    """A plan that promises more accuracy, or more certainty, than its profile does is invalid."""
    data = plan.model_dump()
    data["predicted_accuracy"][key] += 0.001
    problems = check(Plan.model_validate(data), PROFILE, fleet())
    assert len(problems) == 1
    assert "predicted_accuracy must be" in problems[0]


def test_a_prediction_without_a_model_is_noticed() -> None:
    """A plan cannot promise what its profile does not predict."""
    made = solve(profile(), fleet(), Goal(min_retention=0.2))
    claimed = Plan.model_validate(made.model_dump() | {"predicted_accuracy": {"accuracy": 0.99, "error": 0.0}})
    assert check(claimed, profile(), fleet()) == ["predicted_accuracy must be null, since the profile predicts none"]
