"""Covers by class sets: the linear program against HiGHS, whole covers against every choice."""

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog

from planner.solver.large.set_cover import ClassSet, SetCover
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER, Instance
from tests.helpers.varied_instances import feasible_seeds, varied_instance

SEEDS = feasible_seeds()[::3]


def columns_of(instance: Instance, seed: int, count: int) -> list[ClassSet]:
    """Return random class sets."""
    rng = np.random.default_rng(seed)
    found = set()
    for _ in range(count):
        chosen = np.flatnonzero(rng.random(instance.num_classes) < 0.6).tolist()
        if chosen:
            found.add(ClassSet(int(rng.integers(len(instance.options))), tuple(chosen)))
    return sorted(found)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_linear_program(seed: int) -> None:
    """What is uncovered, and what the prices prove of it, are what HiGHS finds."""
    instance = varied_instance(seed)
    cover = SetCover(instance)
    columns = columns_of(instance, seed, 8)
    found = cover.fractional(columns, Clock(60))
    rows = np.zeros((len(cover.rows) + len(cover.counts), len(columns) + len(cover.rows)))
    for i, column in enumerate(columns):
        group = instance.options[column.option].group
        for r, row in enumerate(cover.rows):
            rows[r, i] = -1.0 if row.class_index in column.classes and group in row.rule.groups else 0.0
        rows[len(cover.rows) + group, i] = 1
    rows[range(len(cover.rows)), range(len(columns), rows.shape[1])] = -1
    goal = np.r_[np.zeros(len(columns)), np.ones(len(cover.rows))]
    expected = linprog(goal, A_ub=rows, b_ub=np.r_[-cover.demand, cover.counts])
    assert found.uncovered == pytest.approx(expected.fun, abs=1e-6)
    # Strong duality: each group's devices are worth at most their dearest column.
    worth = np.zeros(len(cover.counts))
    for column in columns:
        group = instance.options[column.option].group
        worth[group] = max(worth[group], cover.class_prices(group, found.row_prices)[list(column.classes)].sum())
    assert float(cover.demand @ found.row_prices) - cover.most(worth) == pytest.approx(expected.fun, abs=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_whole_covers(seed: int) -> None:
    """A whole cover is found exactly where one of all choices of columns is one."""
    instance = varied_instance(seed)
    cover = SetCover(instance)
    columns = columns_of(instance, seed + 1, 5)
    found = cover.whole(columns, Clock(60))
    num_devices = int(cover.counts.sum())
    choices = (c for n in range(1, num_devices + 1) for c in itertools.combinations_with_replacement(columns, n))
    assert (found is not None) == any(is_cover(instance, choice) for choice in choices)
    if found is not None:
        assert is_cover(instance, tuple(found))


def is_cover(instance: Instance, chosen: tuple[ClassSet, ...]) -> bool:
    """Return whether devices with these class sets cover all classes by every rule."""
    groups = [instance.options[column.option].group for column in chosen]
    for g, group in enumerate(instance.groups):
        if not (len(group.names) if group.pinned else 0) <= groups.count(g) <= len(group.names):
            return False
    return all(
        sum(c in column.classes and g in rule.groups for column, g in zip(chosen, groups, strict=True))
        >= rule.min_devices
        for rule in instance.survival_rules
        for c in range(instance.num_classes)
    )


def test_the_number_of_devices_is_limited() -> None:
    """Of many devices, only so many count, in the cover as in what all can serve."""
    instance = varied_instance(feasible_seeds()[0])
    cover = SetCover(instance, max_devices=1)
    assert cover.most(np.ones(len(cover.counts))) == 1
    assert SetCover(instance, NEVER).most(np.ones(len(cover.counts))) == cover.counts.sum()


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_missing(seed: int) -> None:
    """A class is missing where one of the rules counts too few of the devices that serve it."""
    instance = varied_instance(seed)
    chosen = columns_of(instance, seed + 2, 2)
    groups = [instance.options[column.option].group for column in chosen]
    missing = {
        c
        for rule in instance.survival_rules
        for c in range(instance.num_classes)
        if sum(c in column.classes and g in rule.groups for column, g in zip(chosen, groups, strict=True))
        < rule.min_devices
    }
    assert SetCover(instance).missing(chosen) == missing
