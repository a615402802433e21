"""Recipes refuse tasks that they cannot do."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from planner.errors import InputError
from planner.network.recipes.devit import devit
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
