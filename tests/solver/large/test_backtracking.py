"""Divisions by backtracking, against every division of small instances and against the best plans of varied ones."""

from functools import cache

import numpy as np
import pytest

from planner.arrays import Ints
from planner.schema import Fleet, Goal, Profile
from planner.solver.large.backtracking import Backtracking
from planner.solver.large.device_bounds import DeviceBoundsCache
from planner.solver.large.set_cover import ClassSet
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import IMPORTANCE_SCALE, NEVER, Instance
from planner.solver.submodels.relaxation import Relaxation, safely_rounded_up
from tests.helpers.goals import floored
from tests.helpers.random_instances import random_fleet, random_goal, random_profile
from tests.helpers.solver_instances import best_of, sharpened
from tests.helpers.sub_model_enumeration import subsets
from tests.helpers.thirteen_classes import best_us, generation_of, instance_of
from tests.helpers.varied_instances import feasible_seeds, varied_instance, varied_slowest_us

NUM_CLASSES = 7


def backtracking_of(instance: Instance) -> Backtracking:
    """Return an unused backtracking search."""
    generation = generation_of(instance)
    return Backtracking(generation.cover, generation.conflicts)


@cache
def seven(seed: int) -> Instance:
    """Return 7 classes on 2 to 4 devices, some alike, with little memory for every second seed."""
    of = random_profile(900 + seed, num_classes=NUM_CLASSES, widths=(8, 4) if seed % 3 == 0 else (8,))
    of = sharpened(of) if seed % 4 else of
    on = random_fleet(of, 900 + seed, num_devices=2 + seed % 3, tightness=(0.5, 1.5)[seed % 2])
    if seed % 5 == 0:
        document = on.model_dump(mode="json")
        last = document["devices"][-1]
        document["devices"].append(last | {"name": "twin"})
        document["links"] += [
            link | {"between": [{last["name"]: "twin"}.get(name, name) for name in link["between"]]}
            for link in document["links"]
            if last["name"] in link["between"]
        ]
        on = Fleet.model_validate(document)
    return build_instance(of, on, floored(min_retention=0.5))


@cache
def times_us(seed: int, elastic: bool = True) -> Ints:
    """Return the latency [us] of every class set on every group of `seven` by its relaxation, (groups, 2^C).

    What exceeds a budget is dear, as it is in the search, or else impossible.
    """
    instance = seven(seed)
    times = np.full((len(instance.groups), 2**NUM_CLASSES), NEVER)
    times[:, 0] = 0
    for option in instance.options:
        relaxation, needs = Relaxation(instance, option, elastic=elastic), option.need[:, 0] / IMPORTANCE_SCALE
        for classes in subsets(instance):
            relaxed = relaxation.relaxed(classes, needs)
            mask = sum(1 << c for c in classes)
            if relaxed is not None:
                us = int(safely_rounded_up(np.array(relaxed.value))) + option.alone_us
                times[option.group, mask] = min(times[option.group, mask], us)
    return times


@cache
def least_us(seed: int) -> int:
    """Return the least time [us] within which whole devices can be given all classes, by trying all divisions."""
    masks = np.arange(2**NUM_CLASSES)
    # The least time of the slowest device for each set of classes, device after device.
    least = np.where(masks == 0, 0, NEVER)
    for g, group in enumerate(seven(seed).groups):
        for _ in group.names:
            least = np.array(
                [
                    min(max(int(least[mask & ~taken]), int(times_us(seed)[g, taken])) for taken in _parts(int(mask)))
                    for mask in masks
                ]
            )
    return int(least[-1])


def _parts(mask: int) -> list[int]:
    parts, part = [0], mask
    while part:
        parts.append(part)
        part = (part - 1) & mask
    return parts


@pytest.mark.parametrize("seed", range(16))
def test_the_answer_is_that_of_all_divisions(seed: int) -> None:
    """A time is refuted exactly where no division among whole devices is within it by the relaxations."""
    backtracking = backtracking_of(seven(seed))
    # Two microseconds away, rounding decides nothing.
    for latency_us in (least_us(seed) // 2, least_us(seed) - 3, 2 * least_us(seed), least_us(seed) + 2):
        found = backtracking.divided(latency_us, Clock(60))
        assert (found is None) == (latency_us < least_us(seed))
        if found is not None:
            _is_division(seed, found, latency_us)


def _is_division(seed: int, found: list[ClassSet], latency_us: int) -> None:
    instance, times = seven(seed), times_us(seed)
    groups = [instance.options[column.option].group for column in found]
    assert all(groups.count(g) <= len(group.names) for g, group in enumerate(instance.groups))
    assert {c for column in found for c in column.classes} == set(range(NUM_CLASSES))
    for g, column in zip(groups, found, strict=True):
        assert times[g, sum(1 << c for c in column.classes)] <= latency_us + 2


@pytest.mark.parametrize("seed", range(12))
def test_the_best_division_is_never_refuted(seed: int) -> None:
    """Of 13 classes on two devices, by trying all divisions with true sub-models."""
    backtracking = backtracking_of(instance_of(seed))
    assert backtracking.divided(best_us(seed) // 2, Clock(60)) is None
    for latency_us in (round(1.3 * best_us(seed)), best_us(seed)):
        assert backtracking.divided(latency_us, Clock(60)) is not None


@pytest.mark.parametrize("first", range(0, 160, 40))
def test_the_best_plan_is_never_refuted(first: int) -> None:
    """With copies, survivors, relays, shared media and choices of width and precision: at the time of the best plan."""
    for seed in set(feasible_seeds()) & set(range(first, first + 40)):
        assert backtracking_of(varied_instance(seed)).divided(varied_slowest_us(seed), Clock(60)) is not None


def demanding(seed: int) -> tuple[Profile, Fleet, Goal]:
    """Return 4 classes on 3 devices, and a goal of least latency with pins, classes together or apart, survivors."""
    of = sharpened(random_profile(5000 + seed, num_classes=4, penalties=True))
    on = random_fleet(of, 5000 + seed, num_devices=3, tightness=1.5, meshed=seed % 2 > 0, choices=True)
    goal = random_goal(of, on, 5000 + seed).model_dump() | {"objective": "latency", "max_latency_ms": None}
    demands = ({"together": [["0", "2"]]}, {"apart": [["1", "3"]]}, {"pin": {"2": [on.devices[-1].name]}}, {})[seed % 4]
    return of, on, Goal.model_validate(goal | demands | {"max_energy_mj": None})


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_demands_are_obeyed(first: int) -> None:
    """The best plan with demands is never refuted, and no division breaks them."""
    possible = 0
    for seed in range(first, first + 20):
        best, instance = best_of(*demanding(seed)), build_instance(*demanding(seed))
        if best is None:
            continue
        possible += 1
        dims = sum(embed_dim for _, embed_dim in filter(None, best.picks))
        found = backtracking_of(instance).divided(best.latency_us - instance.fusion_us(dims), Clock(60))
        assert found is not None, seed
        for column in found:
            assert instance.allows(instance.options[column.option].group, column.classes), seed
        for rule in instance.survival_rules:
            served = [
                c for column in found if instance.options[column.option].group in rule.groups for c in column.classes
            ]
            assert all(served.count(c) >= rule.min_devices for c in range(instance.num_classes)), seed
    assert possible >= 6


@pytest.mark.parametrize("seed", range(1, 16, 3))
def test_it_obeys_a_limit_of_devices(seed: int) -> None:
    """With one device at most, a division is one class set."""
    generation = generation_of(seven(seed))
    generation.cover.max_devices = 1
    found = Backtracking(generation.cover, generation.conflicts).divided(NEVER - 1, Clock(60))
    assert found is None or len(found) == 1


@pytest.mark.parametrize("seed", range(8))
def test_bounds_with_one_class_more_are_bounds(seed: int) -> None:
    """At any classes, those with one more never exceed the relaxation of all of them, and are no less than without."""
    instance, times, impossible = seven(seed), times_us(seed), times_us(seed, elastic=False)
    cache_ = DeviceBoundsCache(generation_of(instance).conflicts)
    rng = np.random.default_rng(seed)
    for g in {option.group for option in instance.options}:
        for mask in rng.choice(np.arange(1, 2**NUM_CLASSES - 1), 12, replace=False).tolist():
            classes = tuple(c for c in range(NUM_CLASSES) if mask >> c & 1)
            bounds = cache_.bounds(g, classes, Clock(60))
            for c in set(range(NUM_CLASSES)) - set(classes):
                wider = tuple(sorted({*classes, c}))
                dear_us, most_us = (int(of[g, mask | 1 << c]) for of in (times, impossible))
                assert bounds.latency_us <= bounds.wider_us[c] <= most_us
                for away_us in (-3, 3) if 3 < dear_us == most_us < NEVER else ():
                    assert cache_.is_within(dear_us + away_us, g, classes, c, wider, Clock(60)) == (away_us > 0)
                assert bounds.wider_us[c] <= most_us


def test_work_is_counted() -> None:
    """With counted work, it ends at the same point: with the same division, or out of time."""
    found = []
    for _ in range(2):
        backtracking = backtracking_of(instance_of(1))
        found.append(backtracking.divided(round(1.2 * best_us(1)), Clock(5, deterministic=True)))
        with pytest.raises(TimeoutError):
            backtracking.divided(round(1.1 * best_us(1)), Clock(0, deterministic=True))
    assert found[0] == found[1]
