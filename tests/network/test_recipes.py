"""Recipes refuse what they cannot teach."""

from types import SimpleNamespace

import pytest

from planner.errors import InputError
from planner.network.recipes.devit import devit


def test_devit_wants_a_teacher_with_the_same_tokens() -> None:
    """Relations are between tokens: a teacher of 17 tokens says nothing about a sub-model's 10."""

    def network(num_tokens: int) -> SimpleNamespace:
        return SimpleNamespace(shape=SimpleNamespace(num_tokens=num_tokens))

    job = SimpleNamespace(teacher=network(17), parts=[SimpleNamespace(device="pi", sub_model=network(10))])
    with pytest.raises(InputError, match="the teacher must have 10 tokens, as pi has, got 17; name another --teacher"):
        devit(job, train=pytest.fail)
