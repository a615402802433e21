"""Recipes refuse tasks that they cannot do, and split their budgets."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from planner.errors import InputError
from planner.network.recipes.devit import devit
from planner.network.recipes.recovery_task import split_epochs
from planner.network.training import TrainingTask


def test_devit_wants_a_teacher_with_the_same_tokens() -> None:
    """Relations are between tokens, so a teacher of 17 tokens does not fit a sub-model of 10."""

    def network(num_tokens: int) -> SimpleNamespace:
        return SimpleNamespace(shape=SimpleNamespace(num_tokens=num_tokens))

    def never(tasks: Sequence[TrainingTask]) -> None:
        pytest.fail("nothing must be trained")

    task: Any = SimpleNamespace(teacher=network(17), parts=[SimpleNamespace(device="pi", sub_model=network(10))])
    with pytest.raises(InputError, match="the teacher must have 10 tokens, as pi has, got 17; name another `teacher`"):
        devit(task, train=never)


@pytest.mark.parametrize(
    ("epochs", "share", "least", "expected"),
    [
        (0, 0.5, 2, (0, 0)),
        (0.5, 0.5, 2, (0.5, 0)),
        (2, 0.5, 2, (2, 0)),
        (3, 0.5, 2, (2, 1)),
        (10, 0.5, 2, (5, 5)),
        (0.5, 0.5, 0, (0.25, 0.25)),
        (3, 2 / 3, 0, (2, 1)),
        (1, 2 / 3, 0, (2 / 3, 1 / 3)),
    ],
)
def test_a_budget_is_split(epochs: float, share: float, least: float, expected: tuple[float, float]) -> None:
    """A share of the epochs comes first, or all of them up to the least; the rest is what is left."""
    assert split_epochs(epochs, share, least) == pytest.approx(expected)
