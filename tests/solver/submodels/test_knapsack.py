"""Sub-models for one device and class subset: bounds, exact ones and priced ones, against enumeration."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import pytest

from planner.arrays import Bools, Ints
from planner.rules.cost import retention
from planner.schema import Goal
from planner.solver.problem.build import build_instance
from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER, Instance
from planner.solver.problem.option import Option
from planner.solver.submodels import knapsack
from planner.solver.submodels.lagrangian import LagrangianHeuristic
from planner.solver.submodels.relaxation import Relaxation
from tests.helpers.random_instances import random_fleet, random_profile
from tests.helpers.solver_instances import DIGITS, changed, roomy, sharpened

SEEDS = range(24)
NO_PLAN = 2 * NEVER


@lru_cache
def instance_of(seed: int) -> Instance:
    """Return 4 classes, 8 units, 3 devices; with switch costs, several widths, precisions and small budgets."""
    drawn = random_profile(
        seed,
        widths=(8, 4) if seed % 3 == 0 else (8,),
        kinds=("a", "b") if seed % 4 else (),
        penalties=seed % 2 == 0,
    )
    drawn = sharpened(drawn) if seed % 5 < 3 else drawn
    on = random_fleet(drawn, seed, tightness=(0.3, 0.5, 0.8, 2.0)[seed % 4], choices=seed % 2 == 0)
    return build_instance(drawn, on, Goal(min_retention=(0.3, 0.5, 0.7, 0.9)[seed // 4 % 4]) if seed % 2 else Goal())


@lru_cache
def all_kept(num_units: int) -> list[tuple[int, ...]]:
    """Return every set of units."""
    return [kept for n in range(num_units + 1) for kept in itertools.combinations(range(num_units), n)]


@dataclass(frozen=True)
class Table:
    """Every set of units on an option: compute time [us] and memory [bytes] by the formulas (S,), importance (S, C)."""

    us: Ints
    size: Ints
    have: Ints
    budget: int

    def enough(self, option: Option, classes: tuple[int, ...]) -> Bools:
        """Return which sets of units keep the floors of these classes, (S,)."""
        some = list(classes)
        met: Bools = np.all(self.have[:, some] >= option.need[some, len(some) - 1], axis=1)
        return met


@lru_cache
def table(seed: int, o: int) -> Table:
    """Return every set of units on an option."""
    instance = instance_of(seed)
    option, kept = instance.options[o], all_kept(len(instance.units))
    return Table(
        np.array([instance.compute_us(option, some) for some in kept]),
        np.array([instance.memory_bytes(option, some) for some in kept]),
        np.array([instance.units.importance[:, list(some)].sum(axis=1) for some in kept]),
        option.device.memory_budget_bytes,
    )


@cache
def cheapest_by_enumeration(seed: int, o: int, classes: tuple[int, ...]) -> tuple[int, int]:
    """Return the lowest time [us] within the budget, and the smallest memory [bytes]; `NO_PLAN` if none."""
    found = table(seed, o)
    good = found.enough(instance_of(seed).options[o], classes)
    within = good & (found.size <= found.budget)
    return int(found.us[within].min(initial=NO_PLAN)), int(found.size[good].min(initial=NO_PLAN))


def subsets(instance: Instance) -> list[tuple[int, ...]]:
    """Return every nonempty class subset."""
    classes = range(instance.num_classes)
    return [some for n in classes for some in itertools.combinations(classes, n + 1)]


def cases(seed: int) -> Iterator[tuple[Instance, int, Option, tuple[int, ...]]]:
    """Yield every option and class subset of an instance."""
    instance = instance_of(seed)
    for o, option in enumerate(instance.options):
        for classes in subsets(instance):
            yield instance, o, option, classes


def test_the_instances_are_of_all_sorts() -> None:
    """Some subsets have no sub-model, some only because of the memory; in some, memory binds."""
    seen = Counter[str]()
    for seed in SEEDS:
        for _, o, option, classes in cases(seed):
            found = table(seed, o)
            (time_us, size), good = cheapest_by_enumeration(seed, o, classes), found.enough(option, classes)
            seen["feasible" if time_us < NO_PLAN else "infeasible"] += 1
            seen["too large"] += time_us == NO_PLAN > size
            seen["memory binds"] += int(found.us[good].min(initial=NO_PLAN)) < time_us < NO_PLAN
            seen["switches"] += bool(option.costs.charges.any())
    assert {what: seen[what] for what in ("feasible", "infeasible", "too large", "switches") if seen[what] < 150} == {}
    assert seen["memory binds"] >= 10


@pytest.mark.parametrize("seed", SEEDS)
def test_relaxations_are_bounds(seed: int) -> None:
    """No sub-model of these classes, or of a superset with the same binding classes, is faster."""
    instance = instance_of(seed)
    for o, option in enumerate(instance.options):
        relaxation = Relaxation(instance, option)
        for classes in subsets(instance):
            bound = relaxation.bound(classes)
            if bound is None:
                assert cheapest_by_enumeration(seed, o, classes)[0] == NO_PLAN
                continue
            assert set(bound.binding) <= set(classes)
            for others in subsets(instance):
                if set(bound.binding) <= set(others):
                    assert bound.by_count[len(others) - 1] <= cheapest_by_enumeration(seed, o, others)[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_relaxations_of_memory_are_bounds(seed: int) -> None:
    """No sub-model is smaller, whatever the budget."""
    instance = instance_of(seed)
    for o, option in enumerate(instance.options):
        relaxation = Relaxation(instance, option, of_memory=True)
        always = instance.memory_bytes(option, ())
        for classes in subsets(instance):
            bound = relaxation.bound(classes)
            smallest = cheapest_by_enumeration(seed, o, classes)[1]
            if bound is None:
                assert smallest == NO_PLAN
            elif smallest < NO_PLAN:
                # The bound counts what is beyond the empty sub-model, which was rounded up.
                assert bound.by_count[len(classes) - 1] <= (smallest - always + 1) * option.costs.grains_per_byte


@pytest.mark.parametrize("seed", SEEDS[::3])
def test_the_cheapest_is_the_cheapest(seed: int) -> None:
    """The proven lowest time equals enumeration, and there is none where enumeration finds none."""
    for instance, o, option, classes in cases(seed):
        answer = knapsack.cheapest(instance, option, classes, Clock(10))
        time_us = cheapest_by_enumeration(seed, o, classes)[0]
        if time_us == NO_PLAN:
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
        size = cheapest_by_enumeration(seed, o, classes)[1]
        assert (answer.kept is None) == (size == NO_PLAN)
        if answer.kept is not None:
            assert instance.memory_bytes(option, answer.kept) == size
            assert instance.meets_floors(option, classes, answer.kept)


def kept_in_time(seed: int, o: int, classes: tuple[int, ...], limit_us: int) -> list[tuple[int, ...]]:
    """Return every sub-model within a time, the budget and the floors."""
    instance, found = instance_of(seed), table(seed, o)
    good = found.enough(instance.options[o], classes) & (found.us <= limit_us) & (found.size <= found.budget)
    return [all_kept(len(instance.units))[i] for i in np.flatnonzero(good)]


def shares(instance: Instance, option: Option, classes: tuple[int, ...], kept: tuple[int, ...]) -> list[float]:
    """Return the retention of each class."""
    heads, groups = instance.units.blocks(kept, heads=True), instance.units.blocks(kept, heads=False)
    names, dim = instance.profile.classes, option.embed_dim
    return [retention(instance.profile, names[c], dim, heads, groups, option.at.precision) for c in classes]


@pytest.mark.parametrize("seed", SEEDS[2::4])
def test_time_to_spare_is_filled_and_levelled(seed: int) -> None:
    """Within 1.5 times the time, total importance is maximal to a thousandth, then the lowest retention."""
    for instance, o, option, classes in cases(seed):
        time_us = cheapest_by_enumeration(seed, o, classes)[0]
        if time_us == NO_PLAN or len(classes) % 2:
            continue
        limit_us = time_us * 3 // 2
        possible = kept_in_time(seed, o, classes, limit_us)
        begun = next(kept for kept in possible if instance.compute_us(option, kept) == time_us)
        value = instance.units.importance[list(classes)].sum(axis=0)
        filled = knapsack.richest(instance, option, classes, limit_us, begun, Clock(10))
        assert filled in possible
        max_value = max(int(value[list(kept)].sum()) for kept in possible)
        assert int(value[list(filled)].sum()) >= max_value * 0.999
        assert all(value[list(filled)] > 0)
        levelled = knapsack.most_even(instance, option, classes, limit_us, begun, Clock(10))
        assert levelled in possible
        highest = max(min(shares(instance, option, classes, kept)) for kept in possible)
        assert min(shares(instance, option, classes, levelled)) == pytest.approx(highest, abs=1e-6)


def test_what_no_class_needs_is_not_kept() -> None:
    """Units without importance are not kept, even with time and memory to spare."""
    drawn = random_profile(1, num_classes=2)
    data = drawn.model_dump(mode="json")
    for heads in data["importance"]["heads"]:
        heads[0][0] += heads[0][1] + heads[1][1]
        heads[0][1] = heads[1][1] = 0.0
    instance = build_instance(type(drawn).model_validate(data), roomy(random_fleet(drawn, 1)), Goal(min_retention=0.5))
    option = instance.options[0]
    begun = knapsack.cheapest(instance, option, (0, 1), Clock(10)).kept
    assert begun is not None
    filled = knapsack.richest(instance, option, (0, 1), 10**9, begun, Clock(10))
    assert instance.units.blocks(filled, heads=True) == ((0,), (0,))
    assert instance.units.blocks(filled, heads=False) == ((0, 1), (0, 1))


@pytest.mark.parametrize("seed", SEEDS)
def test_sub_models_by_prices_are_sub_models(seed: int) -> None:
    """Priced sub-models have the stated time, fit, keep the floors and are never faster than the fastest."""
    instance = instance_of(seed)
    found = 0
    for o, option in enumerate(instance.options):
        wanted = subsets(instance)
        built = LagrangianHeuristic(instance, option).build(wanted)
        for classes, time_us, row in zip(wanted, built.compute_us.tolist(), built.kept, strict=True):
            if time_us >= NEVER:
                continue
            kept = tuple(np.flatnonzero(row).tolist())
            found += 1
            assert instance.compute_us(option, kept) == time_us >= cheapest_by_enumeration(seed, o, classes)[0]
            assert instance.fits(option, kept)
            assert instance.meets_floors(option, classes, kept)
    assert found or all(cheapest_by_enumeration(seed, o, classes)[0] == NO_PLAN for _, o, _, classes in cases(seed))


@pytest.mark.parametrize(
    ("kinds", "tightness", "max_off"), [((), 4.0, 1.03), (("a", "b"), 4.0, 1.05), ((), 0.4, 1.06)], ids=str
)
def test_sub_models_by_prices_are_near_the_bound(kinds: tuple[str, ...], tightness: float, max_off: float) -> None:
    """With 144 units, the median of hundreds is within a few percent of the relaxation, also when memory binds."""
    drawn = random_profile(11, num_classes=12, kinds=kinds, **DIGITS)
    if tightness < 1:
        # Heads take little time and much memory, channels the other way round: one has to be paid for the other.
        widths = [w | {"head_params": [900] * 4, "head_macs": [200] * 4} for w in drawn.model_dump()["widths"]]
        drawn = changed(drawn, widths=widths)
    on = random_fleet(drawn, 11, num_devices=5, tightness=tightness)
    instance, unbound = build_instance(drawn, on, Goal()), build_instance(drawn, roomy(on), Goal())
    rng = np.random.default_rng(0)
    wanted = sorted({tuple(sorted(rng.permutation(12)[: 1 + i % 7].tolist())) for i in range(150)})
    off, missed, dearer = [], 0, 0
    for option in instance.options:
        relaxation = Relaxation(instance, option)
        at_ease = next(o for o in unbound.options if o.device.name == option.device.name)
        free = Relaxation(unbound, at_ease)
        built = LagrangianHeuristic(instance, option).build(wanted)
        for classes, time_us in zip(wanted, built.compute_us.tolist(), strict=True):
            bound, without_memory = relaxation.bound(classes), free.bound(classes)
            assert without_memory is not None
            n = len(classes) - 1
            if bound is None:
                assert time_us >= NEVER
                continue
            dearer += bound.by_count[n] > 1.01 * without_memory.by_count[n]
            missed += time_us >= NEVER
            if time_us < NEVER:
                assert bound.by_count[n] <= time_us
                off.append(time_us / bound.by_count[n])
    assert len(off) > 100
    assert missed <= 0.1 * len(off)
    assert float(np.median(off)) <= max_off
    assert dearer > 20 or tightness > 1


def test_out_of_time_nothing_is_claimed() -> None:
    """Without any time there is a valid bound and perhaps a sub-model."""
    drawn = random_profile(12, num_classes=10, **DIGITS)
    instance = build_instance(drawn, random_fleet(drawn, 12, tightness=0.6), Goal())
    option, classes = instance.options[0], tuple(range(4))
    at_last = knapsack.cheapest(instance, option, classes, Clock(60))
    assert at_last.kept is not None
    assert at_last.bound is not None
    at_once = knapsack.cheapest(instance, option, classes, Clock(0))
    assert at_once.bound is not None
    assert at_once.bound <= at_last.bound <= instance.compute_us(option, at_last.kept)
    assert math.isfinite(at_once.bound)
