"""Exact sub-models of one option and class subset, against enumeration."""

import math
from collections import Counter

import pytest

from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.submodels import knapsack
from tests.helpers.goals import floored
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.solver_instances import DIGITS
from tests.helpers.sub_model_enumeration import (
    NO_SUB_MODEL,
    SEEDS,
    cases,
    cheapest_by_enumeration,
    table_of,
)


def test_the_instances_are_of_all_sorts() -> None:
    """Some subsets have no sub-model, some only because of the memory; in some, memory binds."""
    seen = Counter[str]()
    for seed in SEEDS:
        for _, o, option, classes in cases(seed):
            table = table_of(seed, o)
            time_us, roomy_us = (
                int(table.compute_us[good].min(initial=NO_SUB_MODEL))
                for good in (table.possible(classes), table.meets_floors(classes))
            )
            seen["feasible" if time_us < NO_SUB_MODEL else "infeasible"] += 1
            seen["too large"] += time_us == NO_SUB_MODEL > roomy_us
            seen["memory binds"] += roomy_us < time_us < NO_SUB_MODEL
            seen["charges"] += bool(option.costs.charges.any())
    common = ("feasible", "infeasible", "too large", "charges")
    assert {category: seen[category] for category in common if seen[category] < 150} == {}
    assert seen["memory binds"] >= 10


@pytest.mark.parametrize("seed", SEEDS[::3])
def test_the_cheapest_is_the_cheapest(seed: int) -> None:
    """The proven lowest time equals enumeration, and there is none where enumeration finds none."""
    for instance, o, option, classes in cases(seed):
        answer = knapsack.cheapest(instance, option, classes, Clock(10))
        time_us = cheapest_by_enumeration(seed, o, classes)
        if time_us == NO_SUB_MODEL:
            assert (answer.bound, answer.kept) == (None, None)
            continue
        assert answer.kept is not None
        assert instance.compute_us(option, answer.kept) == answer.bound == time_us
        assert instance.fits(option, answer.kept)
        assert instance.meets_floors(option, classes, answer.kept)


@pytest.mark.parametrize("seed", SEEDS[1::4])
def test_the_smallest_is_the_smallest(seed: int) -> None:
    """The least of each budget equals enumeration, however large the budgets are."""
    for instance, o, option, classes in cases(seed):
        for budget in range(len(option.free_grains)):
            answer = knapsack.smallest(instance, option, classes, budget, Clock(10))
            size = table_of(seed, o).smallest_bytes(classes, budget)
            assert (answer.kept is None) == (size == NO_SUB_MODEL)
            if answer.kept is not None:
                assert list(instance.budget_use(option, answer.kept).values())[budget][0] == size
                assert instance.meets_floors(option, classes, answer.kept)


def test_out_of_time_nothing_is_claimed() -> None:
    """Without any time there is a valid bound and perhaps a sub-model."""
    profile = random_profile(12, num_classes=10, **DIGITS)
    instance = build_instance(profile, random_fleet(profile, 12, tightness=0.6), floored())
    option, classes = instance.options[0], tuple(range(4))
    at_last = knapsack.cheapest(instance, option, classes, Clock(60))
    assert at_last.kept is not None
    assert at_last.bound is not None
    at_once = knapsack.cheapest(instance, option, classes, Clock(0))
    assert at_once.bound is not None
    assert at_once.bound <= at_last.bound <= instance.compute_us(option, at_last.kept)
    assert math.isfinite(at_once.bound)
