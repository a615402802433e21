"""Sequences of device groups along the classes, against every sequence and every assignment."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from planner.arrays import Ints
from planner.schema import Fleet
from planner.solver.large.class_bounds import ClassBounds
from planner.solver.large.interval_dp import IntervalDP
from planner.solver.problem.build import build_instance
from planner.solver.problem.instance import Instance
from tests.helpers.goals import floored
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.varied_instances import feasible_seeds, varied_instance, varied_slowest_us


def tiny(seed: int) -> tuple[Instance, IntervalDP]:
    """Return 3 to 5 classes on 2 to 4 devices in groups, some of which must survive."""
    of = random_profile(seed, num_classes=3 + seed % 3)
    data = random_fleet(of, seed, num_devices=1 + seed % 3).model_dump(mode="json")
    data["devices"][-1]["count"] = 1 + seed % 2 + (len(data["devices"]) < 2)
    data["links"], data["aggregator"] = [], "d0" if len(data["devices"]) > 1 else "d0-1"
    instance = build_instance(of, Fleet.model_validate(data), floored(survive=int(seed % 5 == 0)))
    return instance, IntervalDP(instance, ClassBounds(instance))


def sequences(instance: Instance) -> Iterator[tuple[int, ...]]:
    """Yield every sequence in which devices of the groups can follow each other."""
    devices = [g for g, group in enumerate(instance.groups) for _ in group.names]
    for n in range(1, len(devices) + 1):
        yield from sorted(set(itertools.permutations(devices, n)))


def reaches_all(sequence: Sequence[int], served: Ints, slots: Sequence[int]) -> bool:
    """Return whether devices that each begin where the last one ended, or earlier, serve all slots."""
    reached = 0
    for g in sequence:
        reached = max(reached, *(start + int(served[slots[start], g]) for start in range(min(reached + 1, len(slots)))))
    return reached >= len(slots)


def assignable(instance: Instance, served: Ints) -> bool:
    """Return whether classes can be assigned to devices so that none is beside more than its N allows."""
    devices = [g for g, group in enumerate(instance.groups) for _ in group.names]
    copies = instance.survival_rules[0].min_devices
    choices = list(itertools.combinations(range(len(devices)), copies))
    for chosen in itertools.product(choices, repeat=instance.num_classes):
        loads = [sum(d in some for some in chosen) for d in range(len(devices))]
        if all(loads[d] <= served[c, devices[d]] for c, some in enumerate(chosen) for d in some):
            return True
    return False


@pytest.mark.parametrize("seed", range(40))
def test_the_table_finds_a_sequence_where_there_is_one(seed: int) -> None:
    """By trying every sequence for random tables N, one is found exactly where one serves all slots."""
    instance, intervals = tiny(seed)
    assert intervals.exact
    copies = instance.survival_rules[0].min_devices
    slots = [c for c in intervals.order.tolist() for _ in range(copies)]
    rng = np.random.default_rng(seed)
    for _ in range(12):
        served = rng.integers(0, instance.num_classes + 1, (instance.num_classes, len(instance.groups)))
        found = intervals.sequence(served, 0)
        possible = any(reaches_all(some, served, slots) for some in sequences(instance))
        assert (found is not None) == possible
        if found is not None:
            assert reaches_all(found, served, slots)
            assert all(found.count(g) <= len(group.names) for g, group in enumerate(instance.groups))


@pytest.mark.parametrize("seed", range(40))
def test_neighbours_are_enough(seed: int) -> None:
    """A sequence exists if any assignment of classes to devices does, provided that N never falls along the ranks."""
    instance, intervals = tiny(seed)
    single = instance.survival_rules[0].min_devices == 1
    rng = np.random.default_rng(seed)
    for _ in range(6):
        drawn_counts = rng.integers(0, instance.num_classes, (instance.num_classes, len(instance.groups)))
        served = np.zeros_like(drawn_counts)
        served[intervals.order] = np.sort(drawn_counts, axis=0)
        found, possible = intervals.sequence(served, 0) is not None, assignable(instance, served)
        assert found or not possible
        # With copies, an interval may hold two of a class, which no device may.
        assert found == possible or not single


@pytest.mark.parametrize("seed", feasible_seeds()[::5])
def test_the_flow_says_an_order_where_tables_are_too_large(seed: int) -> None:
    """Without tables, the flow allows what the best plan does, with no more devices than a group has."""
    instance = varied_instance(seed)
    intervals = IntervalDP(instance, ClassBounds(instance))
    intervals.exact = False
    assert intervals.possible(varied_slowest_us(seed))
    found = intervals.sequence(ClassBounds(instance).served(varied_slowest_us(seed)), varied_slowest_us(seed))
    assert found is not None
    assert all(found.count(g) <= len(group.names) for g, group in enumerate(instance.groups))
