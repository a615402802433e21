"""Conflicts and the pricing over them, against every sub-model and every class set of small instances."""

from functools import cache

import numpy as np
import pytest

from planner.solver.large.class_bounds import ClassBounds
from planner.solver.large.conflicts import Conflicts, speed_factor
from planner.solver.large.pricing import Pricing
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import Instance
from tests.helpers.goals import floored
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.sub_model_enumeration import NO_SUB_MODEL, enumerate_sub_models, subsets

SEEDS = range(10)


@cache
def instance_of(seed: int) -> Instance:
    """Return 8 classes and 8 units on 3 devices, with fixed charges and activations."""
    of = random_profile(600 + seed, num_classes=8, kinds=("a",) if seed % 2 else ())
    on = random_fleet(of, 600 + seed, num_devices=3, tightness=(0.4, 0.8, 2.0)[seed % 3])
    return build_instance(of, on, floored(min_retention=(0.4, 0.6)[seed % 2]))


@cache
def latencies_us(seed: int, o: int) -> dict[tuple[int, ...], int]:
    """Return the least latency [us] for each class set on an option, by enumeration."""
    instance = instance_of(seed)
    option = instance.options[o]
    table = enumerate_sub_models(instance, option)
    return {classes: table.cheapest_us(classes) + option.alone_us for classes in subsets(instance)}


def conflicts_of(seed: int, o: int) -> Conflicts:
    """Return conflicts of an option, none found yet."""
    instance = instance_of(seed)
    return Conflicts(instance, instance.options[o], ClassBounds(instance).single_us[o])


def times_us(seed: int, o: int) -> list[int]:
    """Return some of the times in question [us]."""
    possible = sorted(us for us in latencies_us(seed, o).values() if us < NO_SUB_MODEL)
    return [possible[len(possible) * k // 5] - 1 for k in range(1, 5)] if possible else []


@pytest.mark.parametrize("seed", SEEDS)
def test_conflicts_are_part_of_what_they_are_found_in(seed: int) -> None:
    """Among classes served in time there is none; elsewhere it is a part of them, and is known from then on."""
    for o in range(len(instance_of(seed).options)):
        conflicts = conflicts_of(seed, o)
        for latency_us in times_us(seed, o):
            for classes in subsets(instance_of(seed))[::5]:
                found = conflicts.find(classes, latency_us, Clock(60))
                if latencies_us(seed, o)[classes] <= latency_us:
                    assert found is None
                elif found is not None:
                    assert set(found) <= set(classes)
                    assert found in conflicts.violated(classes, latency_us)


def test_every_conflict_holds() -> None:
    """No class set that holds a conflict is served within its time, by enumeration of all sub-models."""
    compared = 0
    for seed in SEEDS:
        for o in range(len(instance_of(seed).options)):
            conflicts, truth_us = conflicts_of(seed, o), latencies_us(seed, o)
            for latency_us in times_us(seed, o):
                for classes in subsets(instance_of(seed))[::5]:
                    conflicts.find(classes, latency_us, Clock(60))
            for conflict in conflicts.classes:
                held = [us for us in times_us(seed, o) if conflict in conflicts.violated(conflict, us)]
                assert all(truth_us[conflict] > us for us in held)
                compared += len(held)
    assert compared >= 40


@pytest.mark.parametrize("seed", SEEDS)
def test_conflicts_hold_on_slower_options(seed: int) -> None:
    """What is taken over from another option holds there too."""
    instance = instance_of(seed)
    for o, option in enumerate(instance.options):
        conflicts = conflicts_of(seed, o)
        for latency_us in times_us(seed, o):
            conflicts.find(range(8), latency_us, Clock(60))
        for p, other in enumerate(instance.options):
            factor = speed_factor(other, option)
            if p == o or not factor:
                continue
            slower = conflicts_of(seed, p)
            slower.take_over(conflicts, factor)
            for conflict in slower.classes:
                for latency_us in times_us(seed, p):
                    if conflict in slower.violated(conflict, latency_us):
                        assert latencies_us(seed, p)[conflict] > latency_us


@pytest.mark.parametrize("seed", SEEDS)
def test_the_dearest_set_is_within_the_bound(seed: int) -> None:
    """At any step, no class set that is served in time is dearer than the bound; sets that come out are in time."""
    rng = np.random.default_rng(seed)
    for o in range(len(instance_of(seed).options)):
        conflicts = conflicts_of(seed, o)
        for latency_us in times_us(seed, o):
            prices = rng.random(8) * rng.integers(0, 2, 8)
            able = [classes for classes, us in latencies_us(seed, o).items() if us <= latency_us]
            dearest = max((float(prices[list(classes)].sum()) for classes in able), default=0.0)
            pricing = Pricing(conflicts, prices, latency_us)
            for _ in range(100):
                assert pricing.bound >= dearest - 1e-9
                if pricing.is_done:
                    break
                classes = pricing.step(Clock(60))
                assert classes is None or conflicts.latency_us(classes, Clock(60)) <= latency_us
            assert pricing.is_done
