"""Covering rows, and what is a plan, against the demands of the goal, for every assignment of class subsets."""

import numpy as np
import pytest

from planner.rules.demands import demands_of
from planner.schema import Goal
from planner.solver.problem.build import build_instance
from planner.solver.problem.covering import GroupRow, cover_rows, group_rows, resource_rows
from planner.solver.problem.instance import EMBED_DIMS, NEVER, Instance
from planner.solver.problem.option import PlacedSubModel
from planner.solver.problem.placement import is_plan
from planner.solver.problem.subsets import classes_of
from tests.helpers.pencil import fleet, fleet_data, profile
from tests.helpers.placements import Masks, assignments, devices_of, relays_of, served_by
from tests.helpers.solver_instances import roomy
from tests.helpers.varied_instances import varied

# Of these, with up to 3 classes and 3 devices, every assignment is tried.
SEEDS = [seed for seed in range(72) if seed % 3 < 2 and seed % 4 < 3]


def free_instance(seed: int) -> Instance:
    """Return `varied` without floors and with much memory, so that only the demands decide."""
    profile, fleet, goal = varied(seed)
    return build_instance(profile, roomy(fleet), Goal.model_validate(goal.model_dump() | {"min_retention": 0.0}))


def rows_hold(instance: Instance, masks: Masks) -> bool:
    """Return whether the rows (1) and (2) hold, and each subset is allowed on its device."""
    used = [(g, mask) for (_, g), mask in zip(devices_of(instance), masks, strict=True) if mask]
    covered = all(
        sum(mask >> row.class_index & 1 for g, mask in used if row.counts(g)) >= row.min_devices
        for row in cover_rows(instance.survival_rules, instance.num_classes)
    )
    counted = all(
        row.min_devices <= sum(g == row.group for g, _ in used) <= row.max_devices
        for row in group_rows(instance.groups)
    )
    return covered and counted and all(instance.allows(g, classes_of(mask)) for g, mask in used)


def demands_met(instance: Instance, masks: Masks) -> bool:
    """Return whether every class is served and no demand of the goal is broken, by names."""
    served = served_by(instance, masks)
    demands = demands_of(instance.profile, instance.fleet, instance.goal)
    everywhere = set().union(*served.values()) == set(instance.profile.classes)
    return everywhere and not list(demands.violations(served, relays_of(instance)))


@pytest.mark.parametrize("first", range(0, len(SEEDS), 12))
def test_rows_are_the_demands(first: int) -> None:
    """An assignment meets rows and `is_plan` exactly where it meets the demands by name."""
    met = broken = 0
    for seed in SEEDS[first : first + 12]:
        instance = free_instance(seed)
        if not instance.options:
            continue
        anchor = instance.units.always_kept
        option_of = {option.group: option for option in instance.options}
        devices = devices_of(instance)
        # Of many assignments, every few: with an odd step, all class subsets occur on all devices.
        for masks in list(assignments(instance))[:: 1 if len(devices) < 3 else 5]:
            expected = demands_met(instance, masks)
            assert rows_hold(instance, masks) == expected, (seed, masks)
            pairs = [(option_of[g], mask) for (_, g), mask in zip(devices, masks, strict=True) if mask]
            assert is_plan(instance, [PlacedSubModel(o, classes_of(m), anchor) for o, m in pairs]) == expected
            met, broken = met + expected, broken + (not expected)
    assert met > 20
    assert broken > 20


def test_group_rows_by_hand() -> None:
    """All devices of a group with a pinned class are used; of others, any number."""
    gateway, board, _ = fleet_data()["devices"]
    link = {"between": ["gateway", "pi"], "bandwidth_mbps": 8, "latency_ms": 1}
    on = fleet(devices=[gateway, board | {"name": "pi", "count": 3}], links=[link])
    goals = (Goal(min_retention=0.0), Goal(min_retention=0.0, pin={"a": ("pi",)}))
    free, pinned = (group_rows(build_instance(profile(), on, goal).groups) for goal in goals)
    assert free == [GroupRow(0, 0, 1), GroupRow(1, 0, 3)]
    assert pinned == [GroupRow(0, 0, 1), GroupRow(1, 3, 3)]


def test_resource_rows_are_the_limits_there_are() -> None:
    """A resource without a limit has no row; the coefficients are the options' uses."""
    instance = free_instance(3)
    max_use = np.full(instance.num_resources, NEVER)
    assert resource_rows(max_use) == []
    max_use[EMBED_DIMS] = 12
    (row,) = resource_rows(max_use)
    assert (row.resource, row.max_use) == (EMBED_DIMS, 12)
    assert [row.use(option) for option in instance.options] == [option.embed_dim for option in instance.options]
