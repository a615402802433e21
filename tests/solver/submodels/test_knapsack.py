"""Exact sub-models of one option and class subset, against enumeration."""

import math
from collections import Counter

import numpy as np
import pytest

from planner.rules.cost import retention
from planner.schema import Goal
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import Instance
from planner.solver.problem.option import Option, PlacedSubModel
from planner.solver.submodels import knapsack
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.solver_instances import DIGITS, roomy
from tests.helpers.sub_model_enumeration import (
    NO_SUB_MODEL,
    SEEDS,
    all_kept,
    cases,
    cheapest_by_enumeration,
    instance_of,
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
    """The smallest memory equals enumeration, whatever the budget."""
    for instance, o, option, classes in cases(seed):
        answer = knapsack.smallest(instance, option, classes, Clock(10))
        size = table_of(seed, o).smallest_bytes(classes)
        assert (answer.kept is None) == (size == NO_SUB_MODEL)
        if answer.kept is not None:
            assert instance.memory_bytes(option, answer.kept) == size
            assert instance.meets_floors(option, classes, answer.kept)


def kept_in_time(seed: int, o: int, classes: tuple[int, ...], limit_us: int) -> list[tuple[int, ...]]:
    """Return every sub-model within a time, the budget and the floors."""
    table = table_of(seed, o)
    good = table.possible(classes) & (table.compute_us <= limit_us)
    return [all_kept(len(instance_of(seed).units))[i] for i in np.flatnonzero(good)]


def shares(instance: Instance, option: Option, classes: tuple[int, ...], kept: tuple[int, ...]) -> list[float]:
    """Return the retention of each class."""
    heads, groups = instance.units.blocks(kept, heads=True), instance.units.blocks(kept, heads=False)
    names, dim = instance.profile.classes, option.embed_dim
    return [retention(instance.profile, names[c], dim, heads, groups, option.width_cost.precision) for c in classes]


@pytest.mark.parametrize("seed", SEEDS[2::4])
def test_time_to_spare_is_filled_and_levelled(seed: int) -> None:
    """Within 1.5 times the time, total importance is maximal to a thousandth, then the lowest retention."""
    for instance, o, option, classes in cases(seed):
        time_us = cheapest_by_enumeration(seed, o, classes)
        if time_us == NO_SUB_MODEL or len(classes) % 2:
            continue
        limit_us = time_us * 3 // 2
        possible = kept_in_time(seed, o, classes, limit_us)
        fastest = next(kept for kept in possible if instance.compute_us(option, kept) == time_us)
        value = instance.units.importance[list(classes)].sum(axis=0)
        filled = knapsack.richest(instance, PlacedSubModel(option, classes, fastest), limit_us, Clock(10))
        assert filled in possible
        max_value = max(int(value[list(kept)].sum()) for kept in possible)
        assert int(value[list(filled)].sum()) >= max_value * 0.999
        assert all(value[list(filled)] > 0)
        levelled = knapsack.most_even(instance, PlacedSubModel(option, classes, fastest), limit_us, Clock(10))
        assert levelled in possible
        highest = max(min(shares(instance, option, classes, kept)) for kept in possible)
        assert min(shares(instance, option, classes, levelled)) == pytest.approx(highest, abs=1e-6)


def test_what_no_class_needs_is_not_kept() -> None:
    """Units without importance are not kept, even with time and memory to spare."""
    profile = random_profile(1, num_classes=2)
    data = profile.model_dump(mode="json")
    for heads in data["importance"]["heads"]:
        heads[0][0] += heads[0][1] + heads[1][1]
        heads[0][1] = heads[1][1] = 0.0
    instance = build_instance(
        type(profile).model_validate(data), roomy(random_fleet(profile, 1)), Goal(min_retention=0.5)
    )
    option = instance.options[0]
    fastest = knapsack.cheapest(instance, option, (0, 1), Clock(10)).kept
    assert fastest is not None
    filled = knapsack.richest(instance, PlacedSubModel(option, (0, 1), fastest), 10**9, Clock(10))
    assert instance.units.blocks(filled, heads=True) == ((0,), (0,))
    assert instance.units.blocks(filled, heads=False) == ((0, 1), (0, 1))


def test_out_of_time_nothing_is_claimed() -> None:
    """Without any time there is a valid bound and perhaps a sub-model."""
    profile = random_profile(12, num_classes=10, **DIGITS)
    instance = build_instance(profile, random_fleet(profile, 12, tightness=0.6), Goal())
    option, classes = instance.options[0], tuple(range(4))
    at_last = knapsack.cheapest(instance, option, classes, Clock(60))
    assert at_last.kept is not None
    assert at_last.bound is not None
    at_once = knapsack.cheapest(instance, option, classes, Clock(0))
    assert at_once.bound is not None
    assert at_once.bound <= at_last.bound <= instance.compute_us(option, at_last.kept)
    assert math.isfinite(at_once.bound)
