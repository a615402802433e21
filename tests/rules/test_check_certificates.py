"""Rules of the check about the objective, its bound, gap and status, and the latency limit, on plans made on paper."""

import math
from typing import Any

import pytest

from planner.errors import InputError
from planner.schema import Goal, Profile
from tests.helpers.common import Json
from tests.helpers.paper_plans import INT8, complains, lossy, paper, precise
from tests.helpers.pencil import ACCURACY_MODEL, profile


def energy_goal(**more: Any) -> Json:
    """Return a goal of minimal energy within a second."""
    return {"objective": "energy", "max_latency_ms": 1000, **more}


def predictable(of: Profile) -> Profile:
    """Return the profile with the pencil's accuracy model."""
    return of.replace(accuracy_model=ACCURACY_MODEL)


def at_int8() -> Json:
    """Return the prediction for class a at 0.8, odds of 4, and b at 0.5, odds of 1, with scores of -0.4 and 0.5."""
    losses = [0.97 * z / (0.97 + z) for z in (math.exp(-2.8) / 4, math.exp(-3.2))]
    loss = sum(losses) / 2
    accuracy, low, high = (0.97 - loss - score * (loss + 0.005) for score in (0.0, 0.5, -0.4))
    rounded = {"accuracy": accuracy, "loss": loss, "low": low, "high": high}
    return {key: round(value, 6) for key, value in rounded.items()} | {"epochs": 10.0}


ACCURATE: Json = {"objective": "accuracy", "max_latency_ms": 1000}
AT_INT8 = at_int8()
# 2.5 W x 29 us on `near`.
PROVEN: Json = {"objective_value": 0.0725, "objective_bound": 0.0725, "gap": 0.0, "status": "optimal"}


def test_each_objective_has_its_value_and_bound() -> None:
    """Energy and devices are minimised, accuracy maximised: the bound is on the other side of the value."""
    assert paper({"near": "ab"}, energy_goal(), **PROVEN) == []
    assert paper({"near": "ab"}, energy_goal(), **open_at(0.0725, 0.029, 0.6)) == []
    assert paper({"near": "a", "far": "b"}, {"objective": "devices"}, **open_at(2, 1, 0.5)) == []
    half: Json = {"near__retention": {"a": 0.8, "b": 0.5}, **INT8}
    gap = (0.97 - AT_INT8["accuracy"]) / AT_INT8["accuracy"]
    certificate = open_at(AT_INT8["accuracy"], 0.97, gap) | {"predicted_accuracy": AT_INT8}
    assert paper({"near": "ab"}, ACCURATE, precise("int8"), predictable(lossy()), **half, **certificate) == []
    assert paper({"near": "ab"}, ACCURATE, of=predictable(profile()), **WHOLE) == []


def open_at(value: float, bound: float, gap: float) -> Json:
    """Return the certificate of a plan that is not proven optimal."""
    return {"objective_value": value, "objective_bound": bound, "gap": gap, "status": "feasible"}


# Nothing removed loses nothing.
WHOLE: Json = open_at(0.97, 0.97, 0.0) | {
    "status": "optimal",
    "predicted_accuracy": {"accuracy": 0.97, "loss": 0.0, "low": 0.97, "high": 0.97, "epochs": 10.0},
}


@pytest.mark.parametrize(
    ("changes", "patterns"),
    [
        (
            {"objective_value": 0.07},
            [r"objective_value must be 0\.0725 for objective 'energy', got 0\.07"],
        ),
        (
            {"objective_value": None},
            [r"objective_value must be 0\.0725 for objective 'energy', got None"],
        ),
        (
            {"objective_bound": 0.08},
            [
                r"objective_bound must be no worse than objective_value 0\.0725, got 0\.08",
                r"gap must be 0\.103\d+, got 0\.0",
                r"status must be 'feasible' at objective 0\.0725 and bound 0\.08, got 'optimal'",
            ],
        ),
        (
            {"objective_bound": 0.029},
            [
                r"gap must be 0\.6\d*, got 0\.0",
                r"status must be 'feasible' at objective 0\.0725 and bound 0\.029, got 'optimal'",
            ],
        ),
        ({"gap": 0.5}, [r"gap must be 0\.0, got 0\.5"]),
        ({"status": "feasible"}, [r"status must be 'optimal' at objective 0\.0725 and bound 0\.0725, got 'feasible'"]),
    ],
    ids=str,
)
def test_a_wrong_certificate_is_noticed(changes: Json, patterns: list[str]) -> None:
    """Value, bound, gap and status of an energy are recomputed."""
    complains(paper({"near": "ab"}, energy_goal(), **PROVEN | changes), *patterns)


def test_the_bound_is_given_beside_the_value() -> None:
    """An energy needs a bound beside its value; a latency has none beside its own."""
    violations = paper({"near": "ab"}, energy_goal(), **PROVEN | {"objective_bound": None})
    assert "objective_bound must be given beside objective_value, got None" in violations
    violations = paper({"near": "ab"}, {}, objective_value=2195.0, objective_bound=2195.0)
    assert "objective_value must be None for objective 'latency', got 2195.0" in violations
    assert "objective_bound must be given beside objective_value, got 2195.0" in violations


def test_the_bound_of_an_accuracy_is_above_it() -> None:
    """A maximised objective is bounded from above."""
    below = WHOLE | open_at(0.97, 0.485, 0.5)
    complains(
        paper({"near": "ab"}, ACCURATE, of=predictable(profile()), **below),
        r"objective_bound must be no worse than objective_value 0\.97, got 0\.485",
    )


def test_the_value_of_devices_is_their_number() -> None:
    """The number of devices in use is counted anew."""
    complains(
        paper({"near": "a", "far": "b"}, {"objective": "devices"}, **open_at(1, 1, 0.5)),
        r"objective_value must be 2 for objective 'devices', got 1\.0",
    )


def test_the_value_of_accuracy_is_the_predicted_one() -> None:
    """At int8 class b keeps 0.5 and class a 0.8; the whole model's accuracy is not the plan's."""
    complains(
        paper(
            {"near": "ab"},
            ACCURATE,
            precise("int8"),
            predictable(lossy()),
            **INT8,
            near__retention={"a": 0.8, "b": 0.5},
            **open_at(0.97, 0.97, 0.97 / AT_INT8["accuracy"] - 1) | {"predicted_accuracy": AT_INT8},
        ),
        rf"objective_value must be {AT_INT8['accuracy']} for objective 'accuracy', got 0\.97",
    )


@pytest.mark.parametrize("objective", ["latency", "accuracy", "energy", "devices"])
def test_the_latency_limit_holds_with_every_objective(objective: str) -> None:
    """1100 + 29 + 1032 + 34 = 2195 us."""
    value: Json = {
        "latency": {},
        "accuracy": WHOLE,
        "energy": PROVEN,
        "devices": open_at(1, 1, 0.0) | {"status": "optimal"},
    }[objective]
    of = predictable(profile()) if objective == "accuracy" else profile()
    assert paper({"near": "ab"}, {"objective": objective, "max_latency_ms": 2.195}, of=of, **value) == []
    complains(
        paper({"near": "ab"}, {"objective": objective, "max_latency_ms": 2.194}, of=of, **value),
        r"latency must be at most 2\.194 ms, got 2\.195 ms",
    )


def test_the_goal_of_these_tests_is_a_goal() -> None:
    """The objectives accuracy and energy need a latency limit."""
    for objective in ("accuracy", "energy"):
        with pytest.raises(InputError, match=f"objective '{objective}' must have max_latency_ms beside it, got none"):
            Goal(objective=objective)
