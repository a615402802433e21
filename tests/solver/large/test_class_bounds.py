"""Bounds for many classes are below every plan; tables of consecutive devices are checked against every sequence."""

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import pytest

from planner.arrays import Ints
from planner.schema import Fleet, Goal, Profile
from planner.solver.large import search
from planner.solver.large.class_bounds import ClassBounds
from planner.solver.large.interval_dp import IntervalDP
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER, Instance
from planner.solver.problem.objective import ObjectiveFunction
from planner.solver.submodels.single_class import single_class_us
from tests.helpers.brute_force import Best
from tests.helpers.pencil import fleet, fleet_data, profile
from tests.helpers.random_instances import random_fleet, random_goal, random_profile
from tests.helpers.solver_instances import best_of, sharpened

SEEDS = range(180)


@lru_cache
def drawn(seed: int) -> tuple[Profile, Fleet, Goal]:
    """Return 2 to 4 classes on 1 to 4 devices; shared media, relays, choices of width and precision, any goal."""
    of = random_profile(
        1000 + seed,
        num_classes=2 + seed % 3,
        widths=(8, 4) if seed % 4 == 0 else (8,),
        kinds=("a",) if seed % 5 < 2 else (),
        penalties=seed % 2 == 0,
    )
    of = sharpened(of) if seed % 7 < 4 else of
    on = random_fleet(
        of,
        1000 + seed,
        num_devices=1 + seed % 4,
        tightness=(0.5, 0.9, 1.6)[seed % 3],
        meshed=seed % 4 > 1,
        choices=seed % 3 > 0,
    )
    return of, on, random_goal(of, on, 1000 + seed)


@lru_cache
def best(seed: int) -> Best | None:
    """Return what brute force finds for `drawn`."""
    return best_of(*drawn(seed))


@lru_cache
def instance_of(seed: int) -> Instance:
    """Return the instance of `drawn`."""
    return build_instance(*drawn(seed))


def feasible() -> list[int]:
    """Return the seeds of `drawn` for which there is a plan."""
    return [seed for seed in SEEDS if best(seed) is not None]


def slowest_us(seed: int) -> int:
    """Return the latency of the slowest device of the best plan [us]."""
    found = best(seed)
    assert found is not None
    dims = sum(embed_dim for _, embed_dim in filter(None, found.picks))
    return found.latency_us - instance_of(seed).fusion_us(dims)


# --- what a class takes by itself


@pytest.mark.parametrize("seed", SEEDS[::6])
def test_no_sub_model_is_faster_than_its_hardest_class(seed: int) -> None:
    """By trying every set of units, no sub-model is faster than the bound of one of its classes."""
    instance = instance_of(seed)
    kept = [some for n in range(9) for some in itertools.combinations(range(len(instance.units)), n)]
    for option in instance.options:
        solo = single_class_us(instance, option)
        times = np.array([instance.compute_us(option, some) if instance.fits(option, some) else NEVER for some in kept])
        have = np.array([instance.units.importance[:, list(some)].sum(axis=1) for some in kept])
        for n in range(1, instance.num_classes + 1):
            for classes in map(list, itertools.combinations(range(instance.num_classes), n)):
                good = (have[:, classes] >= option.need[classes, n - 1]).all(axis=1)
                assert solo[classes, n - 1].max() <= times[good].min(initial=NEVER)


def test_what_a_class_takes_by_itself_by_hand() -> None:
    """Class a at 0.5 on the gateway: 1000 fixed MACs, then the units of most importance per MAC, divisible.

    Groups of 0.1 each take 10, 20, 20 and 40 MACs; the head of 0.3 takes 100, which is better than the last
    group. So 0.3 for 50 MACs, and two thirds of the head: 1116.67 / 3 = 372.2 us. Class b needs the same:
    groups 0.1 for 10, 0.2 for 20, 0.1 for 20, then a quarter of 0.1 for 40: 0.4 + 0.1 for 50 + 40 MACs.
    """
    alone = fleet(devices=fleet_data()["devices"][:1], links=[])
    instance = build_instance(profile(), alone, Goal(min_retention=0.5))
    wide = next(option for option in instance.options if option.embed_dim == 8)
    assert single_class_us(instance, wide).tolist() == [[373, 373], [364, 364]]


# --- the flow, and tables of blocks, below every plan


def test_the_fleets_are_of_all_sorts() -> None:
    """Survivors, shared media, several widths and options occur often, with a plan."""
    assert 80 <= len(feasible()) <= 160
    seen = [
        (
            instance_of(seed).survival_rules[0].min_devices > 1,
            len(instance_of(seed).survival_rules) > 1,
            bool(instance_of(seed).us_per_byte),
            len({option.embed_dim for option in instance_of(seed).options}) > 1,
            len(instance_of(seed).options) > len(instance_of(seed).groups),
            bool(instance_of(seed).together or instance_of(seed).apart),
        )
        for seed in feasible()
    ]
    assert min(map(sum, zip(*seen, strict=True))) >= 4, list(map(sum, zip(*seen, strict=True)))


@pytest.mark.parametrize("first", range(0, len(SEEDS), 20))
def test_the_bounds_are_below_the_best_plan(first: int) -> None:
    """Bounds on the slowest device, the fusion and the fleet's latency, by flow and by blocks, hold."""
    for seed in set(feasible()) & set(range(first, first + 20)):
        of, on, goal = drawn(seed)
        latency = best_of(of, on, Goal.model_validate(goal.model_dump() | {"objective": "latency"}))
        assert latency is not None
        instance, found_us = instance_of(seed), slowest_us(seed)
        bounds = ClassBounds(instance)
        by_flow, by_blocks = bounds.slowest_us(Clock(60)), IntervalDP(instance, bounds).slowest_us(Clock(60))
        assert by_flow is not None
        assert by_blocks is not None
        assert max(by_flow, by_blocks) <= found_us
        found = best(seed)
        assert found is not None
        assert bounds.fusion_us(found_us) <= found.latency_us - found_us
        bound_us = search.latency_bound_us(instance)
        assert bound_us is not None
        assert bound_us <= latency.latency_us <= found.latency_us


@pytest.mark.parametrize("first", range(0, len(SEEDS), 20))
def test_the_flow_is_below_the_best_plan(first: int) -> None:
    """Within the time of the best plan there is a flow with no more embed dims, devices and energy."""
    for seed in set(feasible()) & set(range(first, first + 20)):
        instance, found = instance_of(seed), best(seed)
        assert found is not None
        used = [pick for pick in found.picks if pick is not None]
        bounds, within_us = ClassBounds(instance), slowest_us(seed)
        dims, devices = bounds.relaxed(within_us, "latency"), bounds.relaxed(within_us, "devices")
        assert dims is not None
        assert devices is not None
        assert dims <= sum(embed_dim for _, embed_dim in used)
        assert devices <= len(used)
        if instance.goal.objective == "energy":
            energy = bounds.relaxed(within_us, "energy")
            assert energy is not None
            assert energy <= float(found.value) * 1000 * instance.energy_scale + 1e-6


@pytest.mark.parametrize("first", range(0, len(SEEDS), 20))
def test_the_flow_respects_the_number_of_devices(first: int) -> None:
    """With the best plan's number of devices there is a flow; with fewer than the copies there is none."""
    for seed in set(feasible()) & set(range(first, first + 20)):
        instance, found = instance_of(seed), best(seed)
        assert found is not None
        used = sum(pick is not None for pick in found.picks)
        bounds = ClassBounds(instance, used)
        assert bounds.relaxed(slowest_us(seed), "latency") is not None
        assert IntervalDP(instance, bounds, used).possible(slowest_us(seed))
        copies = max(rule.min_devices for rule in instance.survival_rules)
        if copies > 1:
            assert ClassBounds(instance, copies - 1).relaxed(bounds.longest_us, "latency") is None


@pytest.mark.parametrize("objective", ["latency", "energy", "devices"])
def test_bounds_of_each_objective(objective: str) -> None:
    """Within the limits of the goal, the bound of the search is never beyond the optimum."""
    compared = 0
    for seed in feasible():
        of, on, goal = drawn(seed)
        changes = {"objective": objective, "max_latency_ms": goal.max_latency_ms or 1000.0}
        limited = Goal.model_validate(goal.model_dump() | changes)
        found = best_of(of, on, limited)
        assert found is not None
        instance = build_instance(of, on, limited)
        bounds, function = ClassBounds(instance), ObjectiveFunction(instance, limited.objective)
        slowest = bounds.slowest_us(Clock(60))
        assert slowest is not None
        bound = search._bound(instance, bounds, function, slowest, NEVER)
        assert bound is not None
        value = float(found.value) * (1000 * instance.energy_scale if objective == "energy" else 1)
        assert bound <= value + 1e-6
        compared += 1
    assert compared >= 80


# --- tables of blocks


def tiny(seed: int) -> tuple[Instance, IntervalDP]:
    """Return 3 to 5 classes on 2 to 4 devices in groups, some of which must survive."""
    of = random_profile(seed, num_classes=3 + seed % 3)
    data = random_fleet(of, seed, num_devices=1 + seed % 3).model_dump(mode="json")
    data["devices"][-1]["count"] = 1 + seed % 2 + (len(data["devices"]) < 2)
    data["links"], data["aggregator"] = [], "d0" if len(data["devices"]) > 1 else "d0-1"
    instance = build_instance(of, Fleet.model_validate(data), Goal(survive=int(seed % 5 == 0)))
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
    instance, blocks = tiny(seed)
    assert blocks.exact
    copies = instance.survival_rules[0].min_devices
    slots = [c for c in blocks.order.tolist() for _ in range(copies)]
    rng = np.random.default_rng(seed)
    for _ in range(12):
        served = rng.integers(0, instance.num_classes + 1, (instance.num_classes, len(instance.groups)))
        found = blocks.sequence(served, 0)
        possible = any(reaches_all(some, served, slots) for some in sequences(instance))
        assert (found is not None) == possible
        if found is not None:
            assert reaches_all(found, served, slots)
            assert all(found.count(g) <= len(group.names) for g, group in enumerate(instance.groups))


@pytest.mark.parametrize("seed", range(40))
def test_neighbours_are_enough(seed: int) -> None:
    """Where N never falls along the ranks, a sequence exists if any assignment of classes to devices does."""
    instance, blocks = tiny(seed)
    single = instance.survival_rules[0].min_devices == 1
    rng = np.random.default_rng(seed)
    for _ in range(6):
        drawn_counts = rng.integers(0, instance.num_classes, (instance.num_classes, len(instance.groups)))
        served = np.zeros_like(drawn_counts)
        served[blocks.order] = np.sort(drawn_counts, axis=0)
        found, possible = blocks.sequence(served, 0) is not None, assignable(instance, served)
        assert found or not possible
        # With copies, a block may hold two of a class, which no device may.
        assert found == possible or not single


@pytest.mark.parametrize("seed", feasible()[::5])
def test_the_flow_says_an_order_where_tables_are_too_large(seed: int) -> None:
    """Without tables, the flow allows what the best plan does, with no more devices than a group has."""
    instance = instance_of(seed)
    blocks = IntervalDP(instance, ClassBounds(instance))
    blocks.exact = False
    assert blocks.possible(slowest_us(seed))
    found = blocks.sequence(ClassBounds(instance).served(slowest_us(seed)), slowest_us(seed))
    assert found is not None
    assert all(found.count(g) <= len(group.names) for g, group in enumerate(instance.groups))
