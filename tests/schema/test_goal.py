"""Goals: the accuracy drop that follows from what is given and what is not."""

import json
from pathlib import Path

import pytest

from planner.errors import InputError
from planner.schema import Goal, read_document
from planner.schema.goal import GoalFile
from tests.helpers.common import Json

IN_TIME: Json = {"objective": "accuracy", "max_latency_ms": 5}


@pytest.mark.parametrize(
    ("data", "drop"),
    [
        ({}, 0.02),
        ({"objective": "energy", "max_latency_ms": 5}, 0.02),
        ({"objective": "devices"}, 0.02),
        ({"max_accuracy_drop": None}, 0.02),
        ({"max_accuracy_drop": 0.05}, 0.05),
        ({"max_accuracy_drop": 0}, 0.0),
        ({"max_accuracy_drop": 0.05, "accuracy_confidence": 0.9}, 0.05),
        ({"accuracy_confidence": 0.9}, 0.02),
        # The highest accuracy within the time, whatever it is, or with a limit as well.
        (IN_TIME, None),
        (IN_TIME | {"max_accuracy_drop": 0.05}, 0.05),
        (IN_TIME | {"min_retention": 0.3}, None),
        # A floor takes the drop's place. Older files hold the default drop beside it.
        ({"min_retention": 0.3}, None),
        ({"min_retention": 0.0}, None),
        ({"min_retention": 0.3, "max_accuracy_drop": None}, None),
        ({"min_retention": 0.3, "max_accuracy_drop": 0.02}, None),
        (IN_TIME | {"min_retention": 0.3, "max_accuracy_drop": 0.02}, None),
    ],
)
def test_the_accuracy_drop(data: Json, drop: float | None) -> None:
    """The drop is 0.02 unless another one is given, a floor takes its place, or accuracy is the objective alone."""
    assert Goal.model_validate(data).accuracy_drop == drop
    Path("goal.json").write_text(json.dumps(data))
    assert read_document(Path("goal.json"), GoalFile).accuracy_drop == drop


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"max_accuracy_drop": 1.5}, "max_accuracy_drop must be <= 1, got 1.5"),
        ({"max_accuracy_drop": -0.1}, "max_accuracy_drop must be >= 0, got -0.1"),
        # A coin's toss is the least, and no number of trial plans shows more than 99 in 100.
        ({"accuracy_confidence": 0.4}, "accuracy_confidence must be >= 0.5, got 0.4"),
        ({"accuracy_confidence": 1}, "accuracy_confidence must be <= 0.99, got 1"),
    ],
)
def test_wrong_goals(data: Json, sentence: str) -> None:
    """The message names the key, the rule and the value."""
    Path("goal.json").write_text(json.dumps(data))
    with pytest.raises(InputError) as caught:
        read_document(Path("goal.json"), GoalFile)
    assert str(caught.value) == f"goal.json: {sentence}."
